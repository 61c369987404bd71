"""Interfaces by the hundred: the daemon works on while it attaches to them, and while it detaches."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import EXIT_WITHIN_S, KEPT, Daemon, configuration, read_account, traffic_control
from lab.frames import ethernet, ipv4, udp
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.taps import delete_taps, make_taps, running_taps
from lab.traffic import Traffic
from netobs.collector.decode import Decoder
from tests.e2e.test_service import AT_ONCE, OFTEN, Manager
from tests.e2e.test_shutdown import StartingDaemon, arrived

pytestmark = pytest.mark.e2e(tools=("make", "bpftool", "tc"))

SLOW = "tcx"
"""The kernel waits for two grace periods at each interface."""
SILENCE_MS = 250


def longest_silence_ms(log: str) -> int:
    return int(re.findall(r"loop: longest silence (\d+) ms", log)[-1])


def test_a_long_start_measures_tells_and_ends_in_order(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    make_taps(far.ns, (f"tap{number}" for number in range(250)))
    before = traffic_control(lab, far.ns)
    manager = Manager(tmp_path)
    config = configuration({**OFTEN, "interfaces": ["veth0", "tap*"], "attach": SLOW}, AT_ONCE)
    with (
        contextlib.closing(manager.socket),
        UdpSink(far.ns) as sink,
        StartingDaemon(lab, far.ns, tmp_path, config, environment=manager.environment) as daemon,
    ):
        daemon.wait_for("veth0: attached")
        Traffic(packets=1000).send(lab, near)
        heard = [manager.hear()]
        while heard[-1] not in ("READY=1", "EXTEND_TIMEOUT_USEC=20000000"):
            heard.append(manager.hear())
        assert heard[-1] != "READY=1"
        assert any(re.fullmatch(r"STATUS=attaching: \d+ of 25\d interfaces", said) for said in heard)
        assert daemon.account().seen.packets == 1000
        daemon.process.send_signal(signal.SIGTERM)
        heard += manager.hear_until("STOPPING=1")
        assert daemon.process.wait(EXIT_WITHIN_S) == 0
        assert arrived(sink)[1] == 1000
    assert "READY=1" not in heard
    assert "netobs ready" not in daemon.log
    assert "Traceback" not in daemon.log
    assert read_account(daemon.log).is_balanced()
    assert traffic_control(lab, far.ns) == before


@pytest.mark.parametrize(("attach", "count"), [("tcx", 40), ("tc", 200)])
def test_a_reload_that_changes_hundreds_of_interfaces_keeps_nobody_waiting(
    lab: Lab, tmp_path: Path, attach: str, count: int
) -> None:
    near, far = lab.pair()
    make_taps(far.ns, (f"tap{number}" for number in range(count)))
    capture = {**OFTEN, "attach": attach}
    with UdpSink(far.ns) as sink, Daemon(lab, far.ns, tmp_path, configuration(capture, AT_ONCE)) as daemon:
        began = time.monotonic()
        said = daemon.reload(configuration({**capture, "interfaces": ["veth0", "tap*"]}, AT_ONCE))
        assert f"reload: done: measuring veth0 and {count} taps" in said
        Traffic(packets=1000).send(lab, near)
        said = daemon.reload(configuration({**capture, "direction": "ingress"}, AT_ONCE))
        took_ms = (time.monotonic() - began) * 1000
        assert said.count("detached, no longer selected") == count
        assert daemon.finish().is_balanced()
        assert arrived(sink)[1] == 1000
    assert longest_silence_ms(daemon.log) < max(SILENCE_MS, took_ms / 4)  # a machine that is busy is late everywhere


def test_interfaces_that_come_and_go_meanwhile(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    config = configuration({**OFTEN, "interfaces": ["veth0", "tap*"], "attach": "tc"}, KEPT)
    with UdpSink(far.ns), Daemon(lab, far.ns, tmp_path, config) as daemon:
        began = time.monotonic()
        for turn in range(3):
            make_taps(far.ns, (f"tap{turn}-{number}" for number in range(50)))
            Traffic(packets=100).send(lab, near)
            delete_taps(far.ns, (f"tap{turn}-{number}" for number in range(turn, 50)))
        stay = [f"tap{turn}-{number}" for turn in range(3) for number in range(turn)]
        wait_until(lambda: all(f"{name}: attached" in daemon.log for name in stay), "those that stay are measured")
        assert all("netobs_ingress" in traffic_control(lab, far.ns, name) for name in stay)
        took_ms = (time.monotonic() - began) * 1000
        account = daemon.finish()
    assert account.seen.packets == 300
    assert account.is_balanced()
    assert "was not measured" not in daemon.log
    assert not any("netobs" in traffic_control(lab, far.ns, name) for name in stay)
    assert longest_silence_ms(daemon.log) < max(SILENCE_MS, took_ms / 4)


@pytest.mark.parametrize("attach", ["tc", "tcx"])
def test_hundreds_that_take_over_names_and_indices_keep_their_own_flows(lab: Lab, tmp_path: Path, attach: str) -> None:
    """All within one interval: in each generation every index has another name, and the flows of all have one key."""
    ns, count, first = lab.namespace(), 50 if attach == "tc" else 12, 1000
    capture = {"interfaces": ["tap*"], "attach": attach, "direction": "ingress", "eviction_interval": "1h"}
    config = configuration(capture, KEPT, [{"template": "full"}])
    frame = ethernet(0x0800, ipv4(17, udp()))
    sent = set[tuple[int, str, int]]()
    with UdpSink(ns) as collector, Daemon(lab, ns, tmp_path, config) as daemon:
        for turn in range(3):
            taps = {first + number: f"tap{(number + turn) % count}" for number in range(count)}
            with running_taps(ns, taps) as fds:
                wait_until(lambda: daemon.log.count(": attached by ") == len(sent) + count, "all are attached")
                for number, (index, fd) in enumerate(fds.items(), start=1 + turn * count):
                    sent.add((index, taps[index], number))
                    for _ in range(number):
                        os.write(fd, frame)
        wait_until(lambda: daemon.log.count(": gone") == len(sent), "all are gone")
        account = daemon.finish()
        decoder = Decoder()
        flows = [flow for message in collector.drain() for flow in decoder.decode(message).flows]
    assert account.is_balanced()
    assert len(flows) == len(sent) == 3 * count
    assert {(flow["ingressInterface"], flow["interfaceName"], flow["packetDeltaCount"]) for flow in flows} == sent
