"""A collector's side: what ``netobs listen`` receives, decodes and prints."""
