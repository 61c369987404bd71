"""Interfaces that come, go and change their names while the programs run."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyroute2
import pytest

from lab import frames as f
from lab.namespaces import Lab, in_namespace
from lab.prog_run import Programs
from lab.wire import Sender, Tun, exchange
from netobs.kernel import netlink
from netobs.kernel.interfaces import MAC_OCTETS, LinkMonitor

pytestmark = pytest.mark.kernel

FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp()))


@contextlib.contextmanager
def following(ns: str, **config: Any) -> Iterator[Programs]:
    """Programs on the interfaces of ``ns``; the test stays in that namespace."""
    with in_namespace(ns), Programs(max_flows=256, **config) as programs:
        programs.capture.points.attach()
        yield programs


def settle(programs: Programs) -> list[str]:
    """Handles all events that have arrived; the names of the interfaces that are measured then."""
    while select.select([programs.capture.points.links], [], [], 0)[0]:
        programs.capture.points.follow_links()
        assert not programs.capture.points.work()
    return sorted(interface.name for interface in programs.capture.points.attached)


@pytest.fixture(params=["tcx", "tc"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_interface_that_appears_is_measured_and_forgotten_when_it_goes(lab: Lab, method: str) -> None:
    ns, far = lab.namespace("near"), lab.namespace("far")
    with following(ns, interfaces=("tap*",), attach=method) as programs:
        assert settle(programs) == []
        _, other = lab.veth(ns, far, names=("tap1", "far1"))
        assert settle(programs) == ["tap1"]
        with Sender(other) as sender:
            assert exchange(programs, sender, [FRAME]).records["packets"].tolist() == [1]
        index = programs.capture.points.attached[0].index
        lab.run(ns, ["ip", "link", "delete", "tap1"])
        assert settle(programs) == []
        assert index not in programs.capture.points.names


def test_only_selected_interfaces_are_measured(lab: Lab) -> None:
    ns = lab.namespace()
    lab.veth(ns, ns, names=("eth0", "eth1"))
    lab.veth(ns, ns, names=("vlan7", "lan9"))
    with following(ns, interfaces=("eth*", "/lan[0-9]/"), exclude=("eth1",)) as programs:
        assert settle(programs) == ["eth0", "lan9", "vlan7"]


def test_renamed_interface(lab: Lab, method: str) -> None:
    ns, far = lab.namespace("near"), lab.namespace("far")
    _, other = lab.veth(ns, far, names=("tap1", "far1"))
    with following(ns, interfaces=("tap*",), attach=method) as programs, Sender(other) as sender:

        def rename(old: str, new: str) -> list[str]:
            for argv in (["down"], ["name", new]):
                lab.run(ns, ["ip", "link", "set", old, *argv])
            lab.run(ns, ["ip", "link", "set", new, "up"])
            return settle(programs)

        assert rename("tap1", "tap2") == ["tap2"]
        assert exchange(programs, sender, [FRAME]).records["packets"].tolist() == [1]
        assert rename("tap2", "other") == []
        before = programs.ledger().seen
        sender.send(FRAME)
        assert rename("other", "tap3") == ["tap3"]
        assert programs.ledger().seen == before
        assert exchange(programs, sender, [FRAME]).records["packets"].tolist() == [1]


def test_interface_that_moves_to_another_namespace_is_forgotten(lab: Lab, method: str) -> None:
    ns, far = lab.namespace("near"), lab.namespace("far")
    lab.veth(ns, ns, names=("tap1", "tap2"))
    with following(ns, interfaces=("tap*",), attach=method) as programs:
        assert settle(programs) == ["tap1", "tap2"]
        lab.run(ns, ["ip", "link", "set", "tap2", "netns", far])
        assert settle(programs) == ["tap1"]


def test_tun_that_appears_is_measured_without_ethernet(lab: Lab, method: str) -> None:
    ns = lab.namespace()
    with following(ns, interfaces=("tun*",), attach=method) as programs, Tun(lab, ns, "tun0") as tun:
        assert settle(programs) == ["tun0"]
        (interface,) = programs.capture.points.attached
        assert (interface.has_ethernet, interface.kind) == (False, "tun")
        observed = exchange(programs, tun, [f.ipv4(f.UDP, f.udp()), f.ipv6(f.UDP, f.udp())])
        assert sorted(observed.records["octets"].tolist()) == [28, 48]


def test_interface_of_another_link_type_is_left_out(lab: Lab) -> None:
    ns = lab.namespace()
    with following(ns, interfaces=("can*",)) as programs, Tun(lab, ns, "can0") as tun:
        assert settle(programs) == ["can0"]
        programs.capture.points.detach()
        lab.run(ns, ["ip", "link", "set", "can0", "down"])
        tun.set_link_type(280)  # ARPHRD_CAN
        lab.run(ns, ["ip", "link", "set", "can0", "up"])
        assert settle(programs) == []


def test_kind_alias_and_address_are_known(lab: Lab) -> None:
    ns = lab.namespace()
    lab.veth(ns, ns, names=("tap1", "tap2"))
    lab.run(ns, ["ip", "link", "set", "tap1", "alias", "guest 7, eth0"])
    with in_namespace(ns), contextlib.closing(LinkMonitor()) as links:
        known = {interface.name: interface for interface in links.interfaces()}
    assert (known["tap1"].kind, known["tap1"].alias, known["tap1"].arphrd) == ("veth", "guest 7, eth0", 1)
    assert (known["lo"].kind, known["lo"].alias, known["lo"].arphrd) == ("", "", 772)
    assert known["tap1"].mac == bytes.fromhex(lab.link(ns, "tap1").mac.replace(":", ""))
    assert known["lo"].mac == bytes(6)


def test_links_of_many_kinds_are_read_as_pyroute2_reads_them(lab: Lab) -> None:
    ns = lab.namespace()
    lab.veth(ns, ns, names=("tap1", "tap2"))
    for words in (
        "link add name br0 type bridge",
        "link set tap1 master br0",
        "link add name vx0 type vxlan id 9 dstport 4789 local 192.0.2.1",
        "link set vx0 alias storage",
        "tuntap add tun0 mode tun",
    ):
        lab.run(ns, ["ip", *words.split()])
    with in_namespace(ns), contextlib.closing(LinkMonitor()) as links, pyroute2.IPRoute() as other:
        ours = {(each.index, each.name, each.arphrd, each.kind, each.alias, each.mac) for each in links.interfaces()}
        theirs = {_as_pyroute2_reads(message) for message in other.get_links()}
    assert ours == theirs
    assert {kind for _, _, _, kind, _, _ in ours} == {"", "veth", "bridge", "vxlan", "tun"}


def _as_pyroute2_reads(message: Any) -> tuple[object, ...]:
    info = message.get_attr("IFLA_LINKINFO")
    kind, alias = info.get_attr("IFLA_INFO_KIND") if info else "", message.get_attr("IFLA_IFALIAS") or ""
    mac = bytes.fromhex(str(message.get_attr("IFLA_ADDRESS") or "").replace(":", "").replace(".", ""))
    name = message.get_attr("IFLA_IFNAME")
    return message["index"], name, message["ifi_type"], kind, alias, mac if len(mac) == MAC_OCTETS else b""


@pytest.fixture
def deaf(lab: Lab) -> Iterator[tuple[str, Programs]]:
    """Programs whose netlink socket takes few events only."""
    ns = lab.namespace()
    lab.veth(ns, ns, names=("noise0", "noise1"))
    with following(ns, interfaces=("tap*",)) as programs:
        settle(programs)
        shrink(programs)
        yield ns, programs


def shrink(programs: Programs) -> None:
    programs.capture.points.links._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)


def _noise(lab: Lab, ns: str) -> None:
    """More link events than the queue holds."""
    for number in range(20):
        lab.run(ns, ["ip", "link", "set", "noise0", "alias", f"{number}" * 100])


def test_lost_events_are_made_up_for(lab: Lab, deaf: tuple[str, Programs], caplog: pytest.LogCaptureFixture) -> None:
    ns, programs = deaf
    lab.veth(ns, ns, names=("tap1", "tap2"))
    settle(programs)
    _noise(lab, ns)
    lab.veth(ns, ns, names=("tap3", "tap4"))
    lab.run(ns, ["ip", "link", "delete", "tap1"])
    assert settle(programs) == ["tap3", "tap4"]
    assert "rtnetlink lost events" in caplog.text


def test_events_from_before_a_loss_do_not_come_after_it(lab: Lab, deaf: tuple[str, Programs]) -> None:
    """The event that tap1 is there is queued, the one that it has got another name is lost."""
    ns, programs = deaf
    lab.veth(ns, ns, names=("tap1", "other1"))
    _noise(lab, ns)
    lab.run(ns, ["ip", "link", "set", "tap1", "down"])
    lab.run(ns, ["ip", "link", "set", "tap1", "name", "renamed"])
    assert settle(programs) == []


def recreate(lab: Lab, ns: str, name: str, new: str, peer: str) -> None:
    """Another interface, ``new``, with the index that ``name`` had."""
    index = lab.link(ns, name).ifindex
    lab.run(ns, ["ip", "link", "delete", name])
    lab.run(ns, ["ip", "link", "add", new, "index", str(index), "type", "veth", "peer", "name", peer])
    for each in (new, peer):
        lab.run(ns, ["ip", "link", "set", each, "up"])
    assert lab.link(ns, new).ifindex == index


@pytest.mark.parametrize("new", ["tap1", "tap9"])
def test_an_index_that_is_used_again_while_events_are_lost(lab: Lab, method: str, new: str) -> None:
    ns = lab.namespace()
    lab.veth(ns, ns, names=("noise0", "noise1"))
    lab.veth(ns, ns, names=("tap1", "other1"))
    with following(ns, interfaces=("tap*",), attach=method) as programs:
        assert settle(programs) == ["tap1"]
        shrink(programs)
        _noise(lab, ns)
        recreate(lab, ns, "tap1", new, "other1")
        assert settle(programs) == [new]
        with Sender(lab.link(ns, "other1")) as sender:
            assert exchange(programs, sender, [FRAME]).records["packets"].tolist() == [1]


def test_the_queue_of_events_is_larger_than_the_system_lets_anybody_have(lab: Lab) -> None:
    """A host brings up hundreds of taps at once."""
    with in_namespace(lab.namespace()), contextlib.closing(LinkMonitor()) as links:
        granted = links._events.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert granted == 2 * netlink.QUEUE_BYTES  # the kernel doubles it for its own use


def test_a_name_that_is_not_utf8_is_text_too(lab: Lab) -> None:
    """The kernel takes any octets but white space, "/" and ":"."""
    ns = lab.namespace()
    lab.run(ns, ["ip", "link", "add", "tap\udcff", "type", "veth", "peer", "name", "other"])
    lab.run(ns, ["ip", "link", "set", "tap\udcff", "alias", "up\udce4link"])
    with following(ns, interfaces=("tap*",)) as programs:
        assert settle(programs) == ["tap\ufffd"]
        table = programs.capture.points.interface_names.table()
    assert (table.names.tolist(), table.aliases.tolist()) == (
        ["tap\ufffd".encode(), b""],
        ["up\ufffdlink".encode(), b""],
    )


def test_names_are_known_when_the_interface_is_gone_or_has_another(lab: Lab) -> None:
    ns = lab.namespace()
    lab.veth(ns, ns, names=("tap1", "eth0"))
    lab.veth(ns, ns, names=("tap2", "eth1"))
    with following(ns, interfaces=("tap*",)) as programs:
        indices = {interface.name: interface.index for interface in programs.capture.points.attached}
        lab.run(ns, ["ip", "link", "delete", "tap1"])
        lab.run(ns, ["ip", "link", "set", "tap2", "down"])
        lab.run(ns, ["ip", "link", "set", "tap2", "name", "tap3", "alias", "guest"])
        lab.run(ns, ["ip", "link", "set", "tap3", "up"])  # the kernel announces no alias of one that is down
        assert settle(programs) == ["tap3"]
        table = programs.capture.points.interface_names.table()
    wanted = np.array([indices["tap1"], indices["tap2"]], dtype=np.uint32)
    at = table.positions(np.zeros(2, dtype=np.uint16), wanted)
    assert (table.names[at].tolist(), table.aliases[at].tolist()) == ([b"tap1", b"tap3"], [b"", b"guest"])
