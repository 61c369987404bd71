"""What every room stands on: the loop, clocks, files, errors, the log."""
