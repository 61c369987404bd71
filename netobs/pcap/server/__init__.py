"""The server of packet streams."""
