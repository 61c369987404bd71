"""The perf buffer: a ring for each CPU, which programs write and this process reads (perf_event_open(2))."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import mmap
import os
import platform
import select
import struct

import numpy as np

from netobs.base.errors import CaptureError
from netobs.kernel import libbpf, privileges
from netobs.kernel.fence import fence
from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch, no_packets
from netobs.pcap.tap.perf_records import assemble, lost_records, walk

log = logging.getLogger("netobs.pcap")

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331, "loongarch64": 241}
_SYSCALL = ctypes.CDLL(None, use_errno=True).syscall
_SYSCALL.restype = ctypes.c_long

PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT, PERF_SAMPLE_RAW = 1, 10, 1 << 10
PERF_FLAG_FD_CLOEXEC = 8
PERF_EVENT_IOC_ENABLE = 0x2400
ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
"""struct perf_event_attr in its first size: type, size, config, sample_period, sample_type, read_format, flags,
wakeup_watermark, bp_type, config1."""
WATERMARK = 1 << 14  # of the flags: wake when so many bytes were written
POSITIONS_OFFSET = 1024  # struct perf_event_mmap_page: data_head, data_tail

LEAST_PAGES = 16
WAKEUP_SHARE = 4
LONGEST_RECORD_BYTES = 1 << 16
KIB = 1024


def _open_event(cpu: int, watermark_bytes: int) -> int:
    """The file descriptor of an event on ``cpu``, -1 where that is offline.

    :raises CaptureError: the kernel refused.
    """
    attributes = ATTRIBUTES.pack(
        PERF_TYPE_SOFTWARE, ATTRIBUTES.size, PERF_COUNT_SW_BPF_OUTPUT, 1, PERF_SAMPLE_RAW, 0, WATERMARK,
        watermark_bytes, 0, 0,
    )  # fmt: skip
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise CaptureError(f"the number of perf_event_open on {platform.machine()} is not known")
    long = ctypes.c_long
    fd: int = _SYSCALL(long(number), attributes, long(-1), long(cpu), long(-1), long(PERF_FLAG_FD_CLOEXEC))
    if fd < 0 and ctypes.get_errno() != errno.ENODEV:
        what, hint = privileges.explain_perf(ctypes.get_errno())
        raise CaptureError(f"no perf buffer can be opened: {what}", hint)
    return fd


class _Ring:
    """The ring of one CPU, whose event is ``fd``, which is closed with it."""

    def __init__(self, cpu: int, fd: int, pages: int) -> None:
        """:raises OSError: EPERM where this process may not lock so much memory."""
        self.cpu, self.fd, self.size_bytes = cpu, fd, pages * mmap.PAGESIZE
        self.carry = b""
        """Records of a packet whose further ones were not there yet."""
        self._memory = mmap.mmap(fd, mmap.PAGESIZE + self.size_bytes)
        self._positions = np.frombuffer(self._memory, dtype="<u8", count=2, offset=POSITIONS_OFFSET)
        self._data = memoryview(self._memory)[mmap.PAGESIZE :]
        self._tail = 0

    def available(self) -> int:
        """Bytes that were written and not yet taken."""
        return int(self._positions[0]) - self._tail

    def copy(self, target: memoryview) -> None:
        """The next bytes, as many as ``target`` has."""
        offset = self._tail % self.size_bytes
        first = min(len(target), self.size_bytes - offset)
        target[:first] = self._data[offset : offset + first]
        target[first:] = self._data[: len(target) - first]

    def take(self, count: int) -> None:
        """Gives the space of the next ``count`` bytes back."""
        self._tail += count
        self._positions[1] = self._tail

    def close(self) -> None:
        """Unmaps the ring."""
        del self._positions
        self._data.release()
        self._memory.close()
        os.close(self.fd)


class PerfBuffer:
    """Rings for map ``packet_events``. ``open`` -> ``read`` -> ``release``, again and again; ``close`` at the end."""

    def __init__(self, bytes_per_cpu: int) -> None:
        """``bytes_per_cpu``: rounded up to a power of two, and to 16 pages at least."""
        self._pages = max(LEAST_PAGES, 1 << (-(-bytes_per_cpu // mmap.PAGESIZE) - 1).bit_length())
        self._rings: list[_Ring] = []
        self._events_fd = -1
        self._poll = select.epoll()
        self.lost_records = 0
        """What the kernel says did not fit, in records; the programs count it too, in packets."""
        self.incomplete_packets = 0
        """Left out as one of their records was missing: the programs have counted them as lost."""
        self.backlog_bytes = 0
        """What the last read left in the rings."""

    def fileno(self) -> int:
        """For the event loop, the same at all times. It becomes readable when a quarter of a ring is full, once until
        the next time: who waits for it also reads now and then, and goes on after a read that left something."""
        return self._poll.fileno()

    @property
    def bytes_per_cpu(self) -> int:
        """Of each ring: what was asked for, or less where this process may not lock so much."""
        return self._pages * mmap.PAGESIZE

    @property
    def is_drained(self) -> bool:
        """Whether the last read took everything."""
        return not self.backlog_bytes and not any(ring.carry for ring in self._rings)

    def open(self, events_fd: int) -> None:
        """Makes a ring for each CPU that is online, and puts it into the map ``events_fd``. A CPU that comes online
        later has none: its packets are counted as lost.

        :raises CaptureError: the kernel refused; it says what to do.
        """
        wanted = self.bytes_per_cpu
        try:
            self._open_rings()
            self._events_fd = events_fd
            for ring in self._rings:
                libbpf.update_u32(events_fd, ring.cpu, ring.fd)
                fcntl.ioctl(ring.fd, PERF_EVENT_IOC_ENABLE, 0)
                self._poll.register(ring.fd, select.EPOLLIN)
        except OSError as error:
            self.release()
            hint = "lower packet_capture.buffer" if error.errno == errno.ENOMEM else ""
            raise CaptureError(f"no perf buffer can be opened: {error.strerror}", hint) from None
        except BaseException:
            self.release()
            raise
        if self.bytes_per_cpu < wanted:
            log.warning(
                "packet capture: the perf buffer has %d KiB for each CPU instead of %d, as this process may lock no "
                "more memory: set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
                self.bytes_per_cpu // KIB, wanted // KIB,
            )  # fmt: skip

    def _open_rings(self) -> None:
        """All of one size: the largest, up to what was asked for, that can be locked (kernel/events/core.c: perf_mmap;
        each user may lock kernel.perf_event_mlock_kb for each CPU, and each process RLIMIT_MEMLOCK)."""
        while True:
            try:
                for cpu in range(libbpf.online_cpus()):
                    self._open_ring(cpu)
                return
            except PermissionError:
                self._close_rings()
            if self._pages <= LEAST_PAGES:
                raise CaptureError(
                    f"this process may not lock the {self.bytes_per_cpu // KIB} KiB for each CPU that the perf buffer "
                    "needs at least",
                    "set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
                )
            self._pages //= 2

    def _open_ring(self, cpu: int) -> None:
        fd = _open_event(cpu, self.bytes_per_cpu // WAKEUP_SHARE)
        if fd < 0:
            return
        try:
            self._rings.append(_Ring(cpu, fd, self._pages))
        except BaseException:
            os.close(fd)
            raise

    def read(self, max_bytes: int) -> PacketBatch:
        """Takes what the rings hold, at most ``max_bytes`` and from each its share (one record at least). The packets
        are in the order of time but for what was still being written."""
        rings = self._rings
        available = [ring.available() for ring in rings]
        counts = shares(available, max_bytes)
        self.backlog_bytes = sum(available) - sum(counts)
        if not any(counts):
            return no_packets()
        buffer, begins = self._copy(counts)
        carried = [begin + len(ring.carry) if count else begin for ring, count, begin in zip(rings, counts, begins)]
        walks = [walk(buffer, begin, start + count) for begin, start, count in zip(begins, carried, counts)]
        unread = [count < there for count, there in zip(counts, available)]
        assembled = assemble(buffer, walks, unread)
        self.incomplete_packets += assembled.incomplete_packets
        self.backlog_bytes = sum(available)
        for number, ring in enumerate(rings):
            stop, carry_from = assembled.stops[number], assembled.carry_from[number]
            taken = stop - carried[number]
            if not counts[number] or taken < 0:
                continue  # what it carries over, if anything, still waits: it is newer than what others hold
            losses = walks[number].losses
            self.lost_records += lost_records(buffer, losses[losses < stop])
            ring.carry = bytes(buffer[carry_from:stop]) if carry_from >= 0 else b""
            ring.take(taken)
            self.backlog_bytes -= taken
        return assembled.batch

    def _copy(self, counts: list[int]) -> tuple[bytearray, list[int]]:
        """The next bytes of each ring that has any, behind what it carries over, and where each begins."""
        lengths = [len(ring.carry) + count if count else 0 for ring, count in zip(self._rings, counts)]
        buffer = bytearray(HEADROOM_BYTES + sum(lengths))
        view, begin, begins = memoryview(buffer), HEADROOM_BYTES, []
        fence()
        for ring, count, length in zip(self._rings, counts, lengths):
            begins.append(begin)
            if count:
                view[begin : begin + len(ring.carry)] = ring.carry
                ring.copy(view[begin + len(ring.carry) : begin + length])
            begin += length
        fence()
        return buffer, begins

    def release(self) -> None:
        """Frees the rings with what is in them. No program may be running that writes to them, or its packet is counted
        as lost."""
        for ring in self._rings:
            if self._events_fd >= 0:
                libbpf.delete_u32(self._events_fd, ring.cpu)  # the map has a reference of its own
        self._close_rings()
        self._events_fd = -1
        self.backlog_bytes = 0

    def _close_rings(self) -> None:
        for ring in self._rings:
            with contextlib.suppress(OSError):  # it was not registered yet
                self._poll.unregister(ring.fd)
            ring.close()
        self._rings.clear()

    def close(self) -> None:
        """Frees all."""
        self.release()
        self._poll.close()


def shares(available: list[int], max_bytes: int) -> list[int]:
    """How much to take of each ring: all, or where that is more than ``max_bytes`` equal shares; who has less leaves
    the rest to the others. Multiples of 8, like records; enough for the longest record."""
    counts = available[:]
    left, others = max_bytes, len(available)
    for number in sorted(range(len(available)), key=available.__getitem__):
        share = max(left // others & ~7, LONGEST_RECORD_BYTES)
        counts[number] = min(available[number], share)
        left, others = max(left - counts[number], 0), others - 1
    return counts
