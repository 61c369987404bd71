"""Translates classic BPF to eBPF for the TC hook.

Each program is written twice. The first copy reads the packet by pointer. If an octet is not in the packet's linear
part, it continues in the second copy, at the same instruction. That copy reads by a helper, and never jumps back. So
the bounds that one load has checked hold for all later loads.

BPF_LD_ABS and BPF_LD_IND, which eBPF also has, are not usable: beyond the end they return 0 from the whole program.
That is TCX_PASS, and no other program on the hook would see the packet.
"""

from __future__ import annotations

from netobs.kernel import ebpf
from netobs.kernel.ebpf import FP, Assembler, Label
from netobs.pcap.filters import classic
from netobs.pcap.filters.classic import ABS, ALU, IMM, IND, JMP, LD, LEN, MEM, MSH, RET_A, RET_K, TAX, TXA, Program
from netobs.pcap.filters.packet import (
    INDEX,
    MEMORY_AT,
    SKB,
    SKB_PACKET_TYPE,
    A,
    LinearReader,
    PagedReader,
)
from netobs.pcap.selection import Instruction

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
        self._outgoing = outgoing
        self._linear = LinearReader(code, tagged)
        self._paged = PagedReader(code, tagged, rejected)
        self._in_paged = [code.label() for _ in program]

    def write(self) -> None:
        """Both copies, and before them the registers that must be 0."""
        for register in sorted(classic.read_before_written(self._program)):
            if register < classic.MEMORY_SLOTS:
                self._code.store_value(FP, _slot(register), 0)
            else:
                self._code.operate(ebpf.MOV, A if register == classic.ACCUMULATOR else INDEX, value=0)
        self._write_linear()
        self._write_paged()

    def _write_linear(self) -> None:
        code, program = self._code, self._program
        places = [code.label() for _ in program]
        known: dict[int, int] = {0: 0}  # octets that are there on every path to an instruction
        for index, instruction in enumerate(program):
            if index not in known:
                continue
            code.place(places[index])
            self._linear.known = known[index]
            if not self._step(index, instruction, places, linear=True):
                continue
            for following in classic.successors(program, index):
                known[following] = min(known.get(following, self._linear.known), self._linear.known)

    def _write_paged(self) -> None:
        wanted = {index for index, label in enumerate(self._in_paged) if label.used}
        for index, instruction in enumerate(self._program):
            if index in wanted:
                self._code.place(self._in_paged[index])
                if self._step(index, instruction, self._in_paged, linear=False):
                    wanted.update(classic.successors(self._program, index))

    def _step(self, index: int, instruction: Instruction, places: list[Label], *, linear: bool) -> bool:
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
            return self._load(index, instruction, linear)
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

    def _load(self, index: int, instruction: Instruction, linear: bool) -> bool:
        k = instruction.k
        target = A if instruction.code & 0x07 == LD else INDEX
        mode = instruction.code & 0xE0
        if mode == IMM:
            self._code.operate(ebpf.MOV, target, value=k)
        elif mode == MEM:
            self._code.load(target, 4, FP, _slot(k))
        elif mode == LEN:
            self._linear.length(target)
        elif mode == ABS and k == classic.PACKET_TYPE:
            self._packet_type()
        else:
            follows = self._load_packet(index, instruction, target, linear)
            if follows and mode == MSH:
                self._code.operate(ebpf.AND, target, value=0xF)
                self._code.operate(ebpf.LSH, target, value=2)
            return follows
        return True

    def _load_packet(self, index: int, instruction: Instruction, target: int, linear: bool) -> bool:
        is_indirect, k = instruction.code & 0xE0 == IND, instruction.k
        size = classic.SIZES[instruction.code & 0x18]
        if linear:
            otherwise = self._in_paged[index]
            if is_indirect:
                return self._linear.indirect(k, size, otherwise)
            return self._linear.absolute(target, k, size, otherwise)
        return self._paged.indirect(k, size) if is_indirect else self._paged.absolute(target, k, size)

    def _packet_type(self) -> None:
        """At egress the kernel sets it only for listeners on packet sockets."""
        if self._outgoing:
            self._code.operate(ebpf.MOV, A, value=PACKET_OUTGOING)
        else:
            self._code.load(A, 4, SKB, SKB_PACKET_TYPE)
