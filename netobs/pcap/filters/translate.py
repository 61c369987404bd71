"""Translates classic BPF to eBPF for the TC hook.

Each program is written twice. The first copy reads the packet by pointer. If an octet is not in the packet's linear
part, it continues in the second copy, at the same instruction. That copy reads by a helper, and never jumps back. So
the bounds that one load has checked hold for all later loads.

BPF_LD_ABS and BPF_LD_IND, which eBPF also has, are not usable: beyond the end they return 0 from the whole program.
That is TCX_PASS, and no other program on the hook would see the packet.
"""

from __future__ import annotations

from netobs.kernel import ebpf
from netobs.kernel.ebpf import FP, SKB_PACKET_TYPE, Assembler, Label
from netobs.pcap.filters import classic
from netobs.pcap.filters.classic import ABS, ALU, IMM, IND, JMP, LD, LEN, MEM, MSH, RET_A, RET_K, TAX, TXA
from netobs.pcap.filters.packet import INDEX, MEMORY_AT, SKB, A, LinearReader, PagedReader, Reader
from netobs.pcap.selection import Instruction, Program

PACKET_OUTGOING = 4  # linux/if_packet.h
_CONDITIONS = {
    classic.JEQ: ebpf.JEQ,
    classic.JGT: ebpf.JGT,
    classic.JGE: ebpf.JGE,
    classic.JSET: ebpf.JSET,
}


def _slot(number: int) -> int:
    """The place of memory slot ``number`` on the stack."""
    return MEMORY_AT - 4 * number


class Translation:
    """One classic program, checked by ``classic.problem``, as eBPF in ``code``.

    ``tagged``: for packets that have a VLAN tag beside them. ``outgoing``: for those that leave, as ``inbound`` and
    ``outbound`` ask. The code goes on at ``selected`` or at ``rejected``; R6 to R9 are as packet.py says.
    """

    def __init__(
        self, code: Assembler, program: Program, selected: Label, rejected: Label, *, tagged: bool, outgoing: bool
    ) -> None:
        self._code, self._program = code, program
        self._selected, self._rejected = selected, rejected
        self._tagged, self._outgoing = tagged, outgoing

    def write(self) -> None:
        """Both copies, and before them what is 0 at first."""
        for register in (A, INDEX):
            self._code.operate(ebpf.MOV, register, value=0)
        for slot in sorted(classic.memory_slots(self._program)):
            self._code.store_value(FP, _slot(slot), 0)
        linear, paged = ([self._code.label() for _ in self._program] for _ in range(2))
        self._write_copy(LinearReader(self._code, self._tagged, self._rejected), linear, {0: 0}, paged)
        continued = {index: 0 for index, label in enumerate(paged) if label.used}
        self._write_copy(PagedReader(self._code, self._tagged, self._rejected), paged, continued)

    def _write_copy(
        self, reader: Reader, places: list[Label], reached: dict[int, int], otherwise: list[Label] | None = None
    ) -> None:
        """The instructions that are ``reached``: by index, with the octets that are known to be there on every path."""
        for index, instruction in enumerate(self._program):
            if index not in reached:
                continue
            self._code.place(places[index])
            reader.known = reached[index]
            if otherwise:
                reader.otherwise = otherwise[index]
            if self._step(index, instruction, places, reader):
                for following in classic.successors(self._program, index):
                    reached[following] = min(reached.get(following, reader.known), reader.known)

    def _step(self, index: int, instruction: Instruction, places: list[Label], reader: Reader) -> bool:
        """One instruction. False: nothing follows it in this copy."""
        code, kind = instruction.code, instruction.code & 0x07
        if code in (RET_K, RET_A):
            self._return(instruction)
        elif kind == JMP:
            self._jump(index, instruction, places)
        elif kind == ALU:
            self._arithmetic(instruction)
        elif code == TAX:
            self._code.operate(ebpf.MOV, INDEX, by=A)
        elif code == TXA:
            self._code.operate(ebpf.MOV, A, by=INDEX)
        elif kind in (classic.ST, classic.STX):
            self._code.store(FP, _slot(instruction.k), A if kind == classic.ST else INDEX)
        else:
            return self._load(instruction, reader)
        return True

    def _return(self, instruction: Instruction) -> None:
        if instruction.code == RET_K:
            self._code.go(self._selected if instruction.k else self._rejected)
        else:
            self._code.branch(self._selected, ebpf.JNE, A)
            self._code.go(self._rejected)

    def _jump(self, index: int, instruction: Instruction, places: list[Label]) -> None:
        targets = classic.successors(self._program, index)
        if len(targets) == 1 or targets[0] == targets[1]:
            if targets[0] != index + 1:
                self._code.go(places[targets[0]])
            return
        condition = _CONDITIONS[instruction.code & 0xF0]
        operand = {"by": INDEX} if instruction.code & classic.X else {"value": instruction.k}
        if targets[0] == index + 1 and condition in ebpf.INVERSE:
            self._code.branch(places[targets[1]], ebpf.INVERSE[condition], A, **operand)
            return
        self._code.branch(places[targets[0]], condition, A, **operand)
        if targets[1] != index + 1:
            self._code.go(places[targets[1]])

    def _arithmetic(self, instruction: Instruction) -> None:
        code, operation = self._code, instruction.code & 0xF0
        if operation == classic.NEG:
            code.operate(ebpf.NEG, A)
        elif not instruction.code & classic.X:
            code.operate(operation, A, value=instruction.k)
        elif operation in (classic.LSH, classic.RSH):
            small, done = code.label(), code.label()
            code.branch(small, ebpf.JLT, INDEX, value=32)
            code.operate(ebpf.MOV, A, value=0)
            code.go(done)
            code.place(small)
            code.operate(operation, A, by=INDEX)
            code.place(done)
        else:
            if operation in (classic.DIV, classic.MOD):
                code.branch(self._rejected, ebpf.JEQ, INDEX)
            code.operate(operation, A, by=INDEX)

    def _load(self, instruction: Instruction, reader: Reader) -> bool:
        k, mode = instruction.k, instruction.code & 0xE0
        target = A if instruction.code & 0x07 == LD else INDEX
        if mode == IMM:
            self._code.operate(ebpf.MOV, target, value=k)
        elif mode == MEM:
            self._code.load(target, 4, FP, _slot(k))
        elif mode == LEN:
            reader.length(target)
        elif mode == ABS and k == classic.PACKET_TYPE:
            self._packet_type()
        elif mode == IND:
            return reader.indirect(k, classic.SIZES[instruction.code & 0x18])
        elif not reader.absolute(target, k, classic.SIZES[instruction.code & 0x18]):
            return False
        elif mode == MSH:
            self._code.operate(ebpf.AND, target, value=0xF)
            self._code.operate(ebpf.LSH, target, value=2)
        return True

    def _packet_type(self) -> None:
        """At egress the kernel sets it only for listeners on packet sockets."""
        if self._outgoing:
            self._code.operate(ebpf.MOV, A, value=PACKET_OUTGOING)
        else:
            self._code.load(A, 4, SKB, SKB_PACKET_TYPE)
