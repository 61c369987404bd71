"""A BPF ring buffer for each CPU, which programs write and this process reads (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from netobs.base import capabilities
from netobs.base.errors import CaptureError
from netobs.kernel import libbpf, requirements
from netobs.kernel.fence import fence
from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch, no_packets
from netobs.pcap.tap.layout import LEAST_RING_BYTES
from netobs.pcap.tap.ring_records import Positions, assemble, walk

_T = TypeVar("_T")

THREADS = 16
_CPUS = Path("/sys/devices/system/cpu")


class _Ring:
    """The ring of one CPU. It closes its map ``fd``."""

    def __init__(self, cpu: int, fd: int, size_bytes: int) -> None:
        """:raises OSError: it cannot be mapped."""
        self.cpu, self.fd, self._size_bytes = cpu, fd, size_bytes
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page)
        self._producer = mmap.mmap(fd, page + size_bytes, prot=mmap.PROT_READ, offset=page)
        self._taken = np.frombuffer(self._consumer, dtype="<u8", count=1)
        self._written = np.frombuffer(self._producer, dtype="<u8", count=1)
        self._data = memoryview(self._producer)[page:]
        self._lengths = self._data.cast("I")
        self.position = 0
        """Position of the first byte that was not read yet."""

    def available(self) -> int:
        """Bytes that were or are being written, and not yet read."""
        return int(self._written[0]) - self.position

    def walk(self, count: int) -> tuple[Positions, int]:
        """Starts of the next complete records, up to ``count`` bytes from here, and their end. In bytes from here."""
        found, stop = walk(self._lengths, self.position, self.position + count)
        return found - self.position, stop - self.position

    def copy(self, target: memoryview) -> None:
        """Copies the next bytes to fill ``target``."""
        offset = self.position % self._size_bytes
        first = min(len(target), self._size_bytes - offset)
        target[:first] = self._data[offset : offset + first]
        target[first:] = self._data[: len(target) - first]

    def take(self, count: int) -> None:
        """Returns the space of the next ``count`` bytes to the kernel."""
        self.position += count
        self._taken[0] = self.position

    def close(self) -> None:
        """Unmaps the ring."""
        del self._taken, self._written
        self._lengths.release()
        self._data.release()
        self._producer.close()
        self._consumer.close()
        os.close(self.fd)


class PacketRings:
    """Rings for map ``packet_rings``. ``open`` -> ``read`` -> ``release``, again and again; ``close`` at the end."""

    def __init__(self, bytes_per_cpu: int) -> None:
        """``bytes_per_cpu``: rounded up to a power of two, and to 128 KiB at least."""
        self.bytes_per_cpu = 1 << (max(bytes_per_cpu, LEAST_RING_BYTES) - 1).bit_length()
        self.wakeup_bytes = self.bytes_per_cpu // 4
        """The programs are to wake the reader whenever a CPU has written so much."""
        self._rings: list[_Ring] = []
        self._map_fd = -1
        self._poll = select.epoll()
        self.backlog_bytes = 0
        """Bytes that the last read left in the rings because of its limit."""

    def fileno(self) -> int:
        """For the event loop, the same at all times. It becomes readable when a CPU has written a quarter of its
        ring, until the next ``read``: who waits for it also reads now and then, and goes on after a read that left
        something."""
        return self._poll.fileno()

    def open(self, map_fd: int) -> None:
        """Makes a ring for each online CPU, and puts it into the map of maps ``map_fd``. A CPU that comes online later
        has no ring, and its packets count as lost.

        The kernel waits for a grace period whenever such a map is changed (kernel/bpf/syscall.c:
        maybe_wait_bpf_programs): threads wait for the same one.

        :raises CaptureError: the kernel refused; it says what to do.
        """
        self._map_fd = map_fd
        with capabilities.taken_up(capabilities.BPF):  # threads that are started meanwhile have it, too
            try:
                self._for_each(self._make, range(libbpf.online_cpus()))
                self._rings.sort(key=lambda ring: ring.cpu)
                for ring in self._rings:
                    self._poll.register(ring.fd, select.EPOLLIN | select.EPOLLET)
            except OSError as error:
                self.release()
                number = error.errno or 0
                size = f"{self.bytes_per_cpu >> 10} KiB"
                what = f"no ring buffer of {size} for each CPU can be made: {os.strerror(number)}"
                raise CaptureError(what, _hint(number)) from None
            except BaseException:
                self.release()
                raise

    def _for_each(self, do: Callable[[_T], None], these: Iterable[_T]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(do, these))

    def _make(self, cpu: int) -> None:
        fd = libbpf.create_ring("packet_ring", self.bytes_per_cpu, _node_of(cpu))
        try:
            self._rings.append(_Ring(cpu, fd, self.bytes_per_cpu))
        except BaseException:
            os.close(fd)
            raise
        libbpf.update_u32(self._map_fd, cpu, fd)

    def read(self, max_bytes: int) -> PacketBatch:
        """Reads the rings: at most ``max_bytes``, a share from each, plus a record. The packets are in the order of
        time, except for packets that were still being written."""
        rings = self._rings
        available = [ring.available() for ring in rings]
        self.backlog_bytes = 0
        if not any(available):
            return no_packets()
        self._poll.poll(0, len(rings))  # else it stays readable
        shares_of = shares(available, max_bytes)
        fence()
        walked = [ring.walk(share) for ring, share in zip(rings, shares_of)]
        fence()
        buffer, begins = self._copy([stop for _, stop in walked])
        fence()
        records = [found + begin for (found, _), begin in zip(walked, begins)]
        unread = [share <= stop < there for share, (_, stop), there in zip(shares_of, walked, available)]
        batch, counts = assemble(buffer, records, unread)
        for ring, (found, stop), count, more, there in zip(rings, walked, counts, unread, available):
            taken = int(found[count]) if count < len(found) else stop
            ring.take(taken)
            self.backlog_bytes += (there if more else stop) - taken
        return batch

    def _copy(self, counts: list[int]) -> tuple[bytearray, list[int]]:
        """The next bytes of each ring, and the start of each."""
        buffer = bytearray(HEADROOM_BYTES + sum(counts))
        view, begin, begins = memoryview(buffer), HEADROOM_BYTES, []
        for ring, count in zip(self._rings, counts):
            begins.append(begin)
            ring.copy(view[begin : begin + count])
            begin += count
        return buffer, begins

    def release(self) -> None:
        """Frees the rings and their contents. Programs must not write to them any more, or their packets count as
        lost."""
        rings, self._rings = self._rings, []
        self.backlog_bytes = 0
        for ring in rings:
            with contextlib.suppress(OSError):  # it was not registered yet
                self._poll.unregister(ring.fd)
        try:
            self._for_each(lambda ring: libbpf.delete_u32(self._map_fd, ring.cpu), rings)  # it has a reference
        finally:
            for ring in rings:
                ring.close()

    def close(self) -> None:
        """Frees all."""
        self.release()
        self._poll.close()


def shares(available: list[int], max_bytes: int) -> list[int]:
    """Bytes to read from each ring: all, or equal shares if all is more than ``max_bytes``. A ring with less leaves the
    rest of its share to the others. Each ring with data gives at least one byte."""
    counts = available[:]
    left, others = max_bytes, len(available)
    for number in sorted(range(len(available)), key=available.__getitem__):
        counts[number] = min(available[number], max(left // others, 1))
        left, others = max(left - counts[number], 0), others - 1
    return counts


def _node_of(cpu: int) -> int:
    """The NUMA node of a CPU; 0 if the kernel does not tell."""
    node = next((_CPUS / f"cpu{cpu}").glob("node[0-9]*"), None)
    return int(node.name[len("node") :]) if node else 0


def _hint(number: int) -> str:
    """The remedy for errno ``number`` of a failed map creation."""
    if number == errno.ENOMEM:
        return "lower packet_capture.buffer"
    if number == errno.EMFILE:
        return "raise LimitNOFILE= of the unit, or ulimit -n"
    return requirements.explanation(number) if number == errno.EPERM else ""
