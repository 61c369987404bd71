"""The root helper: does for the daemon what only root may, and nothing else."""
