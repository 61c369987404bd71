"""Messages with damage of every kind: the same ones in each run that begins with ``random.Random(SEED)``."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from lab.messages import OPTIONS9, message, options_template, template
from lab.samples import golden_messages

SEED = 7011

VARIABLE = template(300, (82, 65535), (5, 65535, 32473), (152, 8), (6, 9), (311, 8))
OPTIONS = options_template(400, 1, (149, 4), (41, 8), (82, 9))
CORPUS = [
    *golden_messages("netflow5.hex"),
    *golden_messages("netflow9_default.hex"),
    OPTIONS9,
    *golden_messages(),
    message((2, VARIABLE), (300, (b"\3abc\xff\0\2xy" + bytes(25)) * 3)),
    message((3, OPTIONS), (400, bytes(21) * 2)),
    message((2, b"\1\x2c\0\0")),
    message((2, b"\0\2\0\0"), (3, b"\0\3\0\0")),
    message((2, template(256, *[(number, 4) for number in range(1, 200)]))),
]


def flip(generator: random.Random, raw: bytearray) -> None:
    for _ in range(generator.choice((1, 1, 2, 8))):
        raw[generator.randrange(len(raw))] ^= 1 << generator.randrange(8)


def cut(generator: random.Random, raw: bytearray) -> None:
    del raw[generator.randrange(len(raw)) :]


def splice(generator: random.Random, raw: bytearray) -> None:
    other = generator.choice(CORPUS)
    start = generator.randrange(len(other))
    at = generator.randrange(len(raw))
    raw[at : at + generator.choice((0, 4, 40))] = other[start : start + generator.randrange(1, 200)]


def lie(generator: random.Random, raw: bytearray) -> None:
    """Another number in two octets at an even place, where lengths and counts are."""
    at = 2 * generator.randrange(len(raw) // 2)
    raw[at : at + 2] = struct.pack("!H", generator.choice((0, 1, 3, 4, 5, 255, 256, 300, 65534, 65535)))


def repeat(generator: random.Random, raw: bytearray) -> None:
    raw += raw[16:] * generator.choice((1, 2, 5))


def randomise(generator: random.Random, raw: bytearray) -> None:
    raw[generator.choice((0, 2, 16, 20)) :] = generator.randbytes(generator.randrange(1, 300))


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (flip, cut, splice, lie, repeat, randomise)


def mutated(generator: random.Random) -> bytes:
    """A Message with one to three mutations; mostly with a header that lets the inside be read."""
    raw = bytearray(generator.choice(CORPUS))
    for mutation in generator.choices(MUTATIONS, k=generator.choice((1, 1, 1, 2, 3))):
        mutation(generator, raw)
        raw += bytes(max(0, 2 - len(raw)))
    del raw[8_000:]
    if len(raw) >= 16 and bytes(raw[:2]) not in (b"\0\5", b"\0\x09") and generator.random() < 0.8:
        raw[:4] = struct.pack("!HH", 10, len(raw))
    return bytes(raw)
