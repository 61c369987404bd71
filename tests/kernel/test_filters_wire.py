"""Filters on real interfaces: packets that the kernel has in pieces, and VLAN tags that it took out of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lab import frames as f
from lab.namespaces import Lab, in_namespace
from lab.wire import wait_for
from netobs.kernel.attach import attach, has_tcx, method_for
from netobs.kernel.interfaces import Interface
from netobs.pcap.tap.layout import COPY_SLOTS
from tests.filters import packets
from tests.filters.expressions import EXPRESSIONS
from tests.filters.fuzz import random_program
from tests.filters.oracle import compiled, masks
from tests.kernel.filtering import Filtering, selections
from tests.kernel.ring_sender import RingSender
from tests.kernel.test_filters import batches

pytestmark = pytest.mark.kernel(tools=("clang", "tcpdump"))

FRAMES, FUZZED, SEED = 1000, 96, 9
LEAST_TAGGED = 20  # skb_vlan_untag drops a frame in which tag and EtherType are not complete
FIRST = 0
ARPHRD_ETHER = 1


@pytest.fixture
def filtering(tmp_path: Path) -> Iterator[Filtering]:
    with Filtering(tmp_path, "keep") as loaded:
        yield loaded


def arriving() -> list[bytes]:
    """Frames that reach the hook: a third of them tagged, as far as the kernel lets them in."""
    made = []
    for frame in packets.frames(FRAMES, SEED):
        tagged = int.from_bytes(frame[12:14], "big") in (f.Q, f.AD)
        made.append(frame.ljust(LEAST_TAGGED, b"\0") if tagged else frame)
    return made


@pytest.mark.parametrize(("direction", "copy_slot"), [("ingress", COPY_SLOTS[0]), ("egress", COPY_SLOTS[1])])
def test_verdicts_on_packets_in_pieces(
    lab: Lab, filtering: Filtering, report: list[str], direction: str, copy_slot: int
) -> None:
    source, target = lab.pair(names=("source", "target"), mtu=9100)
    link = target if direction == "ingress" else source
    frames, rng = arriving(), random.Random(SEED)
    linear = [rng.randint(packets.LEAST, min(len(frame), 80)) for frame in frames]
    # Random programs read in every order: by the helper around a tag too, once a pointer did not do.
    programs = [[compiled(expression)] for expression in EXPRESSIONS] + [[random_program(rng)] for _ in range(FUZZED)]
    selected = 0
    watch = filtering.program_fd("watch")
    with in_namespace(link.ns), RingSender(source) as sender:
        method = method_for("auto", lambda: has_tcx(watch))
        attachment = attach(Interface(link.ifindex, link.name, ARPHRD_ETHER), direction, watch, method)
        for batch in batches(programs):
            filtering.place(FIRST, filtering.load(selections(batch), copy_slot=copy_slot))
            filtering.start_again()
            for frame, length in zip(frames, linear):
                sender.send(frame, length)
            wait_for(lambda: filtering.counted() >= len(frames), f"{len(frames)} packets")
            seen, expected = filtering.seen(), masks(batch, frames)
            assert (seen["length"] + 4 * (seen["vlan"] != 0)).tolist() == [len(frame) for frame in frames]
            assert np.flatnonzero(seen["filters"] != np.array(expected)).tolist() == []
            selected += sum(bin(mask).count("1") for mask in expected)
        attachment.detach()
    in_pieces, beside = int((seen["linear"] < seen["length"]).sum()), int((seen["vlan"] != 0).sum())
    report.append(
        f"{len(EXPRESSIONS)} expressions, {FUZZED} random programs x {len(frames)} frames on a veth, {direction}: "
        f"the same verdicts; {in_pieces} in pieces, {beside} with a tag beside; {selected} verdicts select"
    )
    assert in_pieces > FRAMES // 2
    assert (beside > FRAMES // 8) == (direction == "ingress")
    assert selected > FRAMES * len(EXPRESSIONS) // 20
