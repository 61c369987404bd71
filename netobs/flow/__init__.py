"""What a flow is: its records, the names of interfaces, the words of reports."""
