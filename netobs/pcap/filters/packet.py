"""The packet reads of a translated filter: by pointer if possible, else by a helper of the kernel.

Where the kernel keeps a VLAN tag beside the packet, the filter sees the frame as it is on the wire: octets 12 to 15 are
the tag, what stands there in memory begins at octet 16 (_TAG).
"""

from __future__ import annotations

from netobs.kernel import ebpf
from netobs.kernel.ebpf import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Assembler, Label

SKB, A, INDEX, DATA, DATA_END = R6, R7, R8, R9, R5
"""Registers of a translated filter. DATA_END is not kept by a call."""

MASK_AT, KEY_AT, SCRATCH_AT, MEMORY_AT = -4, -8, -12, -16
"""What is on the stack, four bytes each: from MEMORY_AT downwards the memory slots of the filter."""

SKB_LOAD_BYTES = 26  # enum bpf_func_id
MAX_DIRECT = 0x7FFF  # an offset in an eBPF instruction has 16 bits, with a sign
MAX_OFFSET = 0x7FFFFFFF
_TAG_BEGINS, _TAG_ENDS, _TAG_OCTETS = 12, 16, 4


class Reader:
    """Writes the reads of octets, with or without a tag beside the packet. What is common to both ways to read.

    ``absolute``: ``target`` = ``size`` octets at ``offset``; ``indirect``: A = those at X + ``offset``. False: the
    octets are never read here, nothing follows.
    """

    def __init__(self, code: Assembler, tagged: bool, otherwise: Label) -> None:
        self.code, self.tagged = code, tagged
        self.otherwise = otherwise
        """Where a program goes on that cannot read the octets here."""
        self.known = 0
        """Octets that are known to be in the linear part."""

    def absolute(self, target: int, offset: int, size: int) -> bool:
        raise NotImplementedError

    def indirect(self, offset: int, size: int) -> bool:
        raise NotImplementedError

    def _octet(self, target: int, at: int) -> None:
        raise NotImplementedError

    def in_memory(self, offset: int, size: int) -> int | None:
        """Where octet ``offset`` of the frame is in memory; None if some of the ``size`` octets are in the tag."""
        if not self.tagged or offset + size <= _TAG_BEGINS:
            return offset
        return offset - _TAG_OCTETS if offset >= _TAG_ENDS else None

    def length(self, target: int) -> None:
        """The length of the frame on the wire."""
        self.code.load(target, 4, SKB, ebpf.SKB_LEN)
        if self.tagged:
            self.code.operate(ebpf.ADD, target, value=_TAG_OCTETS)

    def _around_tag(self, target: int, offset: int, size: int) -> None:
        """``target`` = octets of the frame, some in the tag: one half of it, or put together one by one."""
        if size == 2 and offset in (_TAG_BEGINS, _TAG_BEGINS + 2):
            self._half_of_tag(target, offset)
            return
        for position in range(offset, offset + size):
            first = position == offset
            piece = target if first else R1
            if not first:
                self.code.operate(ebpf.LSH, target, value=8)
            at = self.in_memory(position, 1)
            if at is not None:
                self._octet(piece, at)
            else:
                self._half_of_tag(piece, position)
                operation, value = (ebpf.AND, 0xFF) if position % 2 else (ebpf.RSH, 8)
                self.code.operate(operation, piece, value=value)
            if not first:
                self.code.operate(ebpf.OR, target, by=R1)

    def _half_of_tag(self, target: int, position: int) -> None:
        """``target`` = the two octets of the tag that hold octet ``position``."""
        is_protocol = position < _TAG_BEGINS + 2
        self.code.load(target, 4, SKB, ebpf.SKB_VLAN_PROTO if is_protocol else ebpf.SKB_VLAN_TCI)
        if is_protocol:
            self.code.swap(target, 2)


class LinearReader(Reader):
    """Reads the linear part of the packet by pointer. ``otherwise``: where the PagedReader does the same."""

    def absolute(self, target: int, offset: int, size: int) -> bool:
        at = self.in_memory(offset, size)
        end = max(offset + size - _TAG_OCTETS, _TAG_BEGINS) if at is None else at + size
        if end > MAX_DIRECT:
            self.code.go(self.otherwise)
            return False
        if end > self.known:
            self.code.move(R1, DATA)
            self.code.operate(ebpf.ADD, R1, value=end, width=64)
            self.code.branch(self.otherwise, ebpf.JGT, R1, by=DATA_END, width=64)
            self.known = end
        if at is None:
            self._around_tag(target, offset, size)
        else:
            self.code.load_big_endian(target, size, DATA, at)
        return True

    def _octet(self, target: int, at: int) -> None:
        self.code.load(target, 1, DATA, at)

    def indirect(self, offset: int, size: int) -> bool:
        code, otherwise = self.code, self.otherwise
        if offset + size > MAX_DIRECT:
            code.go(otherwise)
            return False
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
    """Reads by bpf_skb_load_bytes, wherever the octets are. ``otherwise``: for reads beyond the packet."""

    def absolute(self, target: int, offset: int, size: int) -> bool:
        if offset > MAX_OFFSET:
            self.code.go(self.otherwise)
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
        code.branch(self.otherwise, ebpf.JNE, R0, width=64)
        code.load_big_endian(target, size, FP, SCRATCH_AT)

    def _octet(self, target: int, at: int) -> None:
        self.code.operate(ebpf.MOV, R2, value=at)
        self._load_bytes(target, 1)

    def indirect(self, offset: int, size: int) -> bool:
        code, read, done = self.code, self.code.label(), self.code.label()
        if offset > MAX_OFFSET:
            code.go(self.otherwise)
            return False
        code.operate(ebpf.MOV, R2, by=INDEX)
        code.operate(ebpf.ADD, R2, value=offset, width=64)  # may have 33 bits
        code.branch(self.otherwise, ebpf.JGT, R2, value=MAX_OFFSET, width=64)
        if self.tagged:
            if offset < _TAG_ENDS:
                code.branch(read, ebpf.JLE, R2, value=_TAG_BEGINS - size, width=64)
            for position in range(max(offset, _TAG_BEGINS - size + 1), _TAG_ENDS):
                other = code.label()
                code.branch(other, ebpf.JNE, R2, value=position, width=64)
                self._around_tag(A, position, size)
                code.go(done)
                code.place(other)
            code.operate(ebpf.ADD, R2, value=-_TAG_OCTETS, width=64)
        code.place(read)
        self._load_bytes(A, size)
        code.place(done)
        return True
