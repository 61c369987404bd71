"""Finds the parts of a template that collectors misread."""
