"""Messages made octet by octet, of the rules of RFC 7011 and RFC 3954 alone: nothing of netobs's encoder is in them."""

from __future__ import annotations

import struct

TIME_S = 1_700_000_000
UPTIME_MS = 1_000


def message(*sets: tuple[int, bytes], sequence: int = 0, domain: int = 1) -> bytes:
    """A Message of IPFIX; each Set is its id and its content."""
    body = _sets(sets)
    return struct.pack("!HHIII", 10, 16 + len(body), TIME_S, sequence, domain) + body


def message9(*sets: tuple[int, bytes], sequence: int = 0, count: int = 1, end: bytes = b"") -> bytes:
    """A packet of NetFlow v9; ``count`` is what its header says, ``end`` comes after the last FlowSet."""
    return struct.pack("!HHIIII", 9, count, UPTIME_MS, TIME_S, sequence, 1) + _sets(sets) + end


def _sets(sets: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(struct.pack("!HH", number, len(content) + 4) + content for number, content in sets)


def template(number: int, *fields: tuple[int, ...]) -> bytes:
    """A Template Record; each field is (id, length) or (id, length, enterprise)."""
    specifiers = b"".join(
        struct.pack("!HH", field[0], field[1])
        if len(field) == 2
        else struct.pack("!HHI", field[0] | 0x8000, field[1], field[2])
        for field in fields
    )
    return struct.pack("!HH", number, len(fields)) + specifiers


def options_template(number: int, scopes: int, *fields: tuple[int, ...]) -> bytes:
    """An Options Template Record of IPFIX, with that many scope fields."""
    plain = template(number, *fields)
    return plain[:4] + struct.pack("!H", scopes) + plain[4:]


OPTIONS9 = bytes.fromhex(
    "0009 0002 00000000 6553f100 00000005 00000007"
    "0001 0018 0203 0004 0008 0001 0004 0022 0004 0023 0001 0000"  # System | 34, 35 and 2 bytes of padding
    "0203 0010 0a000001 00000064 02 000000"
)
"""An options template of NetFlow v9, and its record: one exporter takes 1 packet in 100, at random."""
