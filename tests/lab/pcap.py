"""Reading what tcpdump and netobs write: classic pcap, in any of its four forms (draft-ietf-opsawg-pcap, section 4)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from tests.lab.namespaces import LabError

_FORMS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}


class Packet(NamedTuple):
    """A record of a capture file."""

    time_ns: int
    length: int
    octets: bytes


def read_pcap(path: Path) -> list[Packet]:
    """All packets of a file. ``LabError`` where it is damaged, or ends within a packet."""
    data = path.read_bytes()
    if data[:4] not in _FORMS:
        raise LabError(f"{path}: no pcap file: {data[:16]!r}")
    order, unit_ns = _FORMS[data[:4]]
    header = struct.Struct(f"{order}IIII")
    packets: list[Packet] = []
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            raise LabError(f"{path}: ends within the header of packet {len(packets)}")
        seconds, fraction, kept, length = header.unpack_from(data, at)
        octets = data[at + 16 : at + 16 + kept]
        if len(octets) < kept:
            raise LabError(f"{path}: ends within packet {len(packets)}")
        packets.append(Packet(seconds * 1_000_000_000 + fraction * unit_ns, length, octets))
        at += 16 + kept
    return packets
