"""Interfaces by name, glob and /regex/, and what becomes of them while the daemon runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.collectors import Nfcapd, UdpSink
from lab.daemon import KEPT, Daemon, configuration, netobs
from lab.namespaces import Lab, LabError
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.collector.decode import Decoder

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump"))


def attached(log: str) -> list[str]:
    """The interfaces that the daemon says it has attached to, in order."""
    return re.findall(r" (\S+): attached by ", log)


def ports(collector: Nfcapd) -> dict[int, tuple[int, int]]:
    """Destination port, which tells the test's traffic apart, to interface index and packets."""
    return {flow["dst_port"]: (flow["input_snmp"], flow["in_packets"]) for flow in collector.flows()}


def test_an_interface_that_comes_later_and_comes_back(lab: Lab, tmp_path: Path, as_user: bool) -> None:
    near, far = lab.namespace("a"), lab.namespace("b")
    lab.veth(near, far)
    config = configuration({"interfaces": ["veth0", "late0"]}, KEPT)
    with Nfcapd(lab, far, tmp_path) as collector:
        with Daemon(lab, far, tmp_path, config, as_user=as_user) as daemon:
            assert attached(daemon.log) == ["veth0"]
            indices = []
            for number, port in ((1, 1001), (2, 1002)):
                sender, late = lab.veth(near, far, names=("sender", "late0"))
                wait_for_count(daemon, "late0: attached", number)
                indices.append(late.ifindex)
                Traffic(packets=10, dst_port=port).send(lab, sender)
                lab.run(far, ["ip", "link", "delete", "late0"])
                wait_for_count(daemon, "late0: gone", number)
            account = daemon.finish()
        assert ports(collector) == {1001: (indices[0], 10), 1002: (indices[1], 10)}
    assert account.is_balanced()


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_packets_keep_the_name_of_an_interface_whose_index_is_used_again(lab: Lab, tmp_path: Path, attach: str) -> None:
    """They wait in the kernel and in the flow cache, and the two interfaces have flows with the same key."""
    near, far = lab.namespace("a"), lab.namespace("b")
    config = configuration(
        {"interfaces": ["tap*"], "attach": attach, "eviction_interval": "1h"}, KEPT, [{"template": "full"}]
    )
    with UdpSink(far) as collector, Daemon(lab, far, tmp_path, config) as daemon:
        sent, index = {"tap1": 10, "tap2": 20, "tap3": 30}, "77"
        for number, (name, packets) in enumerate(sent.items(), start=1):
            argv = ["ip", "link", "add", name, "index", index, "type", "veth", "peer", "name", "sender", "netns", near]
            lab.run(far, argv)
            for ns, each in ((near, "sender"), (far, name)):
                lab.run(ns, ["ip", "link", "set", each, "up"])
            wait_for_count(daemon, f"{name}: attached", 1)
            Traffic(packets=packets).send(lab, lab.link(near, "sender"))
            wait_until(
                lambda: daemon.account().seen.packets >= sum(list(sent.values())[:number]),  # noqa: B023
                "they are counted",
            )
            lab.run(far, ["ip", "link", "delete", name])
            wait_for_count(daemon, f"{name}: gone", 1)
        assert daemon.finish().is_balanced()
        decoder = Decoder()
        flows = [flow for message in collector.drain() for flow in decoder.decode(message).flows]
    assert [(flow["ingressInterface"], flow["interfaceName"], flow["packetDeltaCount"]) for flow in flows] == [
        (int(index), name, packets) for name, packets in sent.items()
    ]


def tap_pairs(lab: Lab, ns: str, count: int) -> None:
    """Interfaces tap0, peer0 and so on."""
    for number in range(count):
        lab.veth(ns, ns, names=(f"tap{number}", f"peer{number}"))


def limited(soft: int, hard: int) -> tuple[str, ...]:
    return ("prlimit", f"--nofile={soft}:{hard}")


def test_where_file_descriptors_are_short_what_is_attached_is_measured(lab: Lab, tmp_path: Path) -> None:
    """Before its last descriptor is gone it stops attaching: an eviction needs some, and so does the export."""
    near, far = lab.pair()
    tap_pairs(lab, far.ns, 12)
    config = configuration({"interfaces": ["veth0", "tap*", "peer*"], "attach": "tcx", "eviction_interval": "200ms"})
    words = r"([^\n]+): not measured: each interface and direction takes a file descriptor, this process may have 70 "
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, config, prefix=limited(40, 70)) as daemon:
        Traffic(packets=100).send(lab, near)
        wait_until(lambda: daemon.account().seen.packets == 100, "they are counted")
        (short,) = re.findall(words, daemon.log)
        assert re.search(r"\d+ (taps|peers)", short)
        before = set(attached(daemon.log))
        for name in sorted(before - {"veth0"})[:4]:  # one end, and with it the other
            lab.run(far.ns, ["ip", "link", "delete", name], check=False)
        wait_until(lambda: bool(set(attached(daemon.log)) - before), "others take their place")
        account = daemon.finish()
    assert "eviction failed" not in daemon.log
    assert account.is_balanced()
    assert account.sent["127.0.0.1"].packets == 100


def test_the_limit_for_file_descriptors_is_raised_as_far_as_may_be(lab: Lab, tmp_path: Path) -> None:
    far = lab.pair()[1]
    tap_pairs(lab, far.ns, 12)
    config = configuration({"interfaces": ["tap*", "peer*"], "attach": "tcx"})
    with Daemon(lab, far.ns, tmp_path, config, prefix=limited(40, 4096)) as daemon:
        assert len(attached(daemon.log)) == 24
        assert "netobs ready: measuring 12 peers and 12 taps, exporting" in daemon.log
        assert daemon.finish().is_balanced()
    done = netobs(lab, far.ns, "--conf", str(daemon.conf), "--dry-run", prefix=limited(70, 70))
    assert "file descriptors: 48 for the interfaces, of 70\n" in done.stdout
    assert "warning: some interfaces would not be measured: each interface and direction takes" in done.stdout


def wait_for_count(daemon: Daemon, text: str, count: int) -> None:
    wait_until(lambda: daemon.log.count(text) >= count, f"{text!r} {count} times in the log")


def test_globs_expressions_and_exclusions(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    for pair in (("tap1", "tap22"), ("tapx", "eth0"), ("eth1", "my-eth0"), ("bond0", "bond1")):
        lab.veth(ns, ns, names=pair)
    config = configuration({"interfaces": ["/^tap[0-9]+$/", "eth?", "bond1"], "exclude": ["tap2*", "bond*"]})
    with Daemon(lab, ns, tmp_path, config) as daemon:
        # A name that is written out counts, whatever is excluded.
        assert sorted(attached(daemon.log)) == ["bond1", "eth0", "eth1", "tap1"]
        lab.veth(ns, ns, names=("tap3", "tap23"))
        daemon.wait_for("tap3: attached")
        assert daemon.finish().is_balanced()
    assert "tap23" not in daemon.log


def test_the_loopback_is_left_out_unless_it_is_named(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration({"interfaces": ["*"]})) as daemon:
        assert attached(daemon.log) == ["veth0"]
        daemon.finish()


def test_an_interface_that_gets_another_name(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair(names=("veth0", "tap1"))
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, configuration({"interfaces": ["tap*", "new*"]}, KEPT)) as daemon:
            for port, name, said in (
                (1001, "new1", ""),
                (1002, "other", "no longer selected"),
                (1003, "tap2", "tap2:"),
            ):
                lab.run(far.ns, ["ip", "link", "set", "dev", daemon_name(lab, far.ns), "down", "name", name, "up"])
                daemon.wait_for(said)
                Traffic(packets=10, dst_port=port).send(lab, near)
            account = daemon.finish()
        assert ports(collector) == {1001: (far.ifindex, 10), 1003: (far.ifindex, 10)}
    assert account.is_balanced()


def daemon_name(lab: Lab, ns: str) -> str:
    """The present name of the only interface of ``ns`` besides the loopback."""
    (name,) = [entry["ifname"] for entry in lab.links(ns) if entry["ifname"] != "lo"]
    return str(name)


def test_an_interface_that_moves_away(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    elsewhere = lab.namespace("c")
    with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT)) as daemon:
        Traffic(packets=10).send(lab, near)
        lab.run(far.ns, ["ip", "link", "set", "veth0", "netns", elsewhere])
        daemon.wait_for("veth0: gone")
        lab.run(elsewhere, ["ip", "link", "set", "veth0", "up"])
        Traffic(packets=5).send(lab, near)
        account = daemon.finish()
    assert account.is_balanced()
    assert account.seen.packets == 10


def test_a_pattern_waits_for_its_first_interface(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.namespace("a"), lab.namespace("b")
    with Daemon(lab, far, tmp_path, configuration({"interfaces": ["tap*"]})) as daemon:
        assert "nothing matches tap* now: waiting for such an interface to appear" in daemon.log
        assert "netobs ready: measuring no interface yet" in daemon.log
        sender, _ = lab.veth(near, far, names=("", "tap0"))
        daemon.wait_for("tap0: attached")
        Traffic(packets=10).send(lab, sender)
        assert daemon.finish().seen.packets == 10


def test_a_name_that_is_not_there_is_a_mistake(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    daemon = Daemon(lab, far.ns, tmp_path, configuration({"interfaces": ["eth9"]}))
    with (
        pytest.raises(LabError, match=r"(?s)ended at once with 75: .*nothing matches eth9.*the host has lo, veth0"),
        daemon,
    ):
        pass
