"""The parts of ``netobs capture``."""
