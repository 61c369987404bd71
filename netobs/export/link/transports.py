"""The link of each transport. Its module is imported when a collector uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netobs.export.link.link import Link


def link_class(transport: str) -> type[Link]:
    """The link of ``transport``: "udp", "tcp" or "tls"."""
    if transport == "udp":
        from netobs.export.link.udp import UdpLink

        return UdpLink
    if transport == "tcp":
        from netobs.export.link.tcp import TcpLink

        return TcpLink
    from netobs.export.link.tls import TlsLink

    return TlsLink
