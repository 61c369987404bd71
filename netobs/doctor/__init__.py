"""``netobs doctor``: looks at this host and the daemon, says what keeps packets from being counted, and changes
nothing."""
