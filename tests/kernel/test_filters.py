"""Filters in the kernel select what libpcap selects: its own verdicts, on the same packets, are the measure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from lab import frames as f
from netobs.pcap.filters import compile_filter, libpcap
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP, Program
from tests.filters import packets
from tests.filters.expressions import EXPRESSIONS
from tests.filters.fuzz import random_program
from tests.filters.oracle import compiled, masks
from tests.kernel.filtering import Filtering, selections

pytestmark = pytest.mark.kernel(tools=("clang", "tcpdump"))

FRAMES, SEED = 1000, 6
FUZZED, FUZZ_FRAMES = 320, 300
BITS = 32
FIRST_SLOT = 8


@pytest.fixture(scope="module")
def filtering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filtering]:
    with Filtering(tmp_path_factory.mktemp("filtering")) as loaded:
        yield loaded


def batches(programs: Sequence[Sequence[Program]]) -> list[Sequence[Sequence[Program]]]:
    """As many at once as one filter program takes."""
    return [programs[start : start + BITS] for start in range(0, len(programs), BITS)]


def compare(
    filtering: Filtering,
    programs: Sequence[Sequence[Program]],
    frames: Sequence[bytes],
    link: int = LINK_ETHERNET,
    tag: tuple[int, int] = (0, 0),
) -> int:
    """Checks each verdict against libpcap's; how many of them select a packet. ``tag``: TPID and TCI beside each."""
    whole = [packets.put_back(frame, *tag) for frame in frames] if tag[0] else frames
    selected = 0
    for batch in batches(programs):
        filtering.place(FIRST_SLOT, filtering.load(selections(batch, link), link))
        run, expected = filtering.run(FIRST_SLOT, *tag), masks(batch, whole)
        different = [
            (bit, frame.hex(), f"kernel {bool(mask >> bit & 1)}")
            for frame, wanted in zip(frames, expected)
            for mask in [run(frame)]
            for bit in range(len(batch))
            if (mask ^ wanted) >> bit & 1
        ]
        assert different == []
        selected += sum(bin(mask).count("1") for mask in expected)
    filtering.forget()
    return selected


TAGS = [(0, 0), (f.Q, 0x6064), (f.AD, 0x0001), (f.Q, 0xFFFF)]


@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: f"{tag[0]:#x}-{tag[1]:#x}")
def test_verdicts_are_those_of_libpcap(filtering: Filtering, report: list[str], tag: tuple[int, int]) -> None:
    assert len(EXPRESSIONS) >= 300
    programs = [[compiled(expression)] for expression in EXPRESSIONS]
    selected = compare(filtering, programs, packets.frames(FRAMES, SEED), tag=tag)
    report.append(
        f"{len(EXPRESSIONS)} expressions x {FRAMES} frames, tag beside {tag[0]:#x} {tag[1]:#x}: "
        f"the same verdicts as {libpcap.version()}, {selected} of them select"
    )
    assert selected > FRAMES * len(EXPRESSIONS) // 20


def test_verdicts_of_programs_that_libpcap_did_not_optimize(filtering: Filtering) -> None:
    programs = [[compiled(expression, optimize=False)] for expression in EXPRESSIONS]
    for tag in TAGS[:2]:
        compare(filtering, programs, packets.frames(FRAMES // 4, SEED + 1), tag=tag)


def test_verdicts_on_packets_that_begin_with_ip(filtering: Filtering, report: list[str]) -> None:
    programs = [[*compile_filter([expression]).ip] for expression in EXPRESSIONS]
    programs = [each for each in programs if each]  # none has no meaning there
    selected = compare(filtering, programs, packets.ip_packets(FRAMES, SEED), LINK_IP)
    report.append(f"{len(programs)} expressions x {FRAMES} IP packets: the same verdicts, {selected} of them select")
    assert len(programs) > 150
    assert selected > FRAMES * len(programs) // 20


@pytest.mark.parametrize("tag", TAGS[:2], ids=["untagged", "tagged"])
def test_random_programs_end_as_in_libpcap(filtering: Filtering, report: list[str], tag: tuple[int, int]) -> None:
    rng = random.Random(SEED + tag[0])
    programs = [[random_program(rng)] for _ in range(FUZZED)]
    selected = compare(filtering, programs, packets.frames(FUZZ_FRAMES, SEED + 2), tag=tag)
    report.append(f"{FUZZED} random programs x {FUZZ_FRAMES} frames: the same verdicts, {selected} of them select")
    assert FUZZED * FUZZ_FRAMES // 10 < selected < FUZZED * FUZZ_FRAMES * 9 // 10
