"""What makes a classic program valid, and where its registers are set."""

from __future__ import annotations

import random

import pytest

from netobs.pcap.filters import classic as c
from netobs.pcap.selection import Instruction
from tests.filters.fuzz import random_program

ACCEPT = Instruction(c.RET_K, 0, 0, 1)


def step(code: int, k: int = 0, jt: int = 0, jf: int = 0) -> Instruction:
    return Instruction(code, jt, jf, k)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ((), "it has no instruction"),
        ((ACCEPT,) * 4097, "it has 4097 instructions; the limit is 4096"),
        ((step(0x47), ACCEPT), "there is no opcode 0x47 (instruction 0 of 2)"),
        ((step(c.LDX | c.W | c.ABS), ACCEPT), "there is no opcode 0x21 (instruction 0 of 2)"),
        ((step(c.LD | c.IMM),), "it runs beyond its end (instruction 0 of 1)"),
        ((ACCEPT, step(c.JMP | c.JEQ, jt=1), ACCEPT), "it runs beyond its end (instruction 1 of 3)"),
        ((step(c.JMP | c.JSET | c.X, jf=9), ACCEPT), "it runs beyond its end (instruction 0 of 2)"),
        ((step(c.JMP | c.JA, 1), ACCEPT), "it runs beyond its end (instruction 0 of 2)"),
        (
            (ACCEPT, step(c.JMP | c.JA, 0xFFFFFFFE)),
            'it has a loop, as "protochain" makes, and the kernel allows none (instruction 1 of 2)',
        ),
        ((step(c.ST, 16), ACCEPT), "there is no memory slot 16 (instruction 0 of 2)"),
        ((step(c.LDX | c.MEM, 99), ACCEPT), "there is no memory slot 99 (instruction 0 of 2)"),
        ((step(c.ALU | c.DIV), ACCEPT), "it divides by 0 (instruction 0 of 2)"),
        ((step(c.ALU | c.MOD), ACCEPT), "it divides by 0 (instruction 0 of 2)"),
        ((step(c.ALU | c.LSH, 32), ACCEPT), "it shifts 32 bits by 32 (instruction 0 of 2)"),
    ],
)
def test_what_the_kernel_cannot_run(program: c.Program, reason: str) -> None:
    assert c.problem(program) == reason


def test_what_it_can() -> None:
    division = step(c.ALU | c.DIV | c.X), step(c.ALU | c.LSH | c.X, 99)
    assert c.problem((*division, step(c.JMP | c.JA, 0), ACCEPT)) == ""
    assert c.problem((ACCEPT,) * 4096) == ""


def test_where_a_program_goes_on() -> None:
    program = (step(c.JMP | c.JEQ, jt=2, jf=1), step(c.JMP | c.JA, 1), step(c.MISC), step(c.RET_A))
    assert [c.successors(program, index) for index in range(4)] == [(3, 2), (3,), (3,), ()]


def test_registers_that_are_read_as_they_were_at_first() -> None:
    assert c.read_before_written((ACCEPT,)) == set()
    assert c.read_before_written((step(c.RET_A),)) == {c.ACCUMULATOR}
    assert c.read_before_written((step(c.LD | c.H | c.ABS, 12), step(c.RET_A))) == set()
    assert c.read_before_written((step(c.LD | c.B | c.IND), step(c.RET_A))) == {c.INDEX}
    assert c.read_before_written((step(c.LDX | c.B | c.MSH), step(c.TXA), step(c.RET_A))) == set()
    assert c.read_before_written((step(c.LD | c.MEM, 3), step(c.STX, 4), ACCEPT)) == {3, c.INDEX}
    assert c.read_before_written((step(c.ALU | c.NEG), ACCEPT)) == {c.ACCUMULATOR}
    assert c.read_before_written((step(c.ALU | c.ADD | c.X), ACCEPT)) == {c.ACCUMULATOR, c.INDEX}


def test_only_what_every_way_has_set_is_set() -> None:
    load, store, read = step(c.LD | c.LEN), step(c.ST, 2), step(c.LD | c.MEM, 2)
    branch = step(c.JMP | c.JGT, 60, jt=0, jf=1)
    assert c.read_before_written((load, branch, store, read, step(c.RET_A))) == {2}
    assert c.read_before_written((load, store, branch, store, read, step(c.RET_A))) == set()


def test_random_programs_are_valid() -> None:
    rng = random.Random(1)
    used = {instruction.code for _ in range(500) for instruction in random_program(rng)}
    assert used == c._KNOWN
