"""Flow Records, the names of interfaces, and the content of reports."""
