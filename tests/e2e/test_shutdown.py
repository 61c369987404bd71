"""The end of the daemon: everything that was measured is sent, and nothing of it stays in the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import Nfcapd, UdpSink
from lab.daemon import (
    AS_USER,
    EXIT_WITHIN_S,
    KEPT,
    Daemon,
    alive,
    bpf_objects,
    configuration,
    read_account,
    traffic_control,
)
from lab.namespaces import Lab, stop
from lab.prog_run import Hammer
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.collector.decode import Decoder
from tests.e2e.test_outage import TcpCollector
from tests.kernel.foreign import Foreign, compile_foreign

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump", "bpftool", "tc"))

PLAN = Traffic(flows=50_000, packets=150_000)
OCTETS = PLAN.packets * 50
FOREIGN_FILTER = ["prio", "9", "protocol", "all", "bpf", "da", "bytecode", "1,6 0 0 0"]


class StartingDaemon(Daemon):
    """One that is not waited for."""

    def _ready(self, process: subprocess.Popen[Any], condition: Callable[[], bool]) -> None:
        pass


def arrived(collector: UdpSink) -> tuple[int, int, int]:
    """Flows, packets and octets that came."""
    decoder = Decoder()
    flows = [flow for message in collector.drain() for flow in decoder.decode(message).flows]
    assert (decoder.stats.lost_records, decoder.stats.sets_without_template) == (0, 0)
    return len(flows), sum(flow["packetDeltaCount"] for flow in flows), sum(flow["octetDeltaCount"] for flow in flows)


@pytest.mark.parametrize(
    ("attach", "number", "as_user"),
    [
        ("tcx", signal.SIGTERM, AS_USER),
        ("tcx", signal.SIGINT, AS_USER),
        ("tc", signal.SIGTERM, AS_USER),
        ("tcx", signal.SIGTERM, True),
        ("tc", signal.SIGTERM, True),
    ],
    ids=["tcx SIGTERM", "tcx SIGINT", "tc SIGTERM", "tcx unprivileged", "tc unprivileged"],
)
def test_what_the_kernel_holds_is_sent_and_nothing_stays(
    lab: Lab, tmp_path: Path, attach: str, number: signal.Signals, as_user: bool
) -> None:
    near, far = lab.pair()
    before = traffic_control(lab, far.ns)
    config = configuration({"attach": attach, "eviction_interval": "1h"}, KEPT)
    # A collector whose socket holds it all: what this test is about is not how fast one reads.
    with UdpSink(far.ns) as collector, Daemon(lab, far.ns, tmp_path, config, as_user=as_user) as daemon:
        objects = bpf_objects(daemon.process)
        assert {kind for kind, _ in objects} == {"prog", "map", *(["link"] if attach == "tcx" else [])}
        assert alive(objects) == objects
        assert ("netobs_ingress" in traffic_control(lab, far.ns)) == (attach == "tc")
        PLAN.send(lab, near)
        assert daemon.stop(number) == 0
        flows = arrived(collector)
    account = read_account(daemon.log)
    assert account.seen.measured == (PLAN.packets, OCTETS)
    assert account.is_balanced()
    assert flows == (PLAN.flows, PLAN.packets, OCTETS)
    wait_until(lambda: not alive(objects), "the kernel frees programs and maps")
    assert traffic_control(lab, far.ns) == before


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_nothing_is_detached_before_the_last_flows_are_sent(lab: Lab, tmp_path: Path, attach: str) -> None:
    """Detaching from hundreds of interfaces takes as long as a service manager waits before it kills."""
    near, far = lab.pair()
    config = configuration({"attach": attach, "eviction_interval": "1h"}, KEPT, [{"transport": "tcp"}])
    with TcpCollector(far.ns, receive_bytes=2048) as collector, Daemon(lab, far.ns, tmp_path, config) as daemon:
        collector.accept()  # and read nothing: a window of this size holds a part of the last flows
        Traffic(flows=2000, packets=4000).send(lab, near)
        objects, attached = bpf_objects(daemon.process), traffic_control(lab, far.ns)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("counting has ended")
        Traffic(packets=100).send(lab, near)  # too late
        assert alive(objects) == objects
        assert traffic_control(lab, far.ns) == attached
        wait_until(collector.read, "the daemon ends its session")
        assert daemon.process.wait(EXIT_WITHIN_S) == 0
        assert collector.packets() == 4000
    account = read_account(daemon.log)
    assert account.seen.packets == 4000
    assert account.is_balanced()
    assert account.not_sent == {}
    wait_until(lambda: not alive(objects), "the kernel frees programs and maps")


def test_a_signal_while_it_attaches_ends_it_as_later(lab: Lab, tmp_path: Path) -> None:
    far = lab.pair()[1]
    for number in range(10):
        lab.veth(far.ns, far.ns, names=(f"tap{number}", f"peer{number}"))
    before = traffic_control(lab, far.ns)
    config = configuration({"interfaces": ["veth0", "tap*", "peer*"], "attach": "tc", "eviction_interval": "1h"}, KEPT)
    with UdpSink(far.ns) as collector, StartingDaemon(lab, far.ns, tmp_path, config) as daemon:
        daemon.wait_for("veth0: attached")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(EXIT_WITHIN_S) == 0
        assert arrived(collector) == (0, 0, 0)
    assert read_account(daemon.log).is_balanced()
    assert traffic_control(lab, far.ns) == before


def test_others_keep_their_qdisc_and_filter(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    lab.run(far.ns, ["tc", "qdisc", "add", "dev", far.name, "clsact"])
    lab.run(far.ns, ["tc", "filter", "add", "dev", far.name, "ingress", *FOREIGN_FILTER])
    before = traffic_control(lab, far.ns)
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, configuration({"attach": "tc"}, KEPT)) as daemon:
            Traffic(packets=1000).send(lab, near)
            assert daemon.finish().is_balanced()
        assert collector.summary().packets == 1000
    assert traffic_control(lab, far.ns) == before


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_after_a_kill_the_next_one_counts_each_packet_once(lab: Lab, tmp_path: Path, attach: str) -> None:
    near, far = lab.pair()
    before = traffic_control(lab, far.ns)
    config = configuration({"attach": attach}, KEPT)
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, config, "killed") as daemon:
            stop(daemon.process, signal.SIGKILL)
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            objects = bpf_objects(daemon.process)
            Traffic(flows=100, packets=1000).send(lab, near)
            account = daemon.finish()
        summary = collector.summary()
    assert account.seen.packets == 1000
    assert account.is_balanced()
    assert (summary.flows, summary.packets) == (100, 1000)
    wait_until(lambda: not alive(objects), "the kernel frees programs and maps")
    if attach == "tcx":  # links end with their process; a qdisc that a killed daemon made looks like anybody's
        assert traffic_control(lab, far.ns) == before
    else:
        assert "netobs" not in traffic_control(lab, far.ns)


def test_a_collector_that_takes_nothing_does_not_keep_it_from_ending(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    config = configuration(metering=KEPT, collectors=[{"transport": "tcp"}])  # nobody listens
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=1000, packets=2000).send(lab, near)
        account = daemon.finish()
    assert account.seen.packets == 2000
    assert account.not_sent["127.0.0.1"]["closed"].flows == 1000
    assert account.is_balanced()


def test_a_second_signal_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT)) as daemon:
            Traffic(flows=5000).send(lab, near)
            daemon.process.send_signal(signal.SIGINT)
            assert daemon.finish().is_balanced()
        assert collector.summary().flows == 5000


@pytest.mark.e2e(tools=("clang",))
def test_tcx_links_that_others_make_meanwhile_do_not_matter(lab: Lab, tmp_path: Path) -> None:
    """To the tests here, which ask the kernel what it still has."""
    _, far = lab.pair()
    with Foreign(compile_foreign(tmp_path)) as foreign:

        def make_and_drop() -> None:
            foreign.attach_tcx(far, "ingress")
            os.close(foreign._links.pop())

        loaded = frozenset({("prog", foreign.program_id())})
        with Hammer(min(os.sched_getaffinity(0)), make_and_drop) as others:
            for _ in range(30):
                others.go_on(1)
                assert alive(loaded | {("link", 1 << 30)}) == loaded
