"""The ground floor, which every room uses: the loop, clocks, files, errors, the log."""
