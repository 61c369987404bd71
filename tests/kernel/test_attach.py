"""Attaching beside others: everybody keeps seeing each packet, and stays when we go."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import frames as f
from lab.namespaces import Lab, Link, in_namespace
from lab.prog_run import Programs, kernel_id
from lab.wire import Sender, exchange, measured, wait_for
from netobs.base.errors import CaptureError
from netobs.kernel.attach import BPF_F_BEFORE, TC_HANDLE, method_for
from tests.kernel.foreign import HANDLE, Foreign, filters, handles, ours, qdiscs, tcx_programs

pytestmark = pytest.mark.kernel(tools=("clang", "tc"))

FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp()))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def link(lab: Lab) -> Link:
    """The receiving end of a pair, see ``send``."""
    return lab.pair(names=("source", "target"))[1]


@pytest.fixture
def sender(lab: Lab, link: Link) -> Iterator[Sender]:
    other = next(ns for ns in _namespaces(lab) if ns != link.ns)
    with Sender(lab.link(other, "source")) as opened:
        yield opened


def _namespaces(lab: Lab) -> list[str]:
    return lab.leftovers()


def count(programs: Programs, sender: Sender, frames: int = 3) -> int:
    """Sends packets; how many are in records."""
    return int(exchange(programs, sender, [FRAME] * frames).records["packets"].sum())


def restore(programs: Programs) -> None:
    """As the daemon does it every few seconds."""
    programs.capture.points.restore()
    assert not programs.capture.points.work()


@pytest.mark.parametrize("method", ["tcx", "tc"])
def test_attach_and_detach_leave_the_interface_as_it_was(lab: Lab, link: Link, sender: Sender, method: str) -> None:
    before = qdiscs(lab, link)
    with measured(link, attach=method) as programs:
        assert programs.capture.points.method == method
        assert [interface.name for interface in programs.capture.points.attached] == ["target"]
        assert count(programs, sender) == 3
        assert ("clsact" in qdiscs(lab, link)) == (method == "tc")
        assert ours(lab, link) == (2 if method == "tc" else 0)
        programs.capture.points.detach()
        assert programs.capture.points.attached == []
        sender.send(FRAME)
        assert ours(lab, link) == 0
        assert programs.capture.points.attach() == 1  # once more, as after a change of the configuration
        assert count(programs, sender) == 3
    assert qdiscs(lab, link) == before
    assert filters(lab, link, "ingress") == filters(lab, link, "egress") == []


def test_flows_can_be_taken_out_after_detaching(link: Link, sender: Sender) -> None:
    with measured(link) as programs:
        sender.send(*[FRAME] * 5)
        wait_for(lambda: programs.ledger().seen.packets == 5, "5 packets")
        programs.capture.points.detach()
        assert programs.evict()["packets"].tolist() == [5]


@pytest.mark.parametrize("method", ["tcx", "tc"])
@pytest.mark.parametrize(("direction", "points"), [("ingress", ["ingress"]), ("egress", ["egress"])])
def test_one_direction_only(lab: Lab, link: Link, method: str, direction: str, points: list[str]) -> None:
    with measured(link, attach=method, direction=direction) as programs:
        assert [a.direction for a in programs.capture.points._attachments[link.ifindex]] == points
        if method == "tc":
            assert [way for way in ("ingress", "egress") if handles(lab, link, way)] == points


def test_foreign_tcx_programs_in_front_and_behind_see_each_packet(
    link: Link, sender: Sender, foreign_object: Path
) -> None:
    with Foreign(foreign_object) as before, Foreign(foreign_object) as front, Foreign(foreign_object) as behind:
        before.attach_tcx(link, "ingress")
        with measured(link, attach="tcx", direction="ingress") as programs:
            mine = kernel_id(programs.program_fd("netobs_ingress"))
            assert tcx_programs(link, "ingress") == [mine, before.program_id()]  # we see what others drop
            front.attach_tcx(link, "ingress", flags=BPF_F_BEFORE)
            behind.attach_tcx(link, "ingress")
            order = [front.program_id(), mine, before.program_id(), behind.program_id()]
            assert tcx_programs(link, "ingress") == order
            assert count(programs, sender) == 3
            wait_for(lambda: [p.counted for p in (before, front, behind)] == [3] * 3, "3 packets at each program")
        assert tcx_programs(link, "ingress") == [number for number in order if number != mine]
        sender.send(FRAME)
        wait_for(lambda: [p.counted for p in (before, front, behind)] == [4] * 3, "4 packets at each program")


def test_packets_that_a_foreign_tcx_program_drops_are_seen(link: Link, sender: Sender, foreign: Foreign) -> None:
    foreign.attach_tcx(link, "ingress", "foreign_drop")
    with measured(link, attach="tcx") as programs:
        assert count(programs, sender) == 3
        wait_for(lambda: foreign.dropped == 3, "3 dropped packets")


@pytest.mark.parametrize("priority", [1, 2, 50_000])
def test_foreign_filters_see_each_packet_and_stay(
    lab: Lab, link: Link, sender: Sender, foreign: Foreign, priority: int
) -> None:
    for direction in ("ingress", "egress"):
        foreign.attach_tc(link, direction, priority)
    with measured(link, attach="tc") as programs:
        assert sorted(handles(lab, link, "ingress")) == [HANDLE, TC_HANDLE]
        assert count(programs, sender) == 3
        wait_for(lambda: foreign.counted == 3, "3 packets at the foreign filter")
    assert handles(lab, link, "ingress") == handles(lab, link, "egress") == [HANDLE]
    assert "clsact" in qdiscs(lab, link)
    sender.send(FRAME)
    wait_for(lambda: foreign.counted == 4, "a packet more at the foreign filter")


def test_foreign_filter_that_comes_later_keeps_the_qdisc(
    lab: Lab, link: Link, sender: Sender, foreign: Foreign
) -> None:
    with measured(link, attach="tc"):
        foreign.attach_tc(link, "egress", 7)
    assert handles(lab, link, "egress") == [HANDLE]
    assert "clsact" in qdiscs(lab, link)


def test_packets_that_a_foreign_filter_drops_are_seen(link: Link, sender: Sender, foreign: Foreign) -> None:
    foreign.attach_tc(link, "ingress", 2, "foreign_drop")
    with measured(link, attach="tc") as programs:
        assert count(programs, sender) == 3
        wait_for(lambda: foreign.dropped == 3, "3 dropped packets")


def test_last_among_the_links_it_sees_only_what_others_let_through(
    link: Link, sender: Sender, foreign_object: Path
) -> None:
    with Foreign(foreign_object) as counting, Foreign(foreign_object) as dropping:
        counting.attach_tcx(link, "ingress")
        with measured(link, attach="tcx", anchor="last", direction="ingress") as programs:
            mine = kernel_id(programs.program_fd("netobs_ingress"))
            assert tcx_programs(link, "ingress") == [counting.program_id(), mine]
            assert count(programs, sender) == 3
            dropping.attach_tcx(link, "ingress", "foreign_drop", flags=BPF_F_BEFORE)
            sender.send(FRAME, FRAME)
            wait_for(lambda: dropping.dropped == 2, "2 dropped packets")
            assert programs.ledger().seen.packets == 3


@pytest.mark.parametrize("priority", [1, 50_000])
def test_last_among_the_filters_it_sees_only_what_others_let_through(
    lab: Lab, link: Link, sender: Sender, foreign: Foreign, priority: int
) -> None:
    foreign.attach_tc(link, "ingress", priority, "foreign_drop")
    with measured(link, attach="tc", anchor="last") as programs:
        assert handles(lab, link, "ingress") == [HANDLE, TC_HANDLE]
        sender.send(FRAME, FRAME)
        wait_for(lambda: foreign.dropped == 2, "2 dropped packets")
        assert programs.ledger().seen.packets == 0
    assert handles(lab, link, "ingress") == [HANDLE]


def test_last_stays_behind_a_filter_that_comes_later_and_leaves_its_place_to_the_kernel(
    lab: Lab, link: Link, sender: Sender, foreign: Foreign
) -> None:
    with measured(link, attach="tc", anchor="last") as programs:
        foreign.attach_tc(link, "ingress", 0, "foreign_drop")
        sender.send(FRAME)
        wait_for(lambda: foreign.dropped == 1, "a dropped packet")
        assert programs.ledger().seen.packets == 0


def test_empty_qdisc_of_others_stays(lab: Lab, link: Link) -> None:
    lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "clsact"])
    with measured(link, attach="tc"):
        assert ours(lab, link) == 2
    assert "clsact" in qdiscs(lab, link)
    assert ours(lab, link) == 0


@pytest.mark.parametrize("protocol", ["all", "ip"])
def test_filter_of_another_kind_with_our_priority(lab: Lab, link: Link, sender: Sender, protocol: str) -> None:
    """A priority belongs to one kind of filter and one protocol: ours takes the next that it can have."""
    tc = ["tc", "filter", "add", "dev", link.name, "ingress", "protocol", protocol, "prio", "1"]
    lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "clsact"])
    lab.run(link.ns, [*tc, "u32", "match", "u32", "0xffffffff", "0xffffffff", "flowid", "1:1"])
    foreign = filters(lab, link, "ingress")
    with measured(link, attach="tc") as programs:
        assert count(programs, sender) == 3
        assert ours(lab, link) == 2
    assert filters(lab, link, "ingress") == foreign
    assert ours(lab, link) == 0


PREDECESSOR = """
import os, signal, sys
from lab.wire import measured
from lab.namespaces import Link
with measured(Link(sys.argv[1], sys.argv[2], 0, ""), attach=sys.argv[3]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _killed_predecessor(link: Link, method: str) -> None:
    argv = [sys.executable, "-c", PREDECESSOR, link.ns, link.name, method]
    assert subprocess.run(argv, cwd=ROOT, timeout=60, check=False).returncode == -signal.SIGKILL


def test_filter_of_a_killed_predecessor_is_replaced(lab: Lab, link: Link, sender: Sender, foreign: Foreign) -> None:
    _killed_predecessor(link, "tc")
    assert ours(lab, link) == 2
    foreign.attach_tc(link, "ingress", 3)
    with measured(link, attach="tc") as programs:
        assert ours(lab, link) == 2
        assert count(programs, sender) == 3
    assert ours(lab, link) == 0
    assert handles(lab, link, "ingress") == [HANDLE]


def test_link_of_a_killed_predecessor_is_gone(link: Link, sender: Sender) -> None:
    _killed_predecessor(link, "tcx")
    wait_for(lambda: tcx_programs(link, "ingress") + tcx_programs(link, "egress") == [], "the links to go")
    with measured(link, attach="tcx") as programs:
        assert count(programs, sender) == 3
        assert tcx_programs(link, "egress") == [kernel_id(programs.program_fd("netobs_egress"))]


def test_successor_that_has_replaced_our_filter_keeps_it(lab: Lab, link: Link, sender: Sender) -> None:
    with measured(link, attach="tc") as successor, measured(link, attach="tc") as programs:
        assert ours(lab, link) == 2
        assert count(programs, sender) == 3
        successor.capture.points.detach()
        assert ours(lab, link) == 2
        assert count(programs, sender) == 3
    assert ours(lab, link) == 0


def test_interface_that_has_gone_is_no_error(lab: Lab, link: Link, caplog: pytest.LogCaptureFixture) -> None:
    with in_namespace(link.ns), Programs(max_flows=64, interfaces=("target",)) as programs:
        (interface,) = programs.capture.points.wanted()
        lab.run(link.ns, ["ip", "link", "delete", "target"])
        programs.capture.points.attach_to(interface)
        assert programs.capture.points.attached == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_tcx_that_is_asked_for_and_missing() -> None:
    assert method_for("auto", lambda: False) == "tc"
    assert method_for("tc", lambda: True) == "tc"
    with pytest.raises(CaptureError, match=re.escape(f"kernel {os.uname().release} has no TCX")):
        method_for("tcx", lambda: False)


def test_an_ingress_qdisc_has_no_egress(lab: Lab, link: Link, sender: Sender, caplog: pytest.LogCaptureFixture) -> None:
    """As Open vSwitch makes one for policing: what comes in is measured, and is not taken for what goes out."""
    lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "ingress"])
    with measured(link, attach="tc") as programs:
        records = exchange(programs, sender, [FRAME] * 3).records
        assert (records["packets"].tolist(), records["direction"].tolist()) == ([3], [0])
        assert "target: not measured: target egress: the ingress qdisc there" in caplog.text
        restore(programs)
        assert caplog.text.count("not measured") == 1
    assert "ingress" in qdiscs(lab, link)
    assert filters(lab, link, "ingress") == []


@pytest.mark.parametrize("what", ["qdisc", "filters"])
def test_what_somebody_removed_is_attached_again(
    lab: Lab, link: Link, sender: Sender, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    remove = {
        "qdisc": ["qdisc", "del", "dev", link.name, "clsact"],
        "filters": ["filter", "del", "dev", link.name, "ingress"],
    }
    with measured(link, attach="tc") as programs:
        restore(programs)
        assert "removed" not in caplog.text
        lab.run(link.ns, ["tc", *remove[what]])
        sender.send(FRAME)
        restore(programs)
        gone = ["ingress", "egress"] if what == "qdisc" else ["ingress"]
        for direction in gone:
            assert f"target: {direction} was not measured for a while: somebody removed the filter" in caplog.text
        assert ours(lab, link) == 2
        assert count(programs, sender) == 3
    assert ours(lab, link) == 0


def test_attaching_ends_when_it_is_told_to(lab: Lab, link: Link) -> None:
    lab.veth(link.ns, link.ns, names=("other0", "other1"))
    with in_namespace(link.ns), Programs(max_flows=1024, interfaces=("other*", link.name)) as programs:
        assert programs.capture.points.attach(lambda: len(programs.capture.points.attached) == 2) == 2
        assert programs.capture.points.attach() == 3


def test_what_libbpf_says_of_a_qdisc_that_is_there_is_not_news(
    lab: Lab, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "netobs.libbpf")
    lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "clsact"])
    with measured(link, attach="tc"):
        said = [record for record in caplog.records if "Exclusivity flag on" in record.getMessage()]
    assert {record.levelno for record in said} == {logging.DEBUG}


def detach_by_bpftool(link: int) -> None:
    subprocess.run(["bpftool", "link", "detach", "id", str(link)], check=True, timeout=60)


def tcx_links(programs: Programs, direction: str) -> list[int]:
    """The kernel's numbers of our links, from proc(5)."""
    program = kernel_id(programs.program_fd(f"netobs_{direction}"))
    texts = [path.read_text(encoding="ascii") for path in Path("/proc/self/fdinfo").iterdir() if path.exists()]
    mine = [text for text in texts if "link_id:" in text and re.search(rf"^prog_id:\s+{program}$", text, re.MULTILINE)]
    return [int(number) for text in mine for number in re.findall(r"^link_id:\s+(\d+)$", text, re.MULTILINE)]


@pytest.mark.kernel(tools=("bpftool",))
def test_a_link_that_somebody_detached_is_made_again(
    link: Link, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    with measured(link, attach="tcx") as programs:
        open_files = len(os.listdir("/proc/self/fd"))
        restore(programs)
        assert "removed" not in caplog.text
        (number,) = tcx_links(programs, "ingress")
        detach_by_bpftool(number)
        sender.send(FRAME)
        restore(programs)
        assert caplog.text.count("target: ingress was not measured for a while: somebody removed the link") == 1
        assert "egress was not" not in caplog.text
        assert count(programs, sender) == 3
        restore(programs)
        assert caplog.text.count("somebody removed") == 1
        assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_program_that_somebody_put_into_our_link_is_replaced(
    link: Link, sender: Sender, foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    with measured(link, attach="tcx") as programs:
        (number,) = tcx_links(programs, "ingress")
        foreign.take_over(number)
        sender.send(FRAME)
        wait_for(lambda: foreign.counted == 1, "the other program runs")
        restore(programs)
        assert "target: ingress was not measured for a while: somebody removed the link" in caplog.text
        assert count(programs, sender) == 3


def test_an_interface_that_goes_is_not_taken_for_a_link_that_somebody_removed(
    lab: Lab, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    with measured(link, attach="tcx") as programs:
        lab.run(link.ns, ["ip", "link", "delete", link.name])
        restore(programs)
        assert programs.capture.points.attached == []
    assert "somebody" not in caplog.text


def test_a_qdisc_that_somebody_put_in_the_place_of_ours_stays(lab: Lab, link: Link, sender: Sender) -> None:
    with measured(link, attach="tc") as programs:
        lab.run(link.ns, ["tc", "qdisc", "del", "dev", link.name, "clsact"])
        lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "ingress"])
        restore(programs)
        assert count(programs, sender) == 3
    assert "ingress" in qdiscs(lab, link)
    assert ours(lab, link) == 0
