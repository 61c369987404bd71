"""The live table: what is counted in the kernel right now, grouped and sorted, for ``netobs top``."""
