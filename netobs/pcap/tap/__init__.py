"""The tap: packets out of the kernel."""
