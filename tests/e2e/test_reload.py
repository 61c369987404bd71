"""Another configuration while traffic passes: what is the same goes on, and no flow is lost on the way."""

from __future__ import annotations

import functools
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from lab.cgroups import inside, memory_cgroup
from lab.collectors import UdpSink
from lab.daemon import (
    KEPT,
    BpfObjects,
    Counts,
    Daemon,
    Table,
    alive,
    bpf_objects,
    configuration,
    netobs,
    read_account,
    total,
    traffic_control,
)
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.collector.decode import Decoder

pytestmark = pytest.mark.e2e(tools=("make", "bpftool", "tc"))

OFTEN: Table = {"eviction_interval": "200ms"}
AT_ONCE: Table = {"active_timeout": "0s"}
FIRST: Table = {"name": "first"}
SECOND: Table = {"name": "second", "port": 4740}
TCP: Table = {"name": "first", "transport": "tcp"}


class Arrived:
    """What a UDP collector has got so far."""

    def __init__(self, sink: UdpSink) -> None:
        self._sink, self._decoder = sink, Decoder()
        self.packets = 0

    def read(self) -> int:
        for message, exporter in self._sink.drain_from():  # each Transport Session has a port of its own
            flows = self._decoder.decode(message, exporter).flows
            self.packets += sum(flow["packetDeltaCount"] for flow in flows)
        assert (self._decoder.stats.lost_records, self._decoder.stats.sets_without_template) == (0, 0)
        return self.packets


def cached(daemon: Daemon) -> int:
    """How many flows are in the flow cache."""
    daemon.account()
    return int(re.findall(r" flow cache: (\d+) flows", daemon.log)[-1])


def knows(daemon: Daemon, collector: str) -> bool:
    """Whether the account has such a collector by now."""
    daemon.account()
    return f" {collector}" in daemon.log


def test_a_collector_comes_and_another_goes(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns) as one, UdpSink(far.ns, 4740) as two:
        first, second = Arrived(one), Arrived(two)
        with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE, [FIRST])) as daemon:
            Traffic(flows=100, packets=1000).send(lab, near)
            wait_until(lambda: first.read() == 1000, "the first gets the flows")
            said = daemon.reload(configuration(OFTEN, AT_ONCE, [FIRST, SECOND]))
            assert "exporting to 2 collector(s)" in said
            Traffic(flows=100, packets=500).send(lab, near)
            wait_until(lambda: (first.read(), second.read()) == (1500, 500), "both get the flows")
            daemon.reload(configuration(OFTEN, AT_ONCE, [SECOND]))
            Traffic(flows=100, packets=70).send(lab, near)
            account = daemon.finish()
        assert (first.read(), second.read()) == (1500, 570)
    assert account.seen.packets == 1570
    assert {name: counts.packets for name, counts in account.sent.items()} == {"former": 1500, "second": 570}


def test_a_file_with_a_mistake_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns) as sink:
        arrived = Arrived(sink)
        with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
            before = traffic_control(lab, far.ns)
            for config, mistake in (
                (
                    configuration({"interface": ["veth0"]}),
                    '[capture] interface: unknown key; did you mean "interfaces"?',
                ),
                ("[capture", "netobs.toml: end of file: TOML syntax error"),
                (
                    configuration(collectors=[{"template": "nowhere"}]),
                    'collector "127.0.0.1": no template file "nowhere.toml"',
                ),
                (configuration({"interfaces": ["veth9"]}), "capture.interfaces: nothing matches veth9"),
            ):
                said = daemon.reload(config)
                assert mistake in said
                assert "ERROR reload: failed, the configuration stays as it was" in said
            assert traffic_control(lab, far.ns) == before
            Traffic(packets=1000).send(lab, near)
            wait_until(lambda: arrived.read() == 1000, "all goes on")
            assert daemon.finish().is_balanced()


def test_the_command_refuses_a_mistake_and_leaves_the_daemon_alone(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
        pid = str(daemon.process.pid)
        daemon.conf.write_text(configuration({"sampling": 0}), encoding="utf-8")
        refused = netobs(lab, far.ns, "--conf", str(daemon.conf), "reload", pid)
        assert refused.returncode == 1
        assert "[capture] sampling" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "reload" not in daemon.log
        daemon.conf.write_text(configuration(OFTEN, AT_ONCE, [FIRST]), encoding="utf-8")
        assert netobs(lab, far.ns, "--conf", str(daemon.conf), "reload", pid).returncode == 0
        daemon.wait_for("reload: done")
        ended = netobs(lab, far.ns, "--conf", str(daemon.conf), "reload", "4194304")
        assert (ended.returncode, ended.stderr) == (
            1,
            "netobs: process 4194304: No such process; name the process ID of the netobs daemon\n",
        )
        assert daemon.stop() == 0


def test_flows_that_wait_go_to_the_successor(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE, [TCP])) as daemon:  # nobody listens
        Traffic(flows=1000, packets=3000).send(lab, near)
        wait_until(lambda: daemon.account().waiting.get("first") == Counts(1000, 3000, 150_000), "the flows wait")
        with UdpSink(far.ns) as sink:
            arrived = Arrived(sink)
            daemon.reload(configuration(OFTEN, AT_ONCE, [FIRST]))
            wait_until(lambda: arrived.read() == 3000, "they are sent")
            assert daemon.stop() == 0
    account = read_account(daemon.log)
    assert account.not_sent == {}


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_a_change_under_traffic_loses_nothing(lab: Lab, tmp_path: Path, spool: bool) -> None:
    near, far = lab.pair()
    extra: Table = {"spool": str(tmp_path / "spool")} if spool else {}
    with (
        UdpSink(far.ns) as sink,
        Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE, [FIRST | extra])) as daemon,
    ):
        arrived = Arrived(sink)
        sender = Traffic(flows=2000, packets=60_000).start(lab, near, rate=20_000)
        for size in (1300, 1200, 1100, 1000):
            daemon.reload(configuration(OFTEN, AT_ONCE, [FIRST | extra | {"max_message_size": size}]))
        sent = sender.wait()
        account = daemon.finish()
        assert arrived.read() == sent.packets == 60_000
    assert account.seen.packets == 60_000
    assert (account.ledger, account.not_sent) == ({}, {})


def test_interfaces_and_directions_follow(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    other, wanted = lab.veth(near.ns, far.ns, names=("sender", "veth7"))
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
        Traffic(packets=100).send(lab, near)
        said = daemon.reload(configuration({**OFTEN, "interfaces": ["veth7"], "direction": "egress"}, AT_ONCE))
        assert "veth0: detached, no longer selected" in said
        assert "veth7: attached by" in said
        Traffic(packets=50).send(lab, near)
        Traffic(packets=50).send(lab, other)
        said = daemon.reload(configuration({**OFTEN, "interfaces": ["veth7"], "direction": "ingress"}, AT_ONCE))
        assert "veth7: detached, egress" in said
        Traffic(packets=7).send(lab, other)
        Traffic(packets=50).send(lab, wanted)
        account = daemon.finish()
    assert account.seen.packets == 107


def test_what_takes_effect_at_the_next_start_is_said(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN, AT_ONCE)) as daemon:
        said = daemon.reload(configuration({**OFTEN, "pin": "/nowhere"}, KEPT, log={"level": "debug"}))
        kept = re.findall(r"WARNING reload: \S+: (.*)", said)
        assert kept == ["[capture] pin takes effect at the next start: restart netobs"]
        Traffic(flows=10, packets=1000).send(lab, near)
        assert "DEBUG reload: reading" in daemon.reload(configuration(OFTEN, KEPT))
        account = daemon.finish()
    assert account.seen.packets == 1000
    assert account.ledger == {}
    assert account.is_balanced()
    assert "10 forced end" in daemon.log


def test_attach_and_anchor_take_effect_under_traffic(lab: Lab, tmp_path: Path) -> None:
    """Both directions, and 50,000 packets/s together with another table at the end."""
    near, far = lab.pair()
    outgoing = Traffic(flows=50, packets=60_000, flow_base=1000)
    ways = [("tc", "first"), ("tc", "last"), ("tcx", "first"), ("tcx", "last"), ("auto", "last"), ("auto", "first")]
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT)) as daemon:
        sending = Traffic(flows=50, packets=150_000).start(lab, near, rate=40_000)
        answering = outgoing.start(lab, far, rate=15_000)
        for attach, anchor in ways:
            more = {"max_flows": 4096} if (attach, anchor) == ways[-1] else {}
            said = daemon.reload(configuration({**OFTEN, "attach": attach, "anchor": anchor, **more}, KEPT))
            assert " WARNING " not in said
            moved = re.findall(r" veth0: (\w+): now attached by (\w+), (\w+)", said)
            method = "tc" if attach == "tc" else "tcx"
            expected = [(way, method, anchor) for way in ("egress", "ingress")] * (
                attach != "auto" or anchor == "first"
            )
            assert sorted(moved) == expected
            filters = lab.run(far.ns, ["tc", "filter", "show", "dev", "veth0", "ingress"], check=False).stdout
            assert ("netobs" in filters) == (method == "tc")
        sent, answered = sending.wait(), answering.wait()
        account = daemon.finish()
    assert account.seen.packets == sent.packets + answered.packets + answered.retries
    assert (account.transmitted().flows, account.is_balanced()) == (100, True)
    assert account.ledger == {}
    assert "clsact" not in traffic_control(lab, far.ns)


def test_an_interface_that_cannot_be_moved_is_measured_as_before(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    lab.run(far.ns, ["tc", "qdisc", "add", "dev", "veth0", "ingress"])  # as Open vSwitch does; it has no egress hook
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT)) as daemon:
        sending = Traffic(flows=50, packets=20_000).start(lab, near, rate=20_000)
        said = daemon.reload(configuration({**OFTEN, "attach": "tc"}, KEPT))
        assert " veth0: ingress: now attached by tc, first" in said
        (line,) = re.findall(r"WARNING .*", said)
        assert "veth0: egress: stays attached by tcx, first: veth0 egress: the ingress qdisc there" in line
        daemon.reload(configuration({**OFTEN, "attach": "tcx"}, KEPT))
        sent = sending.wait()
        Traffic(flows=50, packets=1000, flow_base=1000).send(lab, far)
        account = daemon.finish()
    assert account.seen.packets == sent.packets + 1000
    assert account.is_balanced()


def only_of(daemon: Daemon, objects: BpfObjects) -> bool:
    """Whether those that the kernel still has are the daemon's present ones."""
    return alive(objects) <= bpf_objects(daemon.process)


@pytest.mark.parametrize(
    "changed",
    [{"max_flows": 4096}, {"flow_table": "percpu_hash"}, {"flow_table": "ringbuf"}, {"precise_time": True}],
    ids=str,
)
def test_other_programs_take_over_without_a_loss(lab: Lab, tmp_path: Path, changed: dict[str, Any]) -> None:
    near, far = lab.pair()
    traffic = Traffic(flows=50, packets=20_000)
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT)) as daemon:
        sending = traffic.start(lab, near, rate=20_000)
        for capture in ({**OFTEN, **changed}, OFTEN):
            before = bpf_objects(daemon.process)
            assert "WARNING" not in daemon.reload(configuration(capture, KEPT))
            wait_until(functools.partial(only_of, daemon, before), "the former ones are freed")
        sent = sending.wait()
        account = daemon.finish()
    assert account.seen.packets == sent.packets
    assert (account.transmitted().flows, account.is_balanced()) == (50, True)
    assert account.ledger == {}


def test_another_sampling_takes_effect(lab: Lab, tmp_path: Path) -> None:
    """The flows so far are exported before the collector hears of it."""
    near, far = lab.pair()
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT)) as daemon:
        Traffic(flows=10, packets=1000).send(lab, near)
        wait_until(lambda: cached(daemon) == 10, "the flows are in the cache")
        daemon.reload(configuration({**OFTEN, "sampling": 1000}, KEPT))
        assert total(daemon.account().sent).measured == (1000, 50_000)
        Traffic(flows=10, packets=1000).send(lab, near)
        account = daemon.finish()
    assert account.seen.packets == 2000
    assert 900 < account.ledger["not_sampled"].packets <= 1000


def test_programs_that_cannot_be_loaded_change_nothing(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with (
        memory_cgroup(400 << 20) as folder,
        UdpSink(far.ns),
        Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT), prefix=inside(folder), as_user=False) as daemon,
    ):
        said = daemon.reload(configuration({**OFTEN, "max_flows": 4_000_000}, KEPT, collectors=[{"port": 4740}]))
        assert "ERROR reload: capture.max_flows = 4000000 needs" in said
        assert "reload: failed, the configuration stays as it was" in said
        Traffic(packets=100).send(lab, near)
        account = daemon.finish()
    assert account.seen.packets == 100
    assert account.is_balanced()


def test_other_timeouts_hold_for_flows_that_are_there(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns) as sink, Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT)) as daemon:
        arrived = Arrived(sink)
        Traffic(flows=10, packets=1000).send(lab, near)
        wait_until(lambda: cached(daemon) == 10, "the flows are in the cache")
        daemon.reload(configuration(OFTEN, {"active_timeout": "1h", "idle_timeout": "100ms"}))
        wait_until(lambda: arrived.read() == 1000, "they are exported")


def test_the_end_waits_for_a_reload(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with UdpSink(far.ns) as sink, Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT, [TCP])) as daemon:
        Traffic(flows=10, packets=1000).send(lab, near)
        daemon.conf.write_text(configuration(OFTEN, KEPT, [FIRST]), encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: knows(daemon, 'collector "first" (udp '), "the successor is there")
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.stop() == 0
        assert Arrived(sink).read() == 1000
    assert "Traceback" not in daemon.log
    account = read_account(daemon.log)
    assert account.seen.packets == total(account.sent).packets == 1000
    assert account.not_sent == {}
