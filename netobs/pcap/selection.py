"""What one client, or the recorder, wants to have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction of classic BPF (struct sock_filter of linux/filter.h)."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True)
class Filter:
    """A filter, compiled for each kind of link. It selects a packet if its program returns anything but 0."""

    text: str
    """As the operator wrote it."""

    ethernet: tuple[Instruction, ...]
    """The classic BPF program for packets that begin with an Ethernet header; empty = it selects none of them."""

    ip: tuple[Instruction, ...]
    """The one for packets that begin with the IP header (LINKTYPE_RAW)."""


class Selection(NamedTuple):
    """A filter, on one interface or, with ``ifindex`` 0, on all that are captured."""

    filter: Filter
    ifindex: int = 0
