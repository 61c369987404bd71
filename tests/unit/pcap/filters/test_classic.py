"""What makes a classic program valid, and which memory it uses."""

from __future__ import annotations

import random

import pytest

from netobs.pcap.filters import classic as c
from netobs.pcap.selection import Instruction, Program
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
def test_what_the_kernel_cannot_run(program: Program, reason: str) -> None:
    assert c.problem(program) == reason


def test_what_it_can() -> None:
    division = step(c.ALU | c.DIV | c.X), step(c.ALU | c.LSH | c.X, 99)
    assert c.problem((*division, step(c.JMP | c.JA, 0), ACCEPT)) == ""
    assert c.problem((ACCEPT,) * 4096) == ""


def test_where_a_program_goes_on() -> None:
    program = (step(c.JMP | c.JEQ, jt=2, jf=1), step(c.JMP | c.JA, 1), step(c.MISC), step(c.RET_A))
    assert [c.successors(program, index) for index in range(4)] == [(3, 2), (3,), (3,), ()]


def test_the_memory_that_is_used() -> None:
    assert c.memory_slots((step(c.LD | c.IMM, 5), ACCEPT)) == set()
    assert c.memory_slots((step(c.LD | c.MEM, 3), step(c.STX, 4), step(c.ST, 3), ACCEPT)) == {3, 4}


def test_random_programs_are_valid() -> None:
    rng = random.Random(1)
    used = {instruction.code for _ in range(500) for instruction in random_program(rng)}
    assert used == c._KNOWN
