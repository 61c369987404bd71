"""What libpcap itself says of a packet: the verdict that a translated filter must reach too."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint

import pytest

from netobs.base.errors import FilterError
from netobs.pcap.filters import libpcap
from netobs.pcap.selection import Program


def need_libpcap() -> None:
    """Skips a test on a machine without libpcap; in CI that is a failure."""
    try:
        libpcap.library()
    except FilterError as error:
        (pytest.fail if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1" else pytest.skip)(str(error))


class PacketHeader(ctypes.Structure):
    """struct pcap_pkthdr."""

    _fields_ = [("seconds", c_long), ("microseconds", c_long), ("caplen", c_uint), ("len", c_uint)]


class Oracle:
    """A classic program in libpcap's interpreter."""

    def __init__(self, program: Program) -> None:
        self._filter = libpcap.library().pcap_offline_filter
        self._filter.restype = c_int
        self._filter.argtypes = [POINTER(libpcap.BpfProgram), POINTER(PacketHeader), c_char_p]
        instructions = (libpcap.BpfInstruction * len(program))(*(libpcap.BpfInstruction(*each) for each in program))
        self._program = libpcap.BpfProgram(len(program), instructions)

    def __call__(self, packet: bytes) -> bool:
        """Whether it selects ``packet``, all of which was captured."""
        header = PacketHeader(0, 0, len(packet), len(packet))
        return bool(self._filter(byref(self._program), byref(header), packet))


def compiled(expression: str, link_type: int = libpcap.ETHERNET, optimize: bool = True) -> Program:
    """As libpcap compiles it, whether netobs thinks it is its own simple form or not."""
    return libpcap.compile_expression(expression, link_type, optimize)


def masks(programs: Sequence[Sequence[Program]], packets: Sequence[bytes]) -> list[int]:
    """For each packet, bit n: one of ``programs[n]`` selects it."""
    oracles = [[Oracle(program) for program in each] for each in programs]
    return [
        sum(1 << bit for bit, each in enumerate(oracles) if any(oracle(packet) for oracle in each))
        for packet in packets
    ]
