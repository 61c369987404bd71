"""Options Templates and their records."""
