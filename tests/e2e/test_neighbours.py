"""Other programs on the same hooks go on working: what they drop is dropped, and what they pass is passed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lab.collectors import Nfcapd, UdpSink
from lab.daemon import KEPT, Daemon, bpf_objects, configuration, traffic_control
from lab.namespaces import Lab, Link, command, in_namespace
from lab.programs import wait_until
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("nfcapd", "nfdump", "tc", "bpftool"))

ACTIONS = {"pass": 0, "drop": 2}  # TC_ACT_OK, TC_ACT_SHOT


def foreign_filter(lab: Lab, link: Link, priority: int, action: str) -> None:
    """A direct-action filter of somebody else's."""
    program = ["bpf", "da", "bytecode", f"1,6 0 0 {ACTIONS[action]}"]
    where = ["dev", link.name, "ingress", "prio", str(priority), "protocol", "ip"]
    lab.run(link.ns, ["tc", "filter", "add", *where, *program])


@pytest.mark.parametrize("attach", ["tcx", "tc"])
@pytest.mark.parametrize(("priority", "action"), [(1, "drop"), (5, "drop"), (5, "pass")])
def test_foreign_filter(lab: Lab, tmp_path: Path, attach: str, priority: int, action: str) -> None:
    near, far = lab.pair()
    lab.address(near, "192.0.2.1/24")
    lab.address(far, "192.0.2.2/24")
    lab.run(near.ns, ["ip", "neighbour", "add", "192.0.2.2", "lladdr", far.mac, "dev", near.name])
    lab.run(far.ns, ["tc", "qdisc", "add", "dev", far.name, "clsact"])
    foreign_filter(lab, far, priority, action)
    before = traffic_control(lab, far.ns)
    with Nfcapd(lab, far.ns, tmp_path) as collector, UdpSink(far.ns, 5000, "192.0.2.2") as receiver:
        with Daemon(lab, far.ns, tmp_path, configuration({"attach": attach}, KEPT)) as daemon:
            with in_namespace(near.ns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(100):
                    sender.sendto(b"x", ("192.0.2.2", 5000))
            daemon.finish()
        arrived = len(receiver.drain())
        counted = [flow["in_packets"] for flow in collector.flows() if flow["dst_port"] == 5000]
    assert arrived == (100 if action == "pass" else 0)
    # A filter of the same hook that drops in front of us is the only thing that keeps a packet from being measured.
    in_front = attach == "tc" and priority == 1 and action == "drop"
    assert counted == ([] if in_front else [100])
    assert traffic_control(lab, far.ns) == before


def test_a_link_that_somebody_detaches_comes_back(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration({"attach": "tcx"}, KEPT)) as daemon:
        for kind, number in bpf_objects(daemon.process):
            if kind == "link":
                command(["bpftool", "link", "detach", "id", str(number)])
        for direction in ("ingress", "egress"):
            daemon.wait_for(f"veth0: {direction} was not measured for a while: somebody removed the link")
        wait_until(lambda: daemon.log.count("veth0: attached by tcx") == 2, "it is attached again")
        Traffic(packets=10).send(lab, near)
        assert daemon.finish().seen.packets == 10


def test_a_filter_that_somebody_removes_comes_back(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration({"attach": "tc"}, KEPT)) as daemon:
        lab.run(far.ns, ["tc", "qdisc", "del", "dev", far.name, "clsact"])
        daemon.wait_for("veth0: egress was not measured for a while: somebody removed the filter")
        wait_until(lambda: daemon.log.count("veth0: attached by tc") == 2, "it is attached again")
        Traffic(packets=10).send(lab, near)
        assert daemon.finish().seen.packets == 10
