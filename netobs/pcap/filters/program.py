"""The whole filter program: evaluates all present selections for a packet before anything is copied."""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Mapping, Sequence

from netobs.base import capabilities
from netobs.base.errors import CaptureError
from netobs.config.text import one_line
from netobs.kernel import ebpf, libbpf, privileges
from netobs.kernel.ebpf import FP, R0, R1, R2, R3, Assembler, Label
from netobs.kernel.object import refused
from netobs.pcap.filters.packet import DATA, DATA_END, KEY_AT, MASK_AT, SKB
from netobs.pcap.filters.translate import Translation
from netobs.pcap.selection import LINK_ETHERNET, Program, Selection
from netobs.pcap.tap.layout import COPY_SLOTS

NAME = "packet_filter"
MAX_INSTRUCTIONS = 1_000_000  # linux/bpf.h: BPF_COMPLEXITY_LIMIT_INSNS, what the verifier goes through at most
NEXT = -1  # TCX_NEXT, TC_ACT_UNSPEC
MAP_LOOKUP, TAIL_CALL = 1, 12  # enum bpf_func_id
SHORT, MAX_TOGETHER = 128, 2048
"""Instructions of classic programs: of a filter that may always be added, and of all longer ones at a time. To make and
verify the programs for so many takes up to a second, when the loop does nothing else: strangers whose filters are long
must not hold it for longer. A single filter may have more."""
LOG_BYTES = 1 << 20
EVERYWHERE = 0
"""In place of an interface index."""


class FilterProgram:
    """The eBPF program for packets of one link and one direction.

    It ORs 1 << bit of each ``(bit, Selection)`` that selects the packet. If none does, it returns NEXT; else it writes
    the mask to entry 0 of the per-CPU array ``matches_fd``, and jumps to slot ``copy_slot`` of the program array
    ``programs_fd``. An empty slot has the effect of NEXT.
    """

    def __init__(
        self, selections: Sequence[tuple[int, Selection]], link: int, copy_slot: int, programs_fd: int, matches_fd: int
    ) -> None:
        """``link``, ``copy_slot``: as in netobs.pcap.tap.layout."""
        self.selections, self.link, self.copy_slot = selections, link, copy_slot
        self._outgoing = copy_slot in COPY_SLOTS[1::2]
        self._programs_fd, self._matches_fd = programs_fd, matches_fd
        # Bits by interface index. Equal programs are evaluated once for all users.
        self._wanted: dict[Program, dict[int, int]] = {}
        for bit, (filter_, ifindex) in selections:
            for program in filter_.programs(link):
                users = self._wanted.setdefault(program, {})
                users[ifindex] = users.get(ifindex, 0) | 1 << bit

    def code(self) -> bytes:
        """The instructions.

        :raises CaptureError: they are too many.
        """
        code = Assembler()
        try:
            if self._wanted:
                self._write(code)
            code.operate(ebpf.MOV, R0, value=NEXT)
            code.exit()
            return code.assemble()
        except ebpf.TooLarge as error:
            raise self._too_large(str(error)) from None

    def load(self) -> int:
        """The file descriptor of the loaded program; the caller closes it.

        :raises CaptureError: the kernel refused it: what, why, and what to do.
        """
        code = self.code()
        with capabilities.taken_up(privileges.TO_LOAD):
            try:
                return libbpf.load_program(libbpf.PROG_TYPE_SCHED_CLS, NAME, code)
            except OSError as error:
                raise self._refused(error.errno or 0, code) from None

    # The generated code: for each place of a tag, and for each classic program:
    #   [is the interface one of ...?] -> translation -> selected: mask |= bits -> rejected: the next
    # then the end: hand over, unless the mask is 0; "out" is what follows.

    def _write(self, code: Assembler) -> None:
        tagged, end, out = code.label(), code.label(), code.label()
        code.move(SKB, R1)
        code.store_value(FP, MASK_AT, 0)
        if self.link == LINK_ETHERNET:
            code.load(R1, 4, SKB, ebpf.SKB_VLAN_PRESENT)
            code.branch(tagged, ebpf.JNE, R1)
        self._write_all(code, tagged=False)
        if self.link == LINK_ETHERNET:
            code.go(end)
            code.place(tagged)
            self._write_all(code, tagged=True)
        code.place(end)
        self._write_end(code, out)
        code.place(out)

    def _write_all(self, code: Assembler, *, tagged: bool) -> None:
        for program, users in self._wanted.items():
            selected, rejected = code.label(), code.label()
            if EVERYWHERE not in users:
                self._write_interfaces(code, users, rejected)
            # Both again for each, so that all paths from one to the next look the same to the verifier.
            code.load(DATA, 4, SKB, ebpf.SKB_DATA)
            code.load(DATA_END, 4, SKB, ebpf.SKB_DATA_END)
            Translation(code, program, selected, rejected, tagged=tagged, outgoing=self._outgoing).write()
            if len(code) > MAX_INSTRUCTIONS:
                raise ebpf.TooLarge(f"more than {MAX_INSTRUCTIONS} instructions")
            if selected.used:
                code.place(selected)
                self._write_bits(code, users)
            code.place(rejected)

    def _write_interfaces(self, code: Assembler, users: Mapping[int, int], rejected: Label) -> None:
        evaluate = code.label()
        code.load(R1, 4, SKB, ebpf.SKB_IFINDEX)
        for ifindex in users:
            code.branch(evaluate, ebpf.JEQ, R1, value=ifindex)
        code.go(rejected)
        code.place(evaluate)

    def _write_bits(self, code: Assembler, users: Mapping[int, int]) -> None:
        code.load(R1, 4, FP, MASK_AT)
        code.load(R2, 4, SKB, ebpf.SKB_IFINDEX)
        for ifindex, bits in users.items():
            other = code.label()
            if ifindex != EVERYWHERE:
                code.branch(other, ebpf.JNE, R2, value=ifindex)
            code.operate(ebpf.OR, R1, value=bits)
            code.place(other)
        code.store(FP, MASK_AT, R1)

    def _write_end(self, code: Assembler, out: Label) -> None:
        # A verifier that knows the mask on each path to here would walk the rest of the program for each of 2^32 masks.
        # It does not know that two loads of the length are equal, and their XOR is 0.
        code.load(R1, 4, SKB, ebpf.SKB_LEN)
        code.load(R2, 4, SKB, ebpf.SKB_LEN)
        code.operate(ebpf.XOR, R1, by=R2)
        code.load(R2, 4, FP, MASK_AT)
        code.operate(ebpf.XOR, R1, by=R2)
        code.branch(out, ebpf.JEQ, R1)
        code.store_value(FP, KEY_AT, 0)
        code.load_map(R1, self._matches_fd)
        code.move(R2, FP)
        code.operate(ebpf.ADD, R2, value=KEY_AT, width=64)
        code.call(MAP_LOOKUP)
        code.branch(out, ebpf.JEQ, R0, width=64)
        code.load(R1, 4, FP, MASK_AT)
        code.store(R0, 0, R1)
        code.move(R1, SKB)
        code.load_map(R2, self._programs_fd)
        code.operate(ebpf.MOV, R3, value=self.copy_slot)
        code.call(TAIL_CALL)

    def _refused(self, number: int, code: bytes) -> CaptureError:
        if number == errno.E2BIG:
            return self._too_large(f"{len(code) // ebpf.INSTRUCTION_BYTES} instructions")
        return refused(str(self), number, lambda: _verifier_log(code), {})

    def _too_large(self, size: str) -> CaptureError:
        filters = [selection.filter for _, selection in self.selections]
        largest = max(filters, key=lambda each: sum(map(len, each.programs(self.link))))
        return CaptureError(
            f'{self}: too large for the kernel ({size}); the largest filter is "{one_line(largest.text)}"',
            "shorten it, for instance by prefixes in place of single addresses, or use fewer filters at a time",
        )

    def __str__(self) -> str:
        way = "egress" if self._outgoing else "ingress"
        kind = "Ethernet" if self.link == LINK_ETHERNET else "IP"
        count = len(self.selections)
        return f"program {NAME} for {kind} packets, {way}, of {count} filter{'' if count == 1 else 's'}"


def check_together(selections: Sequence[Selection]) -> None:
    """Checks that the filters may be in use together.

    :raises CaptureError: they are too large.
    """
    sizes = [filter_.instructions for filter_ in {selection.filter for selection in selections}]
    long = [size for size in sizes if size > SHORT]
    if len(long) > 1 and sum(long) > MAX_TOGETHER:
        raise CaptureError(
            f"the long filters in use would have {sum(long)} instructions together, and at most {MAX_TOGETHER} are "
            "possible",
            "use a shorter one, or one that is in use, or end another stream",
        )


def _verifier_log(code: bytes) -> list[str]:
    """What the verifier says of a program that it refuses."""
    buffer = ctypes.create_string_buffer(LOG_BYTES)
    with contextlib.suppress(OSError):
        libbpf.load_program(libbpf.PROG_TYPE_SCHED_CLS, NAME, code, buffer)
    return buffer.value.decode(errors="replace").rstrip().split("\n")
