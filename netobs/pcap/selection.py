"""The wishes of one client, or of the recorder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LINK_ETHERNET, LINK_IP = 0, 1
"""enum packet_link of bpf/packets.h: what packets of an interface begin with."""


class Instruction(NamedTuple):
    """One instruction of classic BPF (struct sock_filter of linux/filter.h)."""

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0


Program = tuple[Instruction, ...]
"""Classic BPF. It selects a packet if it returns anything but 0."""


@dataclass(frozen=True)
class Filter:
    """A filter, or a list of filters, compiled for each kind of link: a packet is selected if any of the programs
    selects it. Those of a list are not joined to one, because a load beyond the end of a short packet would end all."""

    text: str
    """As the operator wrote it."""

    ethernet: tuple[Program, ...]
    """For packets that start with an Ethernet header."""

    ip: tuple[Program, ...]
    """For packets that start with the IP header (LINKTYPE_RAW)."""

    @property
    def instructions(self) -> int:
        """How many it has, for both kinds of link."""
        return sum(map(len, self.ethernet + self.ip))

    def programs(self, link: int) -> tuple[Program, ...]:
        """The programs for packets of ``link``."""
        return self.ethernet if link == LINK_ETHERNET else self.ip


class Selection(NamedTuple):
    """A filter, on one interface or, with ``ifindex`` 0, on all that are captured."""

    filter: Filter
    ifindex: int = 0
