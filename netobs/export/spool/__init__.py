"""The spool: flows on disk while their collector is down."""
