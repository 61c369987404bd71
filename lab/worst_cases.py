"""Messages of 64 KiB made to be as much work as they can: for the decoder, for what prints, and for memory.

Each is made of the rules alone, so it is the same in each run. ``before``: what the exporter sent earlier.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from lab.messages import TIME_S, UPTIME_MS, message, message9, template

MAX_BYTES = 65_507
"""The longest datagram of UDP over IPv4."""
_HEADER, _SET = 16, 4
_BODY = MAX_BYTES - _HEADER - _SET


class Worst(NamedTuple):
    """One of them, and what an exporter sent ``before``."""

    raw: bytes
    before: tuple[bytes, ...] = ()


def described(number: int) -> bytes:
    """A record of RFC 5610: enterprise, element, type, name."""
    name = b"e%d" % number
    return struct.pack("!IHBB", 99, number, 4, len(name)) + name


def filled(record: bytes, room: int = _BODY) -> bytes:
    return record * (room // len(record))


def many(first: int, count: int, fields: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
    """``count`` Templates of ``fields``, in as many Messages as it takes."""
    records = [template(number, *fields) for number in range(first, first + count)]
    each = _BODY // len(records[0])
    return tuple(message((2, b"".join(records[at : at + each]))) for at in range(0, count, each))


TYPES = struct.pack("!HHH", 256, 4, 1) + struct.pack("!HHHHHHHH", 346, 4, 303, 2, 339, 1, 341, 65535)
UNKNOWN = [(0x7000 + number, 1) for number in range(16)]
ONE = (message((2, template(300, (4, 1)))),)
FEW_MANY = many(300, 3_900, [(4, 1)])


def _sets(content: Sequence[tuple[int, bytes]]) -> bytes:
    """As many Sets of ``content``, over and over, as there is room for."""
    size = sum(_SET + len(body) for _, body in content)
    return message(*(list(content) * ((MAX_BYTES - _HEADER) // size)))


WORST: dict[str, Worst] = {
    "a Template Set of zeros and one byte": Worst(message((2, bytes(_BODY - 1) + b"\1"))),
    "an Options Template Set of zeros and one byte": Worst(message((3, bytes(_BODY - 1) + b"\1"))),
    "a v9 template FlowSet of zeros and one byte": Worst(message9((0, bytes(_BODY - 5) + b"\1"))),
    "empty Template Sets beside 3,900 Templates": Worst(_sets([(2, b"")]), FEW_MANY),
    "withdrawals of all of the other kind": Worst(message((3, filled(b"\0\3\0\0"))), FEW_MANY),
    "a Template and a withdrawal of all, by turns": Worst(
        message((2, filled(template(300, (4, 1)) + b"\0\2\0\0"))), FEW_MANY[:1]
    ),
    "Templates of one field": Worst(many(256, _BODY // 8, [(4, 1)])[0]),
    "a Template of 16,370 fields": Worst(message((2, template(300, *[(4, 1)] * ((_BODY - 4) // 4))))),
    "a Template that changes by turns": Worst(message((2, filled(template(300, (4, 1)) + template(300, (60, 1)))))),
    "records of one octet": Worst(message((300, bytes(range(200)) * (_BODY // 200))), ONE),
    "records of one octet in v9": Worst(message9((300, bytes(_BODY - 4))), (message9((0, template(300, (4, 1)))),)),
    "records of 8,000 fields of length 0": Worst(
        message((300, bytes(_BODY))), (message((2, template(300, *[(82, 65535)] * 8_000))),)
    ),
    "records of a string of length 0": Worst(message((300, bytes(_BODY))), (message((2, template(300, (82, 65535)))),)),
    "descriptions of elements": Worst(
        message((256, b"".join(described(number) for number in range(1_000, 5_680)))), (message((3, TYPES)),)
    ),
    "records of 3,900 Templates by turns": Worst(
        message(*[(300 + at % 3_900, b"\1") for at in range(13_000)]), FEW_MANY
    ),
    "a record of unknown elements for each of 3,200 Templates": Worst(
        message(*((number, bytes(16)) for number in range(300, 300 + 3_200))), many(300, 3_200, UNKNOWN)
    ),
    "records of two times in v9": Worst(
        message9((300, filled(struct.pack("!II", UPTIME_MS - 100, UPTIME_MS), _BODY - 4))),
        (message9((0, template(300, (22, 4), (21, 4)))),),
    ),
    "a string of control characters": Worst(
        message((300, b"\xff" + struct.pack("!H", _BODY - 3) + b"\1" * (_BODY - 3))),
        (message((2, template(300, (82, 65535)))),),
    ),
    "records of two NTP times": Worst(
        message((300, filled(b"\xe8\xfe\x84\x80\0\0\x18\0" * 2))), (message((2, template(300, (154, 8), (155, 8)))),)
    ),
    "records of IPv6 addresses": Worst(
        message((300, b"".join(struct.pack("!QQQQ", 1, at, 2, at) for at in range(_BODY // 32)))),
        (message((2, template(300, (27, 16), (28, 16)))),),
    ),
    "one element 4,000 times, in 16 records": Worst(
        message((300, bytes(_BODY))), (message((2, template(300, *[(4, 1)] * 4_000))),)
    ),
    "reserved Sets": Worst(_sets([(4, b"")])),
    "data without a Template": Worst(_sets([(9_999, b"")])),
    "a v5 Message of 1,364 records": Worst(
        struct.pack("!HHIIIIHH", 5, 1_364, UPTIME_MS, TIME_S, 0, 0, 1, 0) + bytes(range(48)) * 1_364
    ),
}
