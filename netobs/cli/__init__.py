"""The commands: words and options only."""
