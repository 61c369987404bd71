"""One number for an interface among those of all network namespaces."""

from __future__ import annotations

NETNS_SHIFT = 32


def interface_key(netns: int, ifindex: int) -> int:
    """Identifies an interface: its index is unique within its network namespace only. ``netns``: 0 = the first."""
    return netns << NETNS_SHIFT | ifindex
