"""Fills the kernel's flow table through the real program, without an interface: BPF_PROG_TEST_RUN for each flow."""

from __future__ import annotations

import struct

from lab.prog_run import Run

PAYLOAD = bytes(38)
ETHERNET = b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00"
IP_BEFORE_SOURCE = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(PAYLOAD), 0, 0, 64, 17, 0)
HEAD = ETHERNET + IP_BEFORE_SOURCE
TAIL = struct.pack("!IHHHH", 0xC6130001, 1024, 53, 8 + len(PAYLOAD), 0) + PAYLOAD


def udp_frame(flow: int) -> bytes:
    """Ethernet, IPv4, UDP; the flows differ in their source address."""
    return HEAD + (0xC6120000 + flow).to_bytes(4, "big") + TAIL


def fill(program_fd: int, flows: int, first: int = 0) -> None:
    """One packet for each of ``flows`` flows."""
    run = Run(program_fd)
    for flow in range(first, first + flows):
        run(udp_frame(flow))
