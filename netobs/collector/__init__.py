"""The built-in collector: ``netobs listen`` receives, decodes and prints flows."""
