"""Filter programs in the kernel, between an entry and a copier of the test's own (filtering.bpf.c)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lab.prog_run import Run, get, put
from netobs.kernel import libbpf
from netobs.kernel.object import BpfObject
from netobs.pcap.filters.program import FilterProgram
from netobs.pcap.selection import LINK_ETHERNET, Filter, Program, Selection
from netobs.pcap.tap.layout import COPY_SLOTS
from tests.filters.packets import LONGEST
from tests.kernel.foreign import compile_bpf

SOURCE = Path(__file__).with_name("filtering.bpf.c")
SLOTS = 64
FAILED = 0xFFFFFFFD
LEAST_SENT = 64
"""A test run refuses a frame that is shorter than the header that its EtherType says: it is cut inside."""

SEEN = np.dtype([("filters", "<u4"), ("length", "<u4"), ("linear", "<u4"), ("vlan", "<u4")])


def selections(
    programs: Sequence[Sequence[Program]], link: int = LINK_ETHERNET, ifindex: int = 0
) -> list[tuple[int, Selection]]:
    """Bit n: any of ``programs[n]``, for packets of ``link`` only."""
    made = []
    for bit, each in enumerate(programs):
        both = [(program, ()) if link == LINK_ETHERNET else ((), program) for program in each]
        ethernet, ip = (tuple(filter(None, programs)) for programs in zip(*both)) if both else ((), ())
        made.append((bit, Selection(Filter(f"filter {bit}", ethernet, ip), ifindex)))
    return made


class Filtering:
    """The object of filtering.bpf.c, loaded, and filters in its program array."""

    def __init__(self, folder: Path, copier: str = "tell") -> None:
        self._object = BpfObject(compile_bpf(SOURCE, folder))
        self._filters: list[int] = []
        self._object.load()
        for slot in COPY_SLOTS:
            libbpf.update_u32(self.map_fd("packet_programs"), slot, self._object.program_fd(copier))

    def __enter__(self) -> Filtering:
        return self

    def __exit__(self, *exc: object) -> None:
        self.forget()
        self._object.close()

    def map_fd(self, name: str) -> int:
        return self._object.map_fd(name)

    def program_fd(self, name: str) -> int:
        return self._object.program_fd(name)

    def forget(self) -> None:
        """Closes the filters; those in the program array stay."""
        with contextlib.ExitStack() as stack:
            for fd in self._filters:
                stack.callback(os.close, fd)
        self._filters = []

    def load(
        self, chosen: Sequence[tuple[int, Selection]], link: int = LINK_ETHERNET, copy_slot: int = COPY_SLOTS[0]
    ) -> int:
        """Loads a filter program; its file descriptor."""
        maps = self.map_fd("packet_programs"), self.map_fd("packet_matches")
        self._filters.append(FilterProgram(chosen, link, copy_slot, *maps).load())
        return self._filters[-1]

    def place(self, slot: int, fd: int) -> None:
        """The filter ``fd`` is in a ``slot`` of the program array."""
        libbpf.update_u32(self.map_fd("packet_programs"), slot, fd)

    def run(self, slot: int, tpid: int = 0, tci: int = 0, **context: int) -> FilterRun:
        """To run the filter in ``slot`` on many frames, with a tag beside them or none."""
        return FilterRun(self.program_fd("stage"), slot, tpid, tci, **context)

    def counted(self) -> int:
        """How many packets ``watch`` has seen."""
        return int.from_bytes(get(self.map_fd("packets_counted"), np.uint32(0), 4) or b"", "little")

    def seen(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """What ``watch`` and ``keep`` kept: a row for each packet."""
        fd, size = self.map_fd("packets_seen"), SEEN.itemsize
        rows = [get(fd, np.uint32(index), size) or b"" for index in range(self.counted())]
        return np.frombuffer(b"".join(rows), SEEN)

    def start_again(self) -> None:
        """The next packet is the first one that ``watch`` sees."""
        put(self.map_fd("packets_counted"), np.uint32(0), np.uint32(0))


class FilterRun:
    """One filter, on one frame after another; the mask of those that select it."""

    def __init__(self, stage_fd: int, slot: int, tpid: int, tci: int, **context: int) -> None:
        self._run = Run(stage_fd, **context)
        self._run.skb.cb[1], self._run.skb.cb[2], self._run.skb.cb[3] = tpid, tci, slot

    def __call__(self, frame: bytes) -> int:
        """``frame``: as in memory, without a tag beside it; nothing but 0 from octet LONGEST on."""
        sent = frame[:LONGEST].ljust(LEAST_SENT, b"\0")
        self._run.skb.cb[0] = len(frame) if len(frame) != len(sent) else 0
        result = self._run.result(sent)
        assert result != FAILED, "the stage did not reach the filter"
        return (result + 1) & 0xFFFFFFFF
