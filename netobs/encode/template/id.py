"""Template IDs: a number that follows from what a Template says, so that one number never means two things.

Collectors know a Template by its ID and the exporter's address, some by its Observation Domain and port too. So a
Template has the same ID in every session and process of every host, and one with other fields has another ID.
"""

from __future__ import annotations

import zlib

FIRST = 1024
"""Below are the IDs that earlier releases sent, which a spool may still hold."""
_COUNT = (1 << 16) - FIRST
_MOST = 16_384  # after so many contents, which takes thousands of reloads, others are not remembered

_taken: dict[int, bytes] = {}
"""What each ID means in this process."""


def record(content: bytes) -> bytes:
    """The Template Record or Options Template Record with ``content``: its Template ID in front."""
    return template_id(content).to_bytes(2, "big") + content


def template_id(content: bytes) -> int:
    """The Template ID of ``content``, a Template Record or Options Template Record without its ID: 1024 to 65535.

    It is a CRC. Where an ID means something else in this process already, the next one that is free is taken.
    """
    number = zlib.crc32(content) % _COUNT
    while _taken.get(FIRST + number, content) != content:
        number = (number + 1) % _COUNT
    if len(_taken) < _MOST:
        _taken[FIRST + number] = content
    return FIRST + number
