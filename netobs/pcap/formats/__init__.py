"""What a stream of packets is made of: classic pcap, and pcapng."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

from netobs.kernel.interfaces import Interface
from netobs.pcap.formats.pcap import PcapStream
from netobs.pcap.formats.pcapng import PcapngStream
from netobs.pcap.formats.stream import PacketStream


def stream_of(
    name: str,
    link: int,
    snaplen: int,
    filter_text: str = "",
    known: Mapping[int, Interface] | None = None,
    captured: Callable[[], Sequence[Interface]] = list,
    start_ns: int = 0,
) -> PacketStream:
    """A new stream of the format ``name``, "pcap" or "pcapng". ``known``: interfaces by index; ``captured`` tells which
    may have packets for it; ``start_ns``: from when they are, CLOCK_MONOTONIC."""
    if name == "pcap":
        return PcapStream(snaplen, link)
    return PcapngStream(snaplen, filter_text, known or {}, captured, start_ns)
