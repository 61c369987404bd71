"""Writing eBPF programs: instructions (linux/bpf.h: struct bpf_insn), labels, and jumps of any length."""

from __future__ import annotations

import struct
from dataclasses import dataclass

INSTRUCTION_BYTES = 8
MAX_JUMP = 32767

# Opcodes; ALU operations and jumps of classic BPF have the same numbers in eBPF.
ALU, ALU64, JMP, JMP32 = 0x04, 0x07, 0x05, 0x06
K, X = 0x00, 0x08
ADD, SUB, OR, AND, LSH, RSH, NEG, XOR, MOV = 0x00, 0x10, 0x40, 0x50, 0x60, 0x70, 0x80, 0xA0, 0xB0
TO_BIG_ENDIAN = 0xD8
JA, JEQ, JGT, JGE, JSET, JNE, JLT, JLE = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0xA0, 0xB0
LOADS = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}
STORES = {4: 0x63, 8: 0x7B}
STORE_IMMEDIATE, LOAD_64, PSEUDO_MAP_FD = 0x62, 0x18, 1
CALL, EXIT, GO = JMP | 0x80, JMP | 0x90, JMP | JA

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)
"""R1 to R5 are arguments, and lost in a call; R6 to R9 stay. FP is the end of 512 bytes of stack."""

SKB_LEN, SKB_PACKET_TYPE, SKB_VLAN_PRESENT, SKB_VLAN_TCI, SKB_VLAN_PROTO = 0, 4, 20, 24, 28
SKB_IFINDEX, SKB_DATA, SKB_DATA_END = 40, 76, 80
"""Offsets in struct __sk_buff of linux/bpf.h."""

INVERSE = {JEQ: JNE, JGT: JLE, JGE: JLT}


class TooLarge(Exception):
    """The program has a jump that cannot be made."""


class Label:
    """A place in a program: ``at`` is the index of an instruction, -1 = not placed yet; ``used``: is a jump target."""

    def __init__(self) -> None:
        self.at = -1
        self.used = False


@dataclass
class _Instruction:
    code: int
    target: int
    source: int
    offset: int
    immediate: int
    label: Label | None = None


class Assembler:
    """Collects instructions. Registers are numbers; a 32-bit operation clears the upper half of its target."""

    def __init__(self) -> None:
        self._instructions: list[_Instruction] = []
        self._labels: list[Label] = []

    def __len__(self) -> int:
        return len(self._instructions)

    def _add(self, code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> None:
        self._instructions.append(_Instruction(code, target, source, offset, immediate))

    def label(self) -> Label:
        """A new label, to be placed."""
        self._labels.append(Label())
        return self._labels[-1]

    def place(self, label: Label) -> None:
        """Places ``label`` here."""
        label.at = len(self)

    def move(self, target: int, source: int) -> None:
        """All 64 bits, pointers too."""
        self._add(ALU64 | MOV | X, target, source)

    def operate(self, operation: int, target: int, *, by: int | None = None, value: int = 0, width: int = 32) -> None:
        """``target`` = ``target`` ``operation`` register ``by``, or ``value``."""
        kind = ALU if width == 32 else ALU64
        if by is None:
            self._add(kind | operation | K, target, immediate=value)
        else:
            self._add(kind | operation | X, target, by)

    def load(self, target: int, size: int, base: int, offset: int = 0) -> None:
        """``size`` bytes at ``base`` + ``offset``, in host order; the rest of ``target`` is 0."""
        self._add(LOADS[size], target, base, offset)

    def load_big_endian(self, target: int, size: int, base: int, offset: int = 0) -> None:
        """``size`` bytes at ``base`` + ``offset``, in network order."""
        self.load(target, size, base, offset)
        if size > 1:
            self.swap(target, size)

    def swap(self, target: int, size: int) -> None:
        """From network to host order."""
        self._add(ALU | TO_BIG_ENDIAN, target, immediate=8 * size)

    def store(self, base: int, offset: int, source: int, size: int = 4) -> None:
        """The lower ``size`` bytes of ``source``: 4 or 8."""
        self._add(STORES[size], base, source, offset)

    def store_value(self, base: int, offset: int, value: int) -> None:
        """Four bytes."""
        self._add(STORE_IMMEDIATE, base, offset=offset, immediate=value)

    def load_map(self, target: int, fd: int) -> None:
        """The map of a file descriptor, for a call."""
        self._add(LOAD_64, target, PSEUDO_MAP_FD, immediate=fd)
        self._add(0)

    def call(self, helper: int) -> None:
        """A helper function of the kernel; its result is in R0."""
        self._add(CALL, immediate=helper)

    def exit(self) -> None:
        """Returns R0."""
        self._add(EXIT)

    def go(self, label: Label) -> None:
        """Jumps to ``label``."""
        self._add(GO)
        self._lead_to(label)

    def branch(
        self, label: Label, condition: int, register: int, *, by: int | None = None, value: int = 0, width: int = 32
    ) -> None:
        """Jumps to ``label`` if ``register`` ``condition`` register ``by``, or ``value``; unsigned."""
        kind = JMP32 if width == 32 else JMP
        if by is None:
            self._add(kind | condition | K, register, immediate=value)
        else:
            self._add(kind | condition | X, register, by)
        self._lead_to(label)

    def _lead_to(self, label: Label) -> None:
        self._instructions[-1].label = label
        label.used = True

    def assemble(self) -> bytes:
        """The program in the kernel's form.

        :raises TooLarge: a jump is too long, and there is no place for an intermediate jump.
        """
        index = 0
        while index < len(self):
            if self._distance(index) > MAX_JUMP:
                # The inserted jumps lengthen other jumps over them.
                index = max(0, self._continue_jumps(index) - MAX_JUMP - 1)
            else:
                index += 1
        return b"".join(self._encoded(index) for index in range(len(self)))

    def _distance(self, index: int) -> int:
        label = self._instructions[index].label
        return 0 if label is None else label.at - index - 1

    def _continue_jumps(self, first: int) -> int:
        """Splits the jump at ``first``, and later ones that are too long, by intermediate jumps; returns their place.

        The intermediate jumps follow an instruction that never continues with the next. Jumps go forward only.
        """
        reachable = range(first + MAX_JUMP // 2, first, -1)
        place = next((index + 1 for index in reachable if self._instructions[index].code in (GO, EXIT)), None)
        if place is None:
            raise TooLarge(f"cannot split a jump over {self._distance(first)} instructions")
        islands: dict[Label, Label] = {}
        for index in range(first, place):
            instruction = self._instructions[index]
            if instruction.label and self._distance(index) > MAX_JUMP and len(islands) < MAX_JUMP // 2:
                instruction.label = islands.setdefault(instruction.label, Label())
        for each in self._labels:
            each.at += len(islands) if each.at >= place else 0
        for number, island in enumerate(islands.values()):
            island.at = place + number
        self._labels += islands.values()
        self._instructions[place:place] = [_Instruction(GO, 0, 0, 0, 0, label) for label in islands]
        return place

    def _encoded(self, index: int) -> bytes:
        each = self._instructions[index]
        signed = (each.immediate & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        offset = each.offset if each.label is None else self._distance(index)
        return struct.pack("<BBhi", each.code, each.source << 4 | each.target, offset, signed)
