"""Classic BPF, the first form of a compiled filter, from libpcap or simple.py: its opcodes, and its validation.

The language is that of libpcap's bpf_filter.c: 32-bit unsigned A, X and M[0..15], all 0 at first. A load beyond the end
of the packet, and a division by an X of 0, end the program as if it returned 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from netobs.pcap.selection import Instruction, Program

MAX_INSTRUCTIONS = 4096  # linux/bpf_common.h: BPF_MAXINSNS
MEMORY_SLOTS = 16  # linux/filter.h: BPF_MEMWORDS

ALL = 262144
"""The result of a program for a selected packet: tcpdump's largest snapshot length."""

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)  # classes
W, H, B = 0x00, 0x08, 0x10
SIZES = {W: 4, H: 2, B: 1}
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0x00, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = range(0x00, 0x50, 0x10)
K, X = 0x00, 0x08
RET_K, RET_A = RET | 0x00, RET | 0x10
TAX, TXA = MISC | 0x00, MISC | 0x80

PACKET_TYPE = 0xFFFFF004
"""The offset SKF_AD_OFF + SKF_AD_PKTTYPE of linux/filter.h, where ``inbound`` and ``outbound`` load pkt_type."""

_PACKET_LOADS = {LD | mode | size for mode in (ABS, IND) for size in SIZES} | {LDX | B | MSH}
_OTHER_LOADS = {kind | mode for kind in (LD, LDX) for mode in (IMM, MEM, LEN)}
_MEMORY = {LD | MEM, LDX | MEM, ST, STX}
_ARITHMETIC = {ALU | op | source for op in range(ADD, XOR + 1, 0x10) if op != NEG for source in (K, X)} | {ALU | NEG}
_BRANCHES = {JMP | op | source for op in (JEQ, JGT, JGE, JSET) for source in (K, X)}
_KNOWN = (
    {RET_K, RET_A, TAX, TXA, JMP | JA} | _PACKET_LOADS | _OTHER_LOADS | _MEMORY | _ARITHMETIC | _BRANCHES
)  # fmt: skip


def is_return(instruction: Instruction) -> bool:
    """Whether the program ends with this instruction."""
    return instruction.code in (RET_K, RET_A)


def is_branch(instruction: Instruction) -> bool:
    """Whether it continues at one of two places."""
    return instruction.code in _BRANCHES


def successors(program: Program, index: int) -> tuple[int, ...]:
    """The possible next instructions after ``index``."""
    instruction = program[index]
    if is_return(instruction):
        return ()
    if instruction.code == JMP | JA:
        return (index + 1 + instruction.k,)
    if is_branch(instruction):
        return (index + 1 + instruction.jt, index + 1 + instruction.jf)
    return (index + 1,)


def problem(program: Program) -> str:
    """Why the kernel cannot run ``program``; "" if it can. It refuses empty programs."""
    if not program:
        return "it has no instruction"
    if len(program) > MAX_INSTRUCTIONS:
        return f"it has {len(program)} instructions; the limit is {MAX_INSTRUCTIONS}"
    for index in range(len(program)):
        reason = next(_problems(program, index), "")
        if reason:
            return f"{reason} (instruction {index} of {len(program)})"
    return ""


def _problems(program: Program, index: int) -> Iterator[str]:
    code, _, _, k = program[index]
    if code not in _KNOWN:
        yield f"there is no opcode {code:#x}"
    if code == JMP | JA and k >= 1 << 31:
        yield 'it has a loop, as "protochain" makes, and the kernel allows none'
    if any(target >= len(program) for target in successors(program, index)):
        yield "it runs beyond its end"
    if code in _MEMORY and k >= MEMORY_SLOTS:
        yield f"there is no memory slot {k}"
    if code in (ALU | DIV | K, ALU | MOD | K) and k == 0:
        yield "it divides by 0"
    if code in (ALU | LSH | K, ALU | RSH | K) and k >= 32:
        yield f"it shifts 32 bits by {k}"


def memory_slots(program: Program) -> set[int]:
    """The slots that ``program`` uses."""
    return {instruction.k for instruction in program if instruction.code in _MEMORY}
