"""Sends Messages over UDP such that a later process knows which of them went out, even if this one is killed.

sendmmsg(2) writes into the memory of its caller how much of a message was sent, within the same system call: between
the send and its record there is no moment at which the process can be killed (``__sys_sendmmsg`` puts ``msg_len`` after
each message). The record lies in a file of memory, beside the sums as they are with this send.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import struct

from netobs.export.keeping import Amount
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

_UDP_SEGMENT = 103  # uapi linux/udp.h
_SUMS = struct.Struct("<5q")


class _Piece(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Control(ctypes.Structure):  # struct cmsghdr with the value of UDP_SEGMENT, padded
    _fields_ = (("length", ctypes.c_size_t), ("level", ctypes.c_int), ("type", ctypes.c_int),
                ("size", ctypes.c_uint16), ("padding", ctypes.c_uint8 * 6))  # fmt: skip


class _Head(ctypes.Structure):  # struct msghdr
    _fields_ = (("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("pieces", ctypes.c_void_p),
                ("piece_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int))  # fmt: skip


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("head", _Head), ("sent", ctypes.c_uint32))


_SLOT_BYTES = 256
_SUMS_AT = 128
_CONTROL_BYTES = ctypes.sizeof(_Control)
_CONTROL_LENGTH = _Control.size.offset + 2  # CMSG_LEN: without the padding


class SendRecord:
    """Two slots, at ``at`` in ``memory``, each with sums and the length that the kernel notes. The next send takes the
    slot with the smaller sums; it counts as soon as its length is not 0.

    ``sums``: what has been sent, by this process and those before.
    """

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory, self._at = memory, at
        self._slots = [_Message.from_buffer(memory, at + number * _SLOT_BYTES) for number in range(2)]
        found = [Amount(*_SUMS.unpack_from(memory, at + number * _SLOT_BYTES + _SUMS_AT)) for number in range(2)]
        later = int(found[1].messages > found[0].messages)
        counts = later if self._slots[later].sent else later ^ 1
        self.sums = found[counts] if self._slots[counts].sent else Amount()
        self._next = counts ^ 1
        self._piece, self._control = _Piece(), _Control(_CONTROL_LENGTH, socket.IPPROTO_UDP, _UDP_SEGMENT)
        for slot in self._slots:
            head = slot.head
            head.pieces, head.piece_count = ctypes.addressof(self._piece), 1
            head.control, head.control_length = ctypes.addressof(self._control), 0
        self._heads = [slot.head for slot in self._slots]
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self, sock: socket.socket, block: MessageBlock, start: int, stop: int, tally: Tally) -> int:
        """Sends the Messages ``start`` to ``stop``, which have ``tally``, in one call; 0, or the errno."""
        number, before, begin = self._next, self.sums, block.end(start)
        slot, length = self._slots[number], block.end(stop) - begin
        sums = Amount(before[0] + tally.flows, before[1] + stop - start, before[2] + tally.packets,
                      before[3] + tally.octets, before[4] + length)  # fmt: skip
        slot.sent = 0
        _SUMS.pack_into(self._memory, self._at + number * _SLOT_BYTES + _SUMS_AT, *sums)
        self._piece.base, self._piece.length = block.address + begin, length
        if stop - start > 1:
            self._control.size = int(block.sizes[start])
        self._heads[number].control_length = _CONTROL_BYTES if stop - start > 1 else 0
        if self._sendmmsg(sock.fileno(), ctypes.byref(slot), 1, socket.MSG_DONTWAIT) != 1:
            return ctypes.get_errno() or errno.EIO
        self.sums, self._next = sums, number ^ 1
        return 0
