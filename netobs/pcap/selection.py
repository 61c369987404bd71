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


@dataclass(frozen=True)
class Filter:
    """A filter, compiled for each kind of link. It selects a packet if its program returns anything but 0."""

    text: str
    """As the operator wrote it."""

    ethernet: tuple[Instruction, ...]
    """The classic BPF program for packets that start with an Ethernet header; empty = it selects none of them."""

    ip: tuple[Instruction, ...]
    """The one for packets that start with the IP header (LINKTYPE_RAW)."""

    others: tuple[Filter, ...] = ()
    """The other filters of a list: a packet is selected if any of them selects it. They are not joined to one classic
    program, because there a load beyond the end of a short packet would end all of them."""

    @property
    def instructions(self) -> int:
        """How many it has, for both kinds of link."""
        return len(self.ethernet) + len(self.ip) + sum(other.instructions for other in self.others)

    def programs(self, link: int) -> tuple[tuple[Instruction, ...], ...]:
        """The classic BPF programs for packets of ``link`` (netobs.pcap.tap.layout): any of them selects a packet."""
        mine = self.ethernet if link == LINK_ETHERNET else self.ip
        return (*([mine] if mine else []), *(program for other in self.others for program in other.programs(link)))


class Selection(NamedTuple):
    """A filter, on one interface or, with ``ifindex`` 0, on all that are captured."""

    filter: Filter
    ifindex: int = 0
