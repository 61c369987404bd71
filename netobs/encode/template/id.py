"""Template IDs follow from the content of a Template, so that one ID never stands for two contents.

Collectors identify a Template by its ID and the exporter's address, some also by Observation Domain and port. So a
Template has the same ID in every session and process of every host, and one with other fields has another ID.
"""

from __future__ import annotations

import zlib

FIRST = 1024
"""Lower IDs were sent by earlier releases; a spool may still hold them."""
_COUNT = (1 << 16) - FIRST
_MOST = 16_384  # contents to remember; more would need thousands of reloads

_taken: dict[int, bytes] = {}
"""The content of each ID in this process."""


def record(content: bytes) -> bytes:
    """The Template Record or Options Template Record with ``content``: its Template ID in front."""
    return template_id(content).to_bytes(2, "big") + content


def template_id(content: bytes) -> int:
    """The Template ID of ``content``, a Template Record or Options Template Record without its ID: 1024 to 65535.

    It is a CRC. If this process already uses the ID for another content, the next free ID is taken.
    """
    number = zlib.crc32(content) % _COUNT
    while _taken.get(FIRST + number, content) != content:
        number = (number + 1) % _COUNT
    if len(_taken) < _MOST:
        _taken[FIRST + number] = content
    return FIRST + number
