"""Random classic programs: valid ones, which libpcap would hardly compile."""

from __future__ import annotations

import random

from netobs.pcap.filters import classic as c
from netobs.pcap.selection import Instruction, Program

SLOTS = (0, 1, 7, 15)
_OFFSETS = (0, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 26, 30, 34, 36, 47, 54, 58, 80, 500, 8999, 40000)
_CONSTANTS = (0, 1, 2, 4, 6, 12, 14, 16, 31, 0xFF, 0x0800, 0x86DD, 0x8100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _offset(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.9:
        return rng.choice(_OFFSETS[: 20 if kind < 0.8 else None])
    return rng.choice((rng.randrange(100), 0x7FFFFFFE, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF))


def _packet_load(rng: random.Random, _left: int) -> Instruction:
    size = rng.choice(list(c.SIZES))
    load = rng.choice((c.LD | size | c.ABS, c.LD | size | c.ABS, c.LD | size | c.IND, c.LDX | c.B | c.MSH))
    return Instruction(load, 0, 0, _offset(rng))


def _constant_load(rng: random.Random, _left: int) -> Instruction:
    return Instruction(rng.choice((c.LD, c.LDX)) | rng.choice((c.IMM, c.LEN)), 0, 0, rng.choice(_CONSTANTS))


def _memory(rng: random.Random, _left: int) -> Instruction:
    return Instruction(rng.choice((c.LD | c.MEM, c.LDX | c.MEM, c.ST, c.STX)), 0, 0, rng.choice(SLOTS))


def _copy(rng: random.Random, _left: int) -> Instruction:
    return Instruction(rng.choice((c.TAX, c.TXA)), 0, 0, 0)


def _arithmetic(rng: random.Random, _left: int) -> Instruction:
    operation, operand = rng.choice(range(c.ADD, c.XOR + 1, 0x10)), rng.choice((c.K, c.X))
    if operation == c.NEG:
        return Instruction(c.ALU | c.NEG, 0, 0, 0)
    constant = rng.choice(_CONSTANTS)
    if operand == c.K and operation in (c.LSH, c.RSH):
        constant %= 32
    return Instruction(c.ALU | operation | operand, 0, 0, constant or 1)


def _jump(rng: random.Random, left: int) -> Instruction:
    if rng.random() < 0.2:
        return Instruction(c.JMP | c.JA, 0, 0, rng.randrange(min(left, 4)))
    condition = rng.choice((c.JEQ, c.JGT, c.JGE, c.JSET)) | rng.choice((c.K, c.X))
    places = rng.randrange(min(left, 9)), rng.randrange(min(left, 9))
    return Instruction(c.JMP | condition, *places, rng.choice(_CONSTANTS))


def _return(rng: random.Random, _left: int) -> Instruction:
    return Instruction(c.RET_K, 0, 0, rng.choice((0, 1, c.ALL)))


_STEPS = (_packet_load, _constant_load, _memory, _copy, _arithmetic, _jump, _return)
_WEIGHTS = (30, 12, 12, 8, 16, 20, 5)


def random_program(rng: random.Random) -> Program:
    """5 to 60 instructions behind those that set the memory slots, which libpcap leaves as the stack has them."""
    length = rng.randint(5, 60)
    begin = [instruction for slot in SLOTS for instruction in (
        Instruction(c.LD | c.IMM, 0, 0, rng.choice(_CONSTANTS)), Instruction(c.ST, 0, 0, slot))]  # fmt: skip
    steps = [rng.choices(_STEPS, _WEIGHTS)[0](rng, length - index) for index in range(length)]
    program = (*begin, *steps, Instruction(rng.choice((c.RET_A, c.RET_K)), 0, 0, 1))
    assert c.problem(program) == ""
    return program
