"""Frames on real interfaces: for what a test run cannot express, and for whoever else is on the hook."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, Callable

from lab.namespaces import Lab, Link, in_namespace
from lab.prog_run import Observed, Programs

DEADLINE_S = 10.0
PACKET_VNET_HDR = 15  # linux/if_packet.h
NEEDS_CHECKSUM, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 1, 1, 4, 5  # linux/virtio_net.h
TUNSETIFF, TUNSETLINK, IFF_TUN = 0x400454CA, 0x400454CD, 1
ETHERTYPES = {4: 0x0800, 6: 0x86DD}


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until ``condition``: packets pass in softirqs, soon but not at once."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.001)


class Sender:
    """A packet socket on one interface. ``offload``: each frame has a struct virtio_net_hdr in front; ``mark``: of all
    its packets."""

    def __init__(self, link: Link, offload: bool = False, mark: int = 0) -> None:
        with in_namespace(link.ns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            if offload:
                self._socket.setsockopt(263, PACKET_VNET_HDR, 1)  # SOL_PACKET
            if mark:
                self._socket.setsockopt(socket.SOL_SOCKET, 36, mark)  # SO_MARK
            self._socket.bind((link.name, 0))

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            assert self._socket.send(frame) == len(frame)


def virtio(frame: bytes, *, linear: int, gso: int = 0, size: int = 0, checksum: tuple[int, int] = (0, 0)) -> bytes:
    """``frame`` behind a struct virtio_net_hdr. ``linear``: bytes that the kernel keeps in one piece;
    ``checksum``: where it starts and where, from there, it is stored."""
    flags = NEEDS_CHECKSUM if any(checksum) else 0
    return struct.pack("=BBHHHH", flags, gso, linear, size, *checksum) + frame


@contextlib.contextmanager
def measured(link: Link, **config: Any) -> Iterator[Programs]:
    """The programs on one interface."""
    with in_namespace(link.ns), Programs(max_flows=1024, interfaces=(link.name,), **config) as programs:
        assert programs.capture.points.attach() == 1
        yield programs


def exchange(programs: Programs, sender: Sender | Tun, frames: list[bytes], packets: int = 0) -> Observed:
    """Sends ``frames`` and waits until the programs have seen ``packets`` (default: one for each)."""
    wanted = programs.ledger().seen.packets + (packets or len(frames))
    with programs.accounting() as observed:
        sender.send(*frames)
        wait_for(lambda: programs.ledger().seen.packets >= wanted, f"{wanted} packets")
    assert programs.ledger().seen.packets == wanted
    return observed[0]


class Tun:
    """A tun interface ``name``, up; what ``send`` gets arrives on it."""

    def __init__(self, lab: Lab, ns: str, name: str) -> None:
        with in_namespace(ns):
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self._fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN))
        lab.run(ns, ["ip", "link", "set", name, "up"])
        self.link = lab.link(ns, name)

    def __enter__(self) -> Tun:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def set_link_type(self, arphrd: int) -> None:
        """What the interface, which is down, says it is (linux/if_arp.h)."""
        fcntl.ioctl(self._fd, TUNSETLINK, arphrd)

    def send(self, *packets: bytes, ethertype: int = 0) -> None:
        """Let packets arrive with this EtherType; 0: that of their IP version."""
        for packet in packets:
            data = struct.pack("!HH", 0, ethertype or ETHERTYPES[packet[0] >> 4]) + packet
            assert os.write(self._fd, data) == len(data)
