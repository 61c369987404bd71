"""Flow Records made by hand, and what they look like as plain Python values."""

from __future__ import annotations

from typing import Any

import numpy as np

from netobs.flow import records
from netobs.flow.records import KEY, RECORD, Records

S = 1_000_000_000
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
KEY_NAMES: tuple[str, ...] = KEY.names or ()


def flow(number: int = 0, **fields: Any) -> Records:
    """One row of flow ``number``: a packet of 100 octets at 1 s, unless ``fields`` say otherwise."""
    row = records.empty(1)
    values = {"packets": 1, "octets": 100, "first_ns": S, "last_ns": S, "protocol": 6, "ethertype": 0x0800}
    for name, value in {**values, **fields}.items():
        row[name] = value
    row["src_addr"][0, 8:] = np.frombuffer(number.to_bytes(8, "big"), np.uint8)
    return row


def rows(*parts: Records) -> Records:
    """One eviction that consists of ``parts``."""
    return np.concatenate(parts) if parts else records.empty(0)


def many(count: int, first: int = 0, **fields: Any) -> Records:
    """One row for each of the flows ``first`` to ``first + count - 1``, in a random but repeatable order."""
    eviction = np.repeat(flow(**fields), count)
    numbers = np.random.default_rng(count).permutation(np.arange(first, first + count, dtype=">u8"))
    eviction["src_addr"][:, 8:] = numbers.view(np.uint8).reshape(count, 8)
    return eviction


def start_of(packets: list[tuple[int, int]]) -> int:
    """When a flow starts, given (time, TCP flags) of each of its packets: with the last SYN after the first FIN or RST,
    else with the first packet."""
    ends = [time for time, flags in packets if flags & (FIN | RST)]
    anew = [time for time, flags in packets if flags & SYN and ends and time > min(ends)]
    return max(anew) if anew else packets[0][0]


def number(row: np.void) -> int:
    """The number of the flow that ``row`` belongs to."""
    return int.from_bytes(row["src_addr"].tobytes()[8:], "big")


def by_flow(eviction: Records) -> dict[int, np.void]:
    """The rows by flow number; fails if a flow has two."""
    found = {number(row): row for row in eviction}
    assert len(found) == len(eviction)
    return found


def key(row: np.void) -> bytes:
    """The Flow Key of ``row``."""
    return row.tobytes()[: KEY.itemsize]


def reasons(eviction: Records) -> dict[int, int]:
    """flowEndReason by flow number."""
    return {flow_number: int(row["flow_end_reason"]) for flow_number, row in by_flow(eviction).items()}


def totals(eviction: Records) -> tuple[int, int]:
    """Sums of packets and octets."""
    return int(eviction["packets"].sum()), int(eviction["octets"].sum())


def as_set(eviction: Records) -> list[bytes]:
    """The rows as bytes, in an order that does not depend on that of ``eviction``."""
    assert eviction.dtype == RECORD
    return sorted(row.tobytes() for row in eviction)
