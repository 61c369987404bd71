"""The bytes of eBPF instructions, and jumps that are longer than an instruction can say."""

from __future__ import annotations

import struct

import pytest

from netobs.kernel import ebpf
from netobs.kernel.ebpf import FP, R0, R1, R2, Assembler


def decoded(code: bytes) -> list[tuple[int, int, int, int]]:
    """(opcode, registers, offset, immediate) of each instruction."""
    return list(struct.iter_unpack("<BBhi", code))


def test_the_bytes_of_instructions() -> None:
    code = Assembler()
    here = code.label()
    code.load(R1, 2, R2, -4)
    code.operate(ebpf.ADD, R1, value=0xFFFFFFFF)
    code.operate(ebpf.XOR, R1, by=R2, width=64)
    code.swap(R1, 2)
    code.branch(here, ebpf.JGT, R1, by=R2, width=64)
    code.load_map(R1, 7)
    code.place(here)
    code.store(FP, -8, R1)
    code.exit()
    assert decoded(code.assemble()) == [
        (0x69, 0x21, -4, 0),
        (0x04, 0x01, 0, -1),
        (0xAF, 0x21, 0, 0),
        (0xDC, 0x01, 0, 16),
        (0x2D, 0x21, 2, 0),
        (0x18, 0x11, 0, 7),
        (0, 0, 0, 0),
        (0x63, 0x1A, -8, 0),
        (0x95, 0, 0, 0),
    ]


def ways(code: bytes) -> dict[int, int]:
    """For each conditional jump, by the immediate that tells them apart: the immediate of what it ends at."""
    instructions, ends = decoded(code), {}
    for index, (opcode, _, offset, immediate) in enumerate(instructions):
        if opcode == ebpf.JMP32 | ebpf.JEQ:
            target = index + 1 + offset
            while instructions[target][0] == ebpf.GO:
                target += 1 + instructions[target][2]
            ends[immediate] = instructions[target][3]
    return ends


@pytest.mark.parametrize("between", [100, 32_766, 32_767, 33_000, 150_000])
def test_jumps_of_any_length_arrive(between: int) -> None:
    code = Assembler()
    first, second = code.label(), code.label()
    far = [code.label() for _ in range(40)]
    for number, label in enumerate(far):
        code.branch(label, ebpf.JEQ, R0, value=1000 + number)
        code.branch(first, ebpf.JEQ, R0, value=number)
    for number in range(between):
        near = code.label()
        if number % 1000 == 999:  # as in a program: there is code that goes on elsewhere
            code.go(near)
            code.branch(second, ebpf.JEQ, R0, value=5000 + number)
            code.place(near)
        else:
            code.operate(ebpf.MOV, R0, value=0)
    code.place(first)
    code.operate(ebpf.MOV, R0, value=-1)
    code.place(second)
    code.operate(ebpf.MOV, R0, value=-2)
    for number, label in enumerate(far):
        code.place(label)
        code.operate(ebpf.MOV, R0, value=-100 - number)
    code.exit()
    ends = ways(code.assemble())
    assert len(ends) == 80 + between // 1000
    for immediate, end in ends.items():
        assert end == (-1 if immediate < 1000 else -2 if immediate >= 5000 else -100 - (immediate - 1000))


def test_a_jump_that_cannot_be_continued() -> None:
    code = Assembler()
    end = code.label()
    code.branch(end, ebpf.JEQ, R0)
    for _ in range(40_000):
        code.operate(ebpf.MOV, R0, value=0)
    code.place(end)
    code.exit()
    with pytest.raises(ebpf.TooLarge, match=r"^cannot split a jump over 40000 instructions$"):
        code.assemble()
