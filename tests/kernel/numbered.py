"""Flows by number, for tests of the flow table: flow n has the source address 10.a.b.c that n makes."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from lab import frames as f
from lab.prog_run import Programs
from netobs.base.clock import tick_ns
from netobs.flow.records import KEY

TICK_NS = tick_ns()


def source(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def packet(number: int = 0, size: int = 0) -> bytes:
    """A UDP packet of flow ``number`` with ``size`` octets of payload."""
    return f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(size)), src=source(number)))


def segment(flags: int, number: int = 0) -> bytes:
    """A TCP segment without payload."""
    return f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(flags), src=source(number)))


def fill(programs: Programs, flows: int, first: int = 0) -> None:
    """One packet of each of ``flows`` flows."""
    run = programs.run()
    for number in range(first, first + flows):
        run(packet(number))


def let_pass(interval_ns: int) -> int:
    """Now, ``interval_ns`` later: times before and after can be told apart by a clock of that resolution."""
    end = time.monotonic_ns() + interval_ns
    while time.monotonic_ns() < end:
        pass
    return end


def mapped(address: str) -> list[int]:
    """The bytes of ::ffff:a.b.c.d."""
    return [0] * 10 + [255, 255] + [int(part) for part in address.split(".")]


def key_of(number: int) -> npt.NDArray[np.uint8]:
    """The Flow Key of ``packet(number)``, as bytes."""
    key = np.zeros(1, KEY)
    key["src_addr"], key["dst_addr"] = mapped(source(number)), mapped(f.DST4)
    key["src_port"], key["dst_port"], key["protocol"] = f.SPORT, f.DPORT, f.UDP
    key["ethertype"], key["ifindex"] = f.IPV4, 1
    return key.view("u1")
