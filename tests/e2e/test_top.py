"""`netobs top`: what it shows is what is exported, and nobody suffers from it."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import UdpSink
from lab.daemon import KEPT, Daemon, children, configuration, netobs
from lab.namespaces import Lab
from lab.programs import wait_until
from lab.top import Terminal, TopClient
from lab.traffic import Traffic
from netobs.base.errors import NetobsError
from netobs.cli import control_client
from netobs.collector.decode import Decoder
from netobs.config.identity import control_socket

pytestmark = pytest.mark.e2e(tools=("make", "ethtool"))

OFTEN: dict[str, Any] = {"eviction_interval": "100ms"}


def live_process(daemon: Daemon) -> int:
    """The process of the live table; 0 if there is none."""
    for pid in children(daemon.process.pid):
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "netobs-live":
            return pid
    return 0


@pytest.mark.parametrize("table", ["percpu_array", "percpu_hash", "ringbuf"])
def test_what_it_counts_is_what_is_exported_flow_by_flow(lab: Lab, tmp_path: Path, table: str) -> None:
    """Through some twenty evictions."""
    near, far = lab.pair()
    plan = Traffic(flows=300, packets=30_000, order="random", size=(60, 1000))
    config = configuration({**OFTEN, "flow_table": table}, KEPT)
    with UdpSink(far.ns) as sink:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            with TopClient(daemon, rows=1000) as client:
                client.until(lambda frame: frame["ok"])
                plan.send(lab, near, rate=15_000)
                last = client.until(lambda frame: frame["totals"]["packets"] == plan.packets)
            daemon.finish()
        decoder = Decoder()
        exported = [flow for message in sink.drain() for flow in decoder.decode(message).flows]
    counts = {
        (flow["sourceIPv4Address"], flow["sourceTransportPort"]): (flow["packetDeltaCount"], flow["octetDeltaCount"])
        for flow in exported
    }
    assert len(exported) == len(counts) == plan.flows
    assert {(row["src"], row["sport"]): (row["packets"], row["octets"]) for row in last["rows"]} == counts
    assert {(row["if"], row["dir"], row["proto"], row["dport"]) for row in last["rows"]} == {
        ("veth0", "ingress", "UDP", 9)
    }
    totals = [frame["totals"]["packets"] for frame in client.frames]
    assert totals == sorted(totals)  # no look has missed, or counted twice, what was just taken out
    assert ("ringbuf" in (last["incomplete"] or "")) == (table == "ringbuf")
    assert max(frame["totals"]["new_flows_per_s"] or 0 for frame in client.frames) > 0


@pytest.mark.parametrize("drop", [False, True], ids=["root", "without capabilities"])
def test_it_runs_from_the_first_client_to_the_last(lab: Lab, tmp_path: Path, drop: bool) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration({**OFTEN, "drop_capabilities": drop})) as daemon:
        assert not live_process(daemon)
        assert "netobs/live" not in Path(f"/proc/{daemon.process.pid}/maps").read_text(encoding="utf-8")
        with TopClient(daemon, by=["proto"]) as one, TopClient(daemon, by=["if", "dir"]) as other:
            one.until(lambda frame: frame["interval_s"])
            other.until(lambda frame: frame["interval_s"])
            pid = live_process(daemon)
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            assert f"CapPrm:\t{0:016x}" in status
            assert f"CapEff:\t{0:016x}" in status
            Traffic(flows=10, packets=100).send(lab, near)
            assert [row["proto"] for row in one.until(lambda frame: frame["groups"])["rows"]] == ["UDP"]
            rows = other.until(lambda frame: frame["groups"])["rows"]
            assert [(row["if"], row["dir"], row["packets"]) for row in rows] == [("veth0", "ingress", 100)]
        wait_until(lambda: not live_process(daemon), "the process of the live table ends")
        with TopClient(daemon) as again:
            again.until(lambda frame: frame["interval_s"])
        account = daemon.finish()
    assert account.seen.packets == 100
    assert "Traceback" not in daemon.log


def test_a_wrong_question_is_answered_and_the_next_one_too(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration()) as daemon, TopClient(daemon, filter="hots 1") as client:
        assert "did you mean host?" in client.until(lambda frame: not frame["ok"])["error"]
        client.until(lambda frame: frame["ok"] and frame["filter"] == "")
        client.ask(by=["prto"])
        assert "did you mean proto?" in client.until(lambda frame: not frame["ok"])["error"]
        client.ask(by=["proto"], filter="tcp")
        assert client.until(lambda frame: frame["ok"] and frame["by"] == ["proto"])["filter"] == "tcp"


def test_more_clients_than_there_is_place_for_are_told(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration()) as daemon:
        clients = [TopClient(daemon) for _ in range(9)]
        for client in clients[:8]:
            client.until(lambda frame: frame["ok"])
        assert "8 times, which is the most" in clients[8].until(lambda frame: not frame["ok"])["error"]
        for client in clients:
            client.__exit__(None, None, None)
        wait_until(lambda: not live_process(daemon), "the process of the live table ends")


def test_a_client_that_does_not_read_holds_nobody_up(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN)) as daemon:
        sock = control_client.connect(control_socket(daemon.conf))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.sendall(control_client.request("top", rows=1000))
        with sock, TopClient(daemon, rows=1000) as reader:
            reader.until(lambda frame: frame["ok"])
            Traffic(flows=2000, packets=4000).send(lab, near)
            for _ in range(30):  # each answer is more than the other's socket has room for
                sock.sendall(b'{"sort": "packets"}\n')
                reader.ask(sort="packets")
                assert reader.until(lambda frame: frame["ok"])
            assert reader.until(lambda frame: frame["totals"]["packets"] == 4000)
        daemon.finish()


def test_when_its_process_dies_clients_are_told_and_metering_goes_on(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN)) as daemon:
        with TopClient(daemon) as client:
            client.until(lambda frame: frame["ok"])
            os.kill(live_process(daemon), signal.SIGKILL)
            with pytest.raises(NetobsError, match="has ended"):
                client.until(lambda frame: False)
        daemon.wait_for("netobs top: its process was ended by SIGKILL")
        Traffic(flows=10, packets=1000).send(lab, near)
        with TopClient(daemon) as client:
            client.until(lambda frame: frame["ok"])
        account = daemon.finish()
    assert account.seen.packets == 1000
    assert account.is_balanced()


def test_a_process_that_hangs_costs_the_daemon_nothing(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN)) as daemon:
        with TopClient(daemon) as client:
            client.until(lambda frame: frame["ok"])
            pid = live_process(daemon)
            os.kill(pid, signal.SIGSTOP)
            Traffic(flows=20_000, packets=200_000).send(lab, near, rate=100_000)
            files = [os.readlink(entry) for entry in Path(f"/proc/{daemon.process.pid}/fd").iterdir()]
            assert not [file for file in files if "netobs-live" in file]
            os.kill(pid, signal.SIGCONT)
            client.until(lambda frame: frame["totals"]["packets"] == 200_000 or frame["incomplete"])
        account = daemon.finish()
    assert account.seen.packets == 200_000
    assert account.is_balanced()


def test_other_maps_after_a_reload(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(OFTEN)) as daemon, TopClient(daemon, by=[]) as client:
        client.until(lambda frame: frame["ok"])
        Traffic(flows=10, packets=100).send(lab, near)
        client.until(lambda frame: frame["totals"]["packets"] == 100)
        assert "reload: done" in daemon.reload(configuration({**OFTEN, "flow_table": "percpu_hash"}))
        Traffic(flows=10, packets=50).send(lab, near)
        client.until(lambda frame: frame["totals"]["packets"] == 150)
        daemon.finish()


def test_once_and_json(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration()) as daemon:
        sending = Traffic(flows=3, packets=100_000).start(lab, near, rate=2000)
        conf = ("--conf", str(daemon.conf), "top")
        text = netobs(lab, far.ns, *conf, "--once", "--by", "src,dport", "--filter", "udp").stdout
        assert "198.18.0.1" in text
        assert "filter: udp" in text
        assert "packets lost: 0 before a flow" in text
        lines = netobs(lab, far.ns, *conf, "--json", "--count", "2", "--by", "proto").stdout.splitlines()
        assert [json.loads(line)["rows"][0]["proto"] for line in lines] == ["UDP", "UDP"]
        assert json.loads(lines[1])["totals"]["packets_per_s"] > 0
        wrong = netobs(lab, far.ns, *conf, "--once", "--filter", "port x")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert wrong.stderr.startswith('netobs: filter: "x" is not a port')
        sending.stop()
        daemon.finish()


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_without_a_daemon_it_measures_by_itself(lab: Lab, tmp_path: Path, attach: str) -> None:
    near, far = lab.pair()
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration({**OFTEN, "attach": attach}), encoding="utf-8")
    sending = Traffic(flows=50, packets=200_000).start(lab, near, rate=2000)
    done = netobs(lab, far.ns, "--conf", str(conf), "top", "--json", "--count", "2", "--rows", "100")
    sending.stop()
    assert "no daemon answers" in done.stderr
    assert "measuring without it" in done.stderr
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(frames[-1]["rows"]) == 50
    assert {row["if"] for row in frames[-1]["rows"]} == {"veth0"}
    assert frames[-1]["condition"] == {"interfaces": 1, "lost_packets": 0}
    left = lab.run(far.ns, ["tc", "filter", "show", "dev", "veth0", "ingress"]).stdout
    assert left == ""


def test_without_a_daemon_and_without_rights_it_says_so(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration(), encoding="utf-8")
    done = netobs(lab, far.ns, "--conf", str(conf), "top", "--once", capabilities=())
    assert done.returncode == 1
    assert "CAP_BPF" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e(tools=("make", "ethtool", "tmux"))
def test_keys_on_a_terminal(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration()) as daemon:
        sending = Traffic(flows=300, packets=1_000_000, order="random").start(lab, near, rate=5000)
        with Terminal(lab, far.ns, ["--conf", str(daemon.conf), "top"]) as terminal:
            terminal.until("300 groups of 300 flows", "198.18.0.", "sorted by bits", "bits/s")
            terminal.press("p")
            terminal.until("sorted by packets")
            terminal.press("n", "o", "t")
            terminal.until("2 groups of", "198.18.0.0/24", "198.19.0.0/24")
            terminal.press("/", *"host x", "Enter")
            terminal.until('"x" is not an address')
            terminal.press("/", "C-u", *"not tcp", "Enter")
            terminal.until("filter: not tcp", "2 groups of")
            terminal.press("?")
            terminal.until("Group by", "a source")
            terminal.press("?")
            terminal.press("Space")
            terminal.until("paused")
            terminal.press("Space", "c", "-")
            screen = terminal.until("300 groups of")
            assert len(screen.splitlines()) <= 24
            terminal.resize(30, 8)
            terminal.until("too small")
            terminal.resize(120, 30)
            terminal.until("octets", "300 groups of")
            terminal.press("q")
            terminal.until("exit status 0")
        sending.stop()
        daemon.finish()
