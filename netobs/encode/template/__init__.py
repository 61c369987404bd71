"""Templates: their fields, files and wire form."""
