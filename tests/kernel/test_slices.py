"""Hundreds of interfaces: attached to and detached from in slices, while they come, go and change their names."""

from __future__ import annotations

import contextlib
import logging
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.keeping import DictKeeper
from lab.namespaces import Lab, Link, in_namespace
from lab.prog_run import Programs
from lab.taps import delete_taps, make_taps
from netobs.base import capabilities
from netobs.config.selector import InterfaceSelector
from netobs.kernel import privileges
from netobs.kernel.interfaces import Interface
from netobs.kernel.many import MANY, SWITCH, for_filters
from netobs.kernel.observation_points import ObservationPoints
from tests.kernel.foreign import Foreign, compile_foreign, ours, qdiscs, tcx_programs

pytestmark = pytest.mark.kernel(tools=("tc",))


def one_at_a_time() -> bool:
    return True


@contextlib.contextmanager
def points(ns: str, keep: bool = False, **config: Any) -> Iterator[ObservationPoints]:
    """Observation Points of ``ns``; the test stays in that namespace. ``keep``: they go on afterwards."""
    with in_namespace(ns):
        programs = Programs(max_flows=64, **{"interfaces": ("tap*",), "attach": "tc", **config})
        try:
            yield programs.capture.points
        finally:
            programs.close(keep)


def names(of: ObservationPoints) -> list[str]:
    return sorted(interface.name for interface in of.attached)


def settle(of: ObservationPoints) -> list[str]:
    """Handles what has happened, and does what is due."""
    while of.work() or select.select([of.links], [], [], 0)[0]:
        of.follow_links()
    return names(of)


def taps(count: int) -> list[str]:
    return sorted(f"tap{number}" for number in range(count))


def test_two_hundred_interfaces_slice_by_slice(lab: Lab) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(200))
    with points(ns) as of:
        of.want_all()
        assert of.due == 200
        assert of.work(one_at_a_time)
        assert (len(of.attached), of.due) == (1, 199)
        assert not of.work()
        assert names(of) == taps(200)
        of.select(InterfaceSelector(("tap1*",), ()), "ingress")
        assert of.due == 201  # all that are there: lo, too
        assert not of.work()
        assert names(of) == [name for name in taps(200) if name.startswith("tap1")]
        assert ours(lab, Link(ns, "tap1", 0, "")) == 1
        assert ours(lab, Link(ns, "tap2", 0, "")) == 0
        of.want_none()
        assert of.work(one_at_a_time)
        assert not of.work()
        assert names(of) == []
    assert "clsact" not in qdiscs(lab, Link(ns, "tap1", 0, ""))


def recreate(lab: Lab, ns: str, name: str, new: str) -> Link:
    """Another interface, ``new``, with the index that the tap ``name`` had."""
    index = lab.link(ns, name).ifindex
    delete_taps(ns, [name])
    lab.run(ns, ["ip", "link", "add", new, "index", str(index), "type", "veth", "peer", "name", f"peer-{new}"])
    return lab.link(ns, new)


def rename(lab: Lab, ns: str, name: str, new: str) -> None:
    lab.run(ns, ["ip", "link", "set", name, "name", new])


CHANGES: dict[str, tuple[Callable[[Lab, str], object], list[str]]] = {
    "deleted": (lambda lab, ns: delete_taps(ns, ["tap0", "tap2"]), ["tap1"]),
    "new": (lambda lab, ns: make_taps(ns, ["tap7"]), ["tap0", "tap1", "tap2", "tap7"]),
    "renamed, selected": (lambda lab, ns: rename(lab, ns, "tap2", "tap8"), ["tap0", "tap1", "tap8"]),
    "renamed, not selected": (lambda lab, ns: rename(lab, ns, "tap2", "other"), ["tap0", "tap1"]),
    "index used again": (lambda lab, ns: recreate(lab, ns, "tap2", "tap9"), ["tap0", "tap1", "tap9"]),
    "index used again, not selected": (lambda lab, ns: recreate(lab, ns, "tap2", "other"), ["tap0", "tap1"]),
    "index of an attached one": (lambda lab, ns: recreate(lab, ns, "tap0", "tap9"), ["tap1", "tap2", "tap9"]),
    "index of an attached one, not selected": (lambda lab, ns: recreate(lab, ns, "tap0", "other"), ["tap1", "tap2"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_two_slices(lab: Lab, change: str) -> None:
    """The first of three is attached when it happens; the others are due, and the event is read after them."""
    happens, expected = CHANGES[change]
    ns = lab.namespace()
    make_taps(ns, taps(3))
    with points(ns) as of:
        of.want_all()
        assert of.work(one_at_a_time)
        assert names(of) == ["tap0"]
        happens(lab, ns)
        assert not of.work()
        assert "other" not in names(of)
        assert settle(of) == expected
        for entry in lab.links(ns):
            name = entry["ifname"]
            assert ours(lab, Link(ns, name, 0, "")) == (2 if name in expected else 0), name


@pytest.mark.parametrize("method", ["tcx", "tc"])
def test_wanted_again_before_all_are_detached(lab: Lab, method: str) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(4))
    with points(ns, attach=method) as of:
        assert of.attach() == 4
        of.want_none()
        assert of.work(one_at_a_time)
        assert len(of.attached) == 3
        of.want_all()
        assert settle(of) == taps(4)
        of.want_none()
        delete_taps(ns, ["tap3"])
        assert not of.work()
        assert names(of) == []


def by(of: ObservationPoints, method: str) -> set[str]:
    """The names of the interfaces with programs that are attached by ``method``."""
    made = (one for each in of._attachments.values() for one in each)
    return {one.interface.name for one in made if one.method == method}


def oldest_first(lab: Lab, ns: str) -> list[str]:
    return [entry["ifname"] for entry in sorted(lab.links(ns), key=lambda entry: int(entry["ifindex"]))][1:]  # no lo


@pytest.mark.kernel(tools=("clang",))
def test_auto_makes_filters_on_many_unless_others_are_in_front(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As an unprivileged daemon does it, which has set its capabilities aside."""
    caplog.set_level(logging.INFO, "netobs.capture")
    ns = lab.namespace()
    make_taps(ns, taps(MANY + 3))
    *first, occupied, later, last = oldest_first(lab, ns)
    links = {name: lab.link(ns, name) for name in (occupied, later, last)}
    with Foreign(compile_foreign(tmp_path)) as foreign, points(ns, attach="auto", direction="ingress") as of:
        foreign.attach_tcx(links[occupied], "ingress")
        with capabilities.taken_up(0):
            privileges.set_aside()
            assert of.attach() == MANY + 3
            assert (by(of, "tcx"), by(of, "tc")) == ({*first, occupied}, {later, last})
            foreign.attach_tcx(links[later], "ingress")
            lab.run(ns, ["tc", "qdisc", "del", "dev", last, "clsact"])
            of.restore()
            assert not of.work()
            assert (by(of, "tcx"), by(of, "tc")) == ({*first, occupied, later}, {last})
            assert [len(tcx_programs(links[name], "ingress")) for name in (later, last)] == [2, 0]
            with capabilities.taken_up(capabilities.NET_ADMIN):
                make_taps(ns, ["tap-new"])
            assert "tap-new" in settle(of)
            assert by(of, "tc") == {last}  # somebody may limit its rate soon
            of.want_none()
            assert not of.work()
        assert len(tcx_programs(links[later], "ingress")) == 1
    assert caplog.text.count("a link takes the place of the filter") == 1
    assert caplog.text.count("was not measured") == 1
    assert "clsact" not in qdiscs(lab, links[last]) + qdiscs(lab, links[later])


def test_auto_leaves_the_qdiscs_to_open_vswitch(lab: Lab) -> None:
    """What the kernel says of its interface stands in for it here: an interface of that kind needs its module."""
    ns = lab.namespace()
    make_taps(ns, taps(MANY + 2))
    switch = Interface(9999, "ovs-system", 1, SWITCH)
    with points(ns, attach="auto", direction="ingress") as of:
        of.attach()
        assert len(by(of, "tc")) == 2
        of._settle(switch)
        assert not of.work()
        assert by(of, "tc") == set()
        assert for_filters([*of.attached, switch], of.attached) == set()


def test_what_was_removed_is_found_slice_by_slice(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(3))
    with points(ns, direction="ingress") as of:
        of.attach()
        for name in ("tap0", "tap2"):
            lab.run(ns, ["tc", "qdisc", "del", "dev", name, "clsact"])
        delete_taps(ns, ["tap2"])
        of.restore()
        while of.work(one_at_a_time):
            pass
        assert names(of) == ["tap0", "tap1"]
        assert ours(lab, Link(ns, "tap0", 0, "")) == 1
    assert caplog.text.count("was not measured for a while") == 1


def test_a_removed_interface_is_forgotten_though_its_event_comes_later(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(2))
    with points(ns, attach="tcx", direction="ingress") as of:
        of.attach()
        of.restore()
        delete_taps(ns, ["tap1"])
        assert not of.work()
        assert settle(of) == ["tap0"]
    assert "somebody" not in caplog.text


def test_links_that_nobody_wants_any_more_are_ended_slice_by_slice(lab: Lab) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(4))
    keeper = DictKeeper()
    with points(ns, attach="tcx", direction="ingress", keeper=keeper, keep=True) as of:
        assert of.attach() == 4
    wanted: dict[str, Any] = {"attach": "tcx", "direction": "ingress", "interfaces": ("tap0",)}
    with keeper.succeed() as keeper, points(ns, keeper=keeper, **wanted) as of:
        of.want_all()
        for left in (3, 2, 1, 0):
            assert of.work(one_at_a_time) == (left > 0)
            assert of.due == left
            here, *others = [len(tcx_programs(lab.link(ns, name), "ingress")) for name in taps(4)]
            assert (here, sum(others)) == (1, left)


def test_links_and_filters_of_auto_go_on_in_the_next_process(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(MANY + 2))
    keeper = DictKeeper()
    with points(ns, attach="auto", direction="ingress", keeper=keeper, keep=True) as of:
        assert of.attach() == MANY + 2
        filtered = by(of, "tc")
    with keeper.succeed() as keeper, points(ns, attach="auto", direction="ingress", keeper=keeper) as of:
        assert of.attach() == MANY + 2
        assert by(of, "tc") == filtered
        assert len(by(of, "tcx")) == MANY
        for name in taps(MANY + 2):
            link = Link(ns, name, 0, "")
            assert ours(lab, link) == (name in filtered), name
        of.restore()
        assert not of.work()
        assert by(of, "tc") == filtered
    assert "was not measured" not in caplog.text
    assert not any("clsact" in qdiscs(lab, Link(ns, name, 0, "")) for name in filtered)


def test_auto_moves_nothing_that_may_stay(lab: Lab) -> None:
    ns = lab.namespace()
    make_taps(ns, taps(MANY + 2))
    *first, later, last = oldest_first(lab, ns)
    with points(ns, attach="auto", direction="ingress") as of:
        assert of.attach() == MANY + 2
        of.move_to("auto", last=False)
        assert of.due == 0
        assert (by(of, "tcx"), by(of, "tc")) == ({*first}, {later, last})
        of.move_to("tcx", last=False)
        assert not of.work()
        for setting in ("auto", "tcx", "auto"):
            of.move_to(setting, last=False)
            assert not of.work()
            assert by(of, "tcx") == {*first, later, last}
