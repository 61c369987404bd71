"""The packet reads of a translated filter: by pointer if possible, else by a helper of the kernel.

Where the kernel keeps a VLAN tag beside the packet, the filter sees the frame as it is on the wire: octets 12 to 15 are
the tag, what stands there in memory begins at octet 16 (_TAG).
"""

from __future__ import annotations

from netobs.kernel import ebpf
from netobs.kernel.ebpf import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Assembler, Label

SKB, A, INDEX, DATA, DATA_END = R6, R7, R8, R9, R5
"""Registers of a translated filter. DATA_END is not kept by a call."""

SKB_LEN, SKB_PACKET_TYPE, SKB_VLAN_PRESENT, SKB_VLAN_TCI, SKB_VLAN_PROTO = 0, 4, 20, 24, 28
SKB_IFINDEX, SKB_DATA, SKB_DATA_END = 40, 76, 80
"""Offsets in struct __sk_buff of linux/bpf.h."""

MASK_AT, KEY_AT, SCRATCH_AT, TAG_AT, MEMORY_AT = -4, -8, -12, -16, -20
"""What is on the stack, four bytes each: from MEMORY_AT downwards the memory slots of the filter."""

SKB_LOAD_BYTES = 26  # enum bpf_func_id
MAX_DIRECT = 0x7FFF  # an offset in an eBPF instruction has 16 bits, with a sign
MAX_OFFSET = 0x7FFFFFFF
_TAG_BEGINS, _TAG_ENDS, _TAG_OCTETS = 12, 16, 4


class Reader:
    """Reads at constant offsets, with or without a tag beside the packet. What is common to both ways to read."""

    def __init__(self, code: Assembler, tagged: bool) -> None:
        self.code, self.tagged = code, tagged

    def in_memory(self, offset: int, size: int) -> int | None:
        """Where octet ``offset`` of the frame is in memory; None if some of the ``size`` octets are in the tag."""
        if not self.tagged or offset + size <= _TAG_BEGINS:
            return offset
        return offset - _TAG_OCTETS if offset >= _TAG_ENDS else None

    def length(self, target: int) -> None:
        """The length of the frame on the wire."""
        self.code.load(target, 4, SKB, SKB_LEN)
        if self.tagged:
            self.code.operate(ebpf.ADD, target, value=_TAG_OCTETS)

    def _octet(self, target: int, at: int) -> None:
        raise NotImplementedError

    def _around_tag(self, target: int, offset: int, size: int) -> None:
        """``target`` = octets of the frame, some of which are in the tag; put together one by one."""
        for position in range(offset, offset + size):
            first = position == offset
            piece = target if first else R1
            if not first:
                self.code.operate(ebpf.LSH, target, value=8)
            at = self.in_memory(position, 1)
            if at is None:
                self._tag_octet(piece, position)
            else:
                self._octet(piece, at)
            if not first:
                self.code.operate(ebpf.OR, target, by=R1)

    def _tag_octet(self, target: int, position: int) -> None:
        if position < _TAG_BEGINS + 2:
            self.code.load(target, 4, SKB, SKB_VLAN_PROTO)
            self.code.swap(target, 2)
        else:
            self.code.load(target, 4, SKB, SKB_VLAN_TCI)
        if position % 2:
            self.code.operate(ebpf.AND, target, value=0xFF)
        else:
            self.code.operate(ebpf.RSH, target, value=8)

    def _whole_tag(self, target: int, scratch: int) -> None:
        """``target`` = the four octets of the tag."""
        self.code.load(target, 4, SKB, SKB_VLAN_PROTO)
        self.code.swap(target, 2)
        self.code.operate(ebpf.LSH, target, value=16)
        self.code.load(scratch, 4, SKB, SKB_VLAN_TCI)
        self.code.operate(ebpf.OR, target, by=scratch)


class LinearReader(Reader):
    """Reads the linear part of the packet by pointer. ``known``: number of octets that are known to be there.

    For other octets it jumps to a label, where the PagedReader does the same instruction.
    """

    def __init__(self, code: Assembler, tagged: bool) -> None:
        super().__init__(code, tagged)
        self.known = 0

    def absolute(self, target: int, offset: int, size: int, otherwise: Label) -> bool:
        """``target`` = ``size`` octets at ``offset``. False: always done at ``otherwise``, nothing follows here."""
        at = self.in_memory(offset, size)
        end = max(offset + size - _TAG_OCTETS, _TAG_BEGINS) if at is None else at + size
        if end > MAX_DIRECT:
            self.code.go(otherwise)
            return False
        self._need(end, otherwise)
        if at is not None:
            self.code.load_big_endian(target, size, DATA, at)
        elif (offset, size) == (_TAG_BEGINS, 2):
            self.code.load(target, 4, SKB, SKB_VLAN_PROTO)
            self.code.swap(target, 2)
        elif (offset, size) == (_TAG_BEGINS + 2, 2):
            self.code.load(target, 4, SKB, SKB_VLAN_TCI)
        else:
            self._around_tag(target, offset, size)
        return True

    def _need(self, end: int, otherwise: Label) -> None:
        if end <= self.known:
            return
        self.code.move(R1, DATA)
        self.code.operate(ebpf.ADD, R1, value=end, width=64)
        self.code.branch(otherwise, ebpf.JGT, R1, by=DATA_END, width=64)
        self.known = end

    def _octet(self, target: int, at: int) -> None:
        self.code.load(target, 1, DATA, at)

    def indirect(self, offset: int, size: int, otherwise: Label) -> bool:
        """A = ``size`` octets at X + ``offset``. False: as for ``absolute``."""
        if offset + size > MAX_DIRECT:
            self.code.go(otherwise)
            return False
        code = self.code
        code.operate(ebpf.MOV, R1, by=INDEX)
        # This, and AND below, only change the verifier's knowledge. The verifier of 5.10 may believe in a minimum above
        # the maximum, from branches that are never taken, and then refuses to add R1 to a pointer.
        code.operate(ebpf.XOR, R1, value=0, width=64)
        if self.tagged:
            if offset < _TAG_ENDS:  # may start before the tag's end
                code.branch(otherwise, ebpf.JLT, R1, value=_TAG_ENDS - offset, width=64)
            code.operate(ebpf.ADD, R1, value=offset - _TAG_OCTETS, width=64)
            offset = 0
        code.branch(otherwise, ebpf.JGT, R1, value=MAX_DIRECT, width=64)
        code.operate(ebpf.AND, R1, value=MAX_DIRECT, width=64)
        code.operate(ebpf.ADD, R1, by=DATA, width=64)
        code.move(R2, R1)
        code.operate(ebpf.ADD, R2, value=offset + size, width=64)
        code.branch(otherwise, ebpf.JGT, R2, by=DATA_END, width=64)
        code.load_big_endian(A, size, R1, offset)
        return True


class PagedReader(Reader):
    """Reads by bpf_skb_load_bytes, wherever the octets are. Reads beyond the packet jump to ``rejected``."""

    def __init__(self, code: Assembler, tagged: bool, rejected: Label) -> None:
        super().__init__(code, tagged)
        self._rejected = rejected

    def absolute(self, target: int, offset: int, size: int) -> bool:
        """``target`` = ``size`` octets at ``offset``. False: no packet is that long, nothing follows here."""
        if offset > MAX_OFFSET:
            self.code.go(self._rejected)
            return False
        at = self.in_memory(offset, size)
        if at is None:
            self._around_tag(target, offset, size)
        else:
            self.code.operate(ebpf.MOV, R2, value=at)
            self._load_bytes(target, size)
        return True

    def _load_bytes(self, target: int, size: int) -> None:
        """``target`` = ``size`` octets at R2."""
        code = self.code
        code.move(R1, SKB)
        code.move(R3, FP)
        code.operate(ebpf.ADD, R3, value=SCRATCH_AT, width=64)
        code.operate(ebpf.MOV, R4, value=size)
        code.call(SKB_LOAD_BYTES)
        code.branch(self._rejected, ebpf.JNE, R0, width=64)
        code.load_big_endian(target, size, FP, SCRATCH_AT)

    def _octet(self, target: int, at: int) -> None:
        self.code.operate(ebpf.MOV, R2, value=at)
        self._load_bytes(target, 1)

    def indirect(self, offset: int, size: int) -> bool:
        """A = ``size`` octets at X + ``offset``. False: as for ``absolute``."""
        if offset > MAX_OFFSET:
            self.code.go(self._rejected)
            return False
        code, read, done = self.code, self.code.label(), self.code.label()
        self._at_index(offset)
        code.branch(self._rejected, ebpf.JGT, R2, value=MAX_OFFSET, width=64)
        if self.tagged:
            if offset < _TAG_ENDS:
                code.branch(read, ebpf.JLE, R2, value=_TAG_BEGINS - size, width=64)
                behind = code.label()
                code.branch(behind, ebpf.JGE, R2, value=_TAG_ENDS, width=64)
                self._indirect_around_tag(offset, size)
                code.go(done)
                code.place(behind)
            code.operate(ebpf.ADD, R2, value=-_TAG_OCTETS, width=64)
        code.place(read)
        self._load_bytes(A, size)
        code.place(done)
        return True

    def _at_index(self, offset: int) -> None:
        """R2 = X + ``offset``, which may have 33 bits."""
        self.code.operate(ebpf.MOV, R2, by=INDEX)
        self.code.operate(ebpf.ADD, R2, value=offset, width=64)

    def _indirect_around_tag(self, offset: int, size: int) -> None:
        """A = octets that are partly in the tag; only at run time is it known which ones."""
        code = self.code
        self._whole_tag(A, R1)
        code.store(FP, TAG_AT, A)
        code.operate(ebpf.MOV, A, value=0)
        for position in range(offset, offset + size):
            may_be_before, may_be_behind = position < offset + size - 1, position > offset
            before, behind, done = code.label(), code.label(), code.label()
            code.operate(ebpf.LSH, A, value=8)
            self._at_index(position)
            if may_be_before:
                code.branch(before, ebpf.JLT, R2, value=_TAG_BEGINS, width=64)
            if may_be_behind:
                code.branch(behind, ebpf.JGE, R2, value=_TAG_ENDS, width=64)
            self._octet_of_stored_tag()
            if may_be_before or may_be_behind:
                code.go(done)
            if may_be_behind:
                code.place(behind)
                code.operate(ebpf.ADD, R2, value=-_TAG_OCTETS, width=64)
            if may_be_before or may_be_behind:
                code.place(before)
                self._load_bytes(R1, 1)
                code.place(done)
            code.operate(ebpf.OR, A, by=R1)

    def _octet_of_stored_tag(self) -> None:
        """R1 = octet R2 of the frame, which is in the tag."""
        code = self.code
        code.operate(ebpf.MOV, R3, value=_TAG_ENDS - 1)
        code.operate(ebpf.SUB, R3, by=R2)
        code.operate(ebpf.LSH, R3, value=3)
        code.load(R1, 4, FP, TAG_AT)
        code.operate(ebpf.RSH, R1, by=R3)
        code.operate(ebpf.AND, R1, value=0xFF)
