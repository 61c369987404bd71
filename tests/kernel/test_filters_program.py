"""The whole filter program: who gets what, how it is handed over, and what is said when it cannot be loaded."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lab import frames as f
from lab.libraries import hidden
from lab.namespaces import Lab
from lab.privileges import CAPABILITIES, unprivileged
from lab.prog_run import NEXT, get, on_cpu
from netobs.base.errors import CaptureError
from netobs.pcap.filters import classic as c
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.program import FilterProgram
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP, Filter, Instruction, Selection
from netobs.pcap.tap.layout import COPY_SLOTS
from tests.filters import packets
from tests.filters.oracle import masks
from tests.kernel.filtering import Filtering, selections

pytestmark = pytest.mark.kernel(tools=("clang", "tcpdump"))

ALL, NONE = (Instruction(c.RET_K, 0, 0, c.ALL),), (Instruction(c.RET_K, 0, 0, 0),)
LOOPBACK, OTHER = 1, 2
TCP = f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(dport=443), dst="10.0.0.1"))
UDP = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(dport=53)))
SLOT, EMPTY_SLOT = 8, 40
LOAD = "from lab.packet_maps import load_one\nload_one()\n"


@pytest.fixture(scope="module")
def filtering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filtering]:
    with Filtering(tmp_path_factory.mktemp("filtering")) as loaded:
        yield loaded


def of(text: str) -> Filter:
    return compile_filter([text])


def test_each_filter_has_its_bit(filtering: Filtering) -> None:
    chosen = [(0, Selection(of("tcp,443"))), (5, Selection(of("udp"))), (31, Selection(of("host 10.0.0.1")))]
    filtering.place(SLOT, filtering.load(chosen))
    run = filtering.run(SLOT)
    assert [run(TCP), run(UDP), run(f.ethernet(f.ARP, bytes(28)))] == [1 | 1 << 31, 1 << 5, 0]


def test_all_bits_at_once(filtering: Filtering) -> None:
    filtering.place(SLOT, filtering.load([(bit, Selection(of(f"len > {bit}"))) for bit in range(32)]))
    assert filtering.run(SLOT)(TCP) == 0xFFFFFFFF


def test_a_selection_on_one_interface(filtering: Filtering) -> None:
    udp, everything = of("udp,53"), Filter("", (ALL,), (ALL,))
    chosen = [(0, Selection(udp, LOOPBACK)), (1, Selection(udp, OTHER)), (2, Selection(udp)), (3, Selection(udp))]
    chosen += [(4, Selection(everything, LOOPBACK)), (5, Selection(everything, OTHER))]
    filtering.place(SLOT, filtering.load(chosen))
    run = filtering.run(SLOT)  # a test run is on the loopback
    assert [run(UDP), run(TCP)] == [0b011101, 0b010000]


def test_the_same_program_is_evaluated_once() -> None:
    def size(chosen: list[tuple[int, Selection]]) -> int:
        return len(FilterProgram(chosen, LINK_ETHERNET, COPY_SLOTS[0], 0, 0).code())

    text = "host 10.0.0.1 and (tcp port 443 or tcp port 80)"
    one = size([(0, Selection(of(text)))])
    assert size([(0, Selection(of(text))), (1, Selection(of(text)))]) == one
    many = size([(bit, Selection(of(text), bit)) for bit in range(32)])
    assert many < 4 * one


def test_nothing_to_select(filtering: Filtering) -> None:
    nothing = [(0, Selection(Filter("nothing", (NONE,), (NONE,)))), (1, Selection(Filter("no such link", (), ())))]
    for chosen in ([], nothing[1:], nothing):
        for link in (LINK_ETHERNET, LINK_IP):
            filtering.place(SLOT, filtering.load(chosen, link))
            assert filtering.run(SLOT)(TCP) == 0


def test_a_list_selects_what_any_selects_short_packets_too(filtering: Filtering) -> None:
    # Joined to one classic program, the first load behind the end of the packet would end it.
    runt = f.ethernet(f.IPV4, bytes(1))
    texts = ["tcp,443", "len < 30", "udp,53"]
    filtering.place(SLOT, filtering.load([(0, Selection(compile_filter(texts))), (1, Selection(of("udp,53")))]))
    run = filtering.run(SLOT)
    assert [run(frame) for frame in (TCP, UDP, runt, f.ethernet(f.ARP, bytes(28)))] == [1, 3, 1, 0]


def test_the_mask_is_in_the_map_and_the_copier_may_be_missing(filtering: Filtering) -> None:
    filtering.place(SLOT, filtering.load([(7, Selection(of("tcp")))], copy_slot=EMPTY_SLOT))
    with on_cpu(0):
        assert filtering.run(SLOT)(TCP) == 0  # it returned NEXT
    value = get(filtering.map_fd("packet_matches"), np.uint32(0), 8 * 1024)
    assert value is not None
    assert int.from_bytes(value[:4], "little") == 1 << 7
    assert NEXT == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("copy_slot", "verdicts"), [(COPY_SLOTS[0], 0b01), (COPY_SLOTS[1], 0b10), (COPY_SLOTS[2], 0b01)]
)
def test_direction(filtering: Filtering, copy_slot: int, verdicts: int) -> None:
    chosen = [(0, Selection(of("inbound and tcp"))), (1, Selection(of("tcp and outbound")))]
    filtering.place(SLOT, filtering.load(chosen, copy_slot=copy_slot))
    assert filtering.run(SLOT)(TCP) == verdicts


def test_memory_and_registers_are_0_at_first(filtering: Filtering) -> None:
    load, end = Instruction(c.LD | c.MEM, 0, 0, 3), Instruction(c.RET_A, 0, 0, 0)
    full = (Instruction(c.LD | c.IMM, 0, 0, 9), Instruction(c.ST, 0, 0, 3), Instruction(c.MISC, 0, 0, 0), load, end)
    programs = [full, (load, end), (end,), (Instruction(c.TXA, 0, 0, 0), end), full]
    filtering.place(SLOT, filtering.load(selections([[program] for program in programs])))
    assert filtering.run(SLOT)(TCP) == 0b10001


def test_a_filter_with_jumps_that_are_too_long_for_one_instruction(filtering: Filtering) -> None:
    rng = random.Random(3)
    steps: list[Instruction] = [Instruction(c.LDX | c.B | c.MSH, 0, 0, 14)]
    while len(steps) < 3900:
        steps.append(Instruction(c.LD | rng.choice((c.B, c.H)) | c.IND, 0, 0, rng.randrange(6)))
        steps.append(Instruction(c.JMP | c.JEQ, 1, 0, rng.randrange(0xFFFF)))
        steps.append(Instruction(c.JMP | c.JA, 0, 0, 1))
        steps.append(Instruction(c.RET_K, 0, 0, rng.randrange(2)))
    program = (*steps, *ALL)
    assert c.problem(program) == ""
    chosen = selections([[program]])
    fd = filtering.load(chosen)
    instructions = len(FilterProgram(chosen, LINK_ETHERNET, COPY_SLOTS[0], 0, 0).code()) // 8
    assert instructions > 2 * 32768
    filtering.place(SLOT, fd)
    frames = packets.frames(300, 5)
    for tag in ((0, 0), (f.Q, 100)):
        whole = [packets.put_back(frame, *tag) for frame in frames] if tag[0] else frames
        run = filtering.run(SLOT, *tag)
        assert [run(frame) for frame in frames] == masks([[program]], whole)


def test_what_is_too_large_is_said(filtering: Filtering) -> None:
    loads = [Instruction(c.LD | c.W | c.IND, 0, 0, 1)] * 4000
    chosen = [
        (bit, Selection(Filter(f"filter {bit}", ((*loads, *[Instruction(c.MISC, 0, 0, 0)] * bit, *ALL),), ())))
        for bit in range(32)
    ]
    with pytest.raises(CaptureError) as caught:
        filtering.load(chosen)
    said = str(caught.value)
    assert said.startswith(
        "program packet_filter for Ethernet packets, ingress, of 32 filters: too large for the kernel"
    )
    assert said.endswith(
        'the largest filter is "filter 31"; shorten it, for instance by prefixes in place of single addresses, or use '
        "fewer filters at a time"
    )
    assert "\n" not in said


def loaded_by(lab: Lab, capabilities: tuple[str, ...]) -> tuple[int, str]:
    root = Path(__file__).parents[2]
    argv = unprivileged([sys.executable, "-c", LOAD], [root], capabilities)
    done = lab.run(lab.namespace(), argv, check=False)
    return done.returncode, done.stdout + done.stderr


def test_three_capabilities_are_enough(lab: Lab) -> None:
    assert loaded_by(lab, CAPABILITIES) == (0, "loaded, and the simple form\n")


@pytest.mark.parametrize("missing", ["perfmon", "net_admin"])
def test_a_capability_that_is_missing_is_said(lab: Lab, missing: str) -> None:
    if missing == "perfmon" and "mitigations=off" in Path("/proc/cmdline").read_text(encoding="ascii"):
        pytest.skip("without mitigations newer kernels ask nobody for CAP_PERFMON")
    status, said = loaded_by(lab, tuple(name for name in CAPABILITIES if name != missing))
    assert status == 1
    assert said.startswith(
        "program packet_filter for Ethernet packets, ingress, of 1 filter: the kernel refused it: "
        f"not permitted: CAP_{missing.upper()} is missing"
    )
    assert said.count("\n") == 1


def test_without_libpcap_the_simple_form_works(lab: Lab, tmp_path: Path) -> None:
    script = "\n".join([*hidden(tmp_path, "libpcap"), 'exec "$@"'])
    code = "from tests.filters.refusals import refusal\nprint(refusal(['host 10.0.0.1']))\n" + LOAD
    done = lab.run(lab.namespace(), ["sh", "-euc", script, "sh", sys.executable, "-c", code])
    assert done.stdout.splitlines() == [
        'filter "host 10.0.0.1": the language of pcap-filter(7) needs libpcap, which is not installed '
        "(libpcap.so.0.8 or libpcap.so.1); install the package libpcap0.8 (Debian, Ubuntu) or libpcap (Fedora, EL), "
        "or use the form tcp,80, which works without it",
        "loaded, and the simple form",
    ]
