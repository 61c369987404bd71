"""Messages of a spool as blocks, with headers of the present Transport Session."""

from __future__ import annotations

import numpy as np

from netobs.base.ipfix import MESSAGE_HEADER
from netobs.export.protocol import Header
from netobs.export.spool.index import ENTRY, Entries
from netobs.flow.records import MessageBlock


def templates_block(data: bytes, header: Header) -> MessageBlock:
    """Template Messages of another run, with headers of the present Transport Session."""
    ends, at = [], 0
    while at < len(data):
        at += int.from_bytes(data[at + 2 : at + 4], "big")
        ends.append(at)
    entries = np.zeros(len(ends), dtype=ENTRY)
    entries["end"] = ends
    return messages_block(Entries(entries, 0), bytearray(data), header)


def messages_block(messages: Entries, data: bytearray, header: Header) -> MessageBlock:
    """``messages``, which are in ``data``, with headers of the present Transport Session, from ``header`` on."""
    ends = messages.ends
    flows, packets, octets = (
        np.ascontiguousarray(messages.entries[name]).astype(np.int64) for name in ("flows", "packets", "octets")
    )
    octets_of_data = np.frombuffer(data, dtype=np.uint8)
    at = (ends - np.diff(ends, prepend=0))[:, None] + np.arange(MESSAGE_HEADER.itemsize)
    heads = octets_of_data[at].view(MESSAGE_HEADER).reshape(-1)
    heads["export_time"] = header.export_time_s & 0xFFFF_FFFF
    heads["sequence"] = (np.cumsum(flows) - flows + header.sequence) & 0xFFFF_FFFF
    heads["observation_domain"] = header.observation_domain
    octets_of_data[at] = heads.view(np.uint8).reshape(len(ends), -1)
    return MessageBlock(memoryview(data), ends, flows, packets, octets)
