"""netobs: a network observability daemon for Linux hosts."""

__version__ = "0.1.0"

DEFAULT_CONF = "/etc/netobs.toml"
