"""Frames whose octets the kernel does not have in one piece: sent through a ring that it shares with the sender."""

from __future__ import annotations

import mmap
import socket
import struct

from lab.namespaces import Link, in_namespace
from lab.wire import PACKET_VNET_HDR, virtio, wait_for

SOL_PACKET, PACKET_TX_RING = 263, 13  # linux/if_packet.h
PLACE_BYTES, PLACES, BLOCK_BYTES = 16384, 64, 65536
DATA_AT = 32  # behind struct tpacket_hdr, aligned
SEND_REQUEST, AVAILABLE = 1, 0  # TP_STATUS_SEND_REQUEST, TP_STATUS_AVAILABLE


class RingSender:
    """A packet socket with a ring to send from (packet_mmap): the kernel takes the octets of a frame as pages of it."""

    def __init__(self, link: Link) -> None:
        with in_namespace(link.ns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            blocks = PLACES * PLACE_BYTES // BLOCK_BYTES
            request = struct.pack("=IIII", BLOCK_BYTES, blocks, PLACE_BYTES, PLACES)
            self._socket.setsockopt(SOL_PACKET, PACKET_TX_RING, request)
            self._socket.bind((link.name, 0))
        self._ring = mmap.mmap(self._socket.fileno(), PLACES * PLACE_BYTES)
        self._next = 0

    def __enter__(self) -> RingSender:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ring.close()
        self._socket.close()

    def _status(self, place: int) -> int:
        return int.from_bytes(self._ring[place : place + 8], "little")

    def send(self, frame: bytes, linear: int) -> None:
        """One frame. The kernel has its first ``linear`` octets in one piece, and at least the Ethernet header."""
        place = self._next % PLACES * PLACE_BYTES
        wait_for(lambda: self._status(place) == AVAILABLE, "a place in the ring")
        data = virtio(frame, linear=linear)
        self._ring[place + DATA_AT : place + DATA_AT + len(data)] = data
        self._ring[place + 8 : place + 12] = struct.pack("=I", len(data))  # tp_len
        self._ring[place : place + 8] = SEND_REQUEST.to_bytes(8, "little")
        self._socket.send(b"")
        self._next += 1
