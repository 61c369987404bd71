"""The spool: flows kept on disk while no collector takes them."""
