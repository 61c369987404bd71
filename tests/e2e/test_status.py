"""The control socket of a real daemon: each question of an operator, and clients that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.daemon import KEPT, Daemon, configuration, netobs
from lab.namespaces import Lab, in_namespace
from lab.programs import wait_until
from lab.traffic import REPOSITORY, Traffic
from netobs.base.errors import NetobsError
from netobs.cli import control_client
from netobs.config.identity import control_socket
from netobs.kernel.attach import BPF_F_BEFORE
from tests.kernel.foreign import Foreign, compile_foreign
from tests.unit.manual import Page

pytestmark = pytest.mark.e2e(tools=("make",))

OFTEN = {"eviction_interval": "1s"}
HEARS, REFUSES = {"name": "hears", "port": 4740}, {"name": "refuses", "port": 4741}
AS_ROOT = ("env",)
ARP = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x06" + bytes(46)
STATUS = b'{"netobs": 1, "do": "status"}\n'
GARBAGE = (b"", b"\xff\x00garbage\n", b"x" * 100_000, STATUS * 1000, b"[]\n", b"{}\n", STATUS.replace(b"1", b"2"),
           STATUS.replace(b'"status"', b'["status"]'), b"[" * 4000 + b"\n")  # fmt: skip


@contextlib.contextmanager
def collector(ns: str, port: int) -> Iterator[socket.socket]:
    """A UDP socket there, which nobody reads."""
    with in_namespace(ns):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", port))
    with sock:
        yield sock


def ask(daemon: Daemon, do: str = "status") -> dict[str, Any]:
    return control_client.ask(control_socket(daemon.conf), do, 20.0)


def state_of(daemon: Daemon) -> dict[str, Any]:
    status: dict[str, Any] = ask(daemon)["status"]
    return status


def run(lab: Lab, daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    done = netobs(lab, daemon.ns, "--conf", str(daemon.conf), *arguments, prefix=AS_ROOT)
    return done.returncode, done.stdout, done.stderr


def test_each_question_of_an_operator(lab: Lab, tmp_path: Path) -> None:
    """Is a packet lost, and where; which interfaces, how, and who else is on the hook; each collector."""
    near, far = lab.pair()
    config = configuration(OFTEN, KEPT, [HEARS, REFUSES])
    foreign_object = compile_foreign(tmp_path)
    with collector(far.ns, 4740), Daemon(lab, far.ns, tmp_path, config, as_user=False) as daemon:
        Traffic(flows=30, packets=3000).send(lab, near)
        wait_until(lambda: state_of(daemon)["flow_cache"]["flows"] == 30, "the flows are in the cache")
        with Foreign(foreign_object) as foreign:
            foreign.attach_tcx(far, "ingress", "foreign_count", BPF_F_BEFORE)
            wait_until(lambda: state_of(daemon)["interfaces"][0]["directions"]["ingress"]["of"] == 2, "it is seen")
            state = state_of(daemon)
            _, page, _ = run(lab, daemon, "status", "--interfaces")
        account = daemon.account()
        status, whole, _ = run(lab, daemon, "status")
    assert state["version"] == 1
    explained = {word for _, words in Page("netobs.8").macros("STATUS") for word in words}
    assert {*state} <= explained
    assert state["daemon"]["pid"] == daemon.process.pid
    assert state["daemon"]["state"] == "running"
    assert state["daemon"]["ready_s"] > state["daemon"]["started_s"]
    (interface,) = state["interfaces"]
    assert (interface["name"], interface["netns"]) == ("veth0", "")
    hooks = interface["directions"]
    assert [hooks["ingress"][key] for key in ("method", "position", "of")] == ["tcx", 2, 2]
    assert [hooks["egress"][key] for key in ("method", "position", "of")] == ["tcx", 1, 1]
    assert hooks["ingress"]["seen"]["packets"] == 3000
    assert hooks["ingress"]["difference"]["packets"] == 0
    assert "veth0 (index" in page
    assert "ingress by tcx, 2 of 2 on the hook; egress by tcx, alone on the hook" in page
    assert state["ledger"]["seen"] == {"packets": 3000, "octets": account.seen.octets}
    assert not any(found["packets"] for found in state["ledger"]["reasons"].values())
    assert state["table"]["evictions"] == sum(state["table"]["eviction_seconds"]["counts"])
    assert state["table"]["last_eviction_s"] > 0
    hears, refuses = state["collectors"]
    assert (hears["name"], hears["reach"], hears["address"]) == ("hears", "up", "127.0.0.1:4740")
    assert (hears["protocol"], hears["transport"], hears["template"]) == ("ipfix", "udp", "default")
    assert (refuses["reach"], refuses["last_error"]["text"]) == ("suspect", "nothing listens there")
    assert status == 3
    assert whole.startswith('1 problem:\n  collector "refuses": it seems to get nothing: nothing listens there;')
    assert "packets seen: 3,000 packets" in whole


def test_losses_have_their_reason_time_and_rate(lab: Lab, tmp_path: Path) -> None:
    """Flows that a collector refuses, and ARP, which is no loss."""
    near, far = lab.pair()
    config = configuration(OFTEN, {"active_timeout": "1s", "idle_timeout": "1s"}, [REFUSES])
    with Daemon(lab, far.ns, tmp_path, config, as_user=False) as daemon:
        before_s = state_of(daemon)["at_s"]
        with in_namespace(near.ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((near.name, 0))
            raw.send(ARP)
        Traffic(flows=30, packets=3000).send(lab, near)
        wait_until(lambda: "refused" in state_of(daemon)["collectors"][0]["not_sent"], "flows are refused")
        state = state_of(daemon)
        lost = daemon.finish().not_sent["refuses"]
    refused, not_ip = state["collectors"][0]["not_sent"]["refused"], state["ledger"]["reasons"]["not_ip"]
    assert 0 < refused["packets"] <= lost["refused"].packets
    assert before_s < refused["first_s"] <= refused["last_s"] <= state["at_s"]
    assert not_ip["packets"] == 1
    assert before_s < not_ip["first_s"] <= not_ip["last_s"] <= state["at_s"]
    assert not not_ip["is_loss"]
    assert state["ledger"]["not_ip"] == {"ARP 0x0806": 1}
    assert any("not sent, refused" in problem for problem in state["problems"])
    assert not any("not_ip" in problem for problem in state["problems"])


def test_what_runs_and_what_the_file_says(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    config = configuration(OFTEN, KEPT, [HEARS])
    with collector(far.ns, 4740), Daemon(lab, far.ns, tmp_path, config, as_user=False) as daemon:
        first = state_of(daemon)["configuration"]
        assert first == {"file": str(daemon.conf), "is_newer": False, "waits": [], "reload": None}
        assert run(lab, daemon, "status")[:2][0] == 0

        daemon.conf.write_text(configuration({**OFTEN, "pin": "/nowhere"}, KEPT, [HEARS]))
        assert state_of(daemon)["configuration"]["is_newer"] is True
        assert "what runs is the former content; run netobs reload" in run(lab, daemon, "status")[1]
        status, said, warned = run(lab, daemon, "reload")
        assert (status, said) == (0, "reload: done\n")
        assert "[capture] pin takes effect at the next start: restart netobs" in warned
        state = state_of(daemon)["configuration"]
        assert (state["is_newer"], state["waits"], state["reload"]["failed"]) == (False, ["[capture] pin"], False)

        daemon.conf.write_text("colour = 1\n" + config)
        status, said, refused = run(lab, daemon, "reload")
        assert (status, said) == (1, "")
        assert refused.count("\n") == refused.count("netobs: ") >= 1
        assert "colour" in refused
        state = state_of(daemon)["configuration"]
        assert (state["is_newer"], state["reload"]["failed"]) == (True, True)
        assert "colour" in state["reload"]["error"]
        status, page, _ = run(lab, daemon, "status")
        assert status == 3
        assert "the last reload failed" in page.split("\n")[1]

        daemon.conf.write_text(config)
        assert run(lab, daemon, "reload")[:2] == (0, "reload: done\n")
        state = state_of(daemon)["configuration"]
        assert (state["is_newer"], state["waits"], state["reload"]["failed"]) == (False, [], False)
        assert run(lab, daemon, "status")[0] == 0


def test_packet_capture_and_its_clients(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    path = f"/run/netobs/test-{os.getpid()}.sock"
    config = configuration(packet_capture={"enabled": True, "listen": path})
    with Daemon(lab, far.ns, tmp_path, config, as_user=False) as daemon:
        capture = state_of(daemon)["packet_capture"]
        assert (capture["listen"], capture["clients"], capture["problem"]) == (path, 0, None)
        assert capture["listening_s"] > state_of(daemon)["daemon"]["started_s"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.send(b"\n")
            wait_until(lambda: state_of(daemon)["packet_capture"]["clients"] == 1, "the client is counted")
            assert "  1 client now, 0 packets sent to all clients ever\n" in run(lab, daemon, "status")[1]


def test_packet_capture_that_cannot_listen(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    path = f"/run/netobs/test-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as undo:
        other.bind(path)
        undo.callback(os.unlink, path)
        other.listen()
        config = configuration(packet_capture={"enabled": True, "listen": path})
        with Daemon(lab, far.ns, tmp_path, config, as_user=False) as daemon:
            state = state_of(daemon)
            status, page, _ = run(lab, daemon, "status")
    assert state["packet_capture"]["listening_s"] is None
    assert state["packet_capture"]["clients"] is None
    assert "another program listens there" in state["packet_capture"]["problem"]
    assert status == 3
    assert f"packet capture: {state['packet_capture']['problem']}; see the log" in page


def test_without_a_daemon(lab: Lab, tmp_path: Path) -> None:
    for arguments in (("status",), ("status", "--json"), ("reload",)):
        done = netobs(lab, lab.namespace(), "--conf", str(tmp_path / "netobs.toml"), *arguments, prefix=AS_ROOT)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("netobs: no netobs daemon answers at /run/netobs/control-netobs-")
        assert done.stderr.count("\n") == 1


def test_who_may_ask_and_how(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(), as_user=False) as daemon:
        path = Path(control_socket(daemon.conf))
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == (0o660 if found.st_gid else 0o600)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for do in ("status", "reload"):
            done = netobs(lab, far.ns, do, "--control", str(path), prefix=nobody)
            assert done.returncode == 1
            assert (
                done.stderr == f"netobs: {path}: permission denied; ask as root, or as a member of the group netobs\n"
            )
        assert "reload" not in daemon.log
        with control_client.connect(str(path)) as sock:
            for line in (b'{"netobs": 1, "do": "dance"}\n', STATUS, b"what?\n"):
                sock.sendall(line)
                answer = json.loads(control_client.read_line(sock))
                assert answer["netobs"] == 1
                assert answer["ok"] is (line == STATUS)
            assert 'expected an object like {"netobs": 1, "do": "status"}' in answer["error"]
            assert sock.recv(1) == b""
        status, text, _ = run(lab, daemon, "status", "--json")
        assert json.loads(text)["version"] == 1
        assert status == 3  # nobody is at its collector


def test_a_socket_that_a_killed_process_has_left(lab: Lab, tmp_path: Path) -> None:
    """It is replaced; that of a running daemon is not, and stays when the second one ends."""
    _, far = lab.pair()
    with Daemon(lab, far.ns, tmp_path, configuration(), as_user=False) as daemon:
        path = Path(control_socket(daemon.conf))
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(20)
        assert path.is_socket()
        daemon._start()
        wait_until(lambda: asks_well(str(path)), "the next one answers")
        assert state_of(daemon)["daemon"]["pid"] == daemon.process.pid
        with (tmp_path / "other").open("wb") as log:
            argv = [*daemon._argv, "--conf", str(daemon.conf)]
            other = lab.popen(far.ns, argv, stderr=log, cwd=REPOSITORY)
        wait_until(lambda: "netobs ready" in (tmp_path / "other").read_text(), "the other one is ready")
        assert f"control socket {path}: another netobs listens there" in (tmp_path / "other").read_text()
        other.send_signal(signal.SIGTERM)
        assert other.wait(20) == 0
        assert state_of(daemon)["daemon"]["pid"] == daemon.process.pid
        daemon.stop()
        assert not path.exists()


def test_clients_that_misbehave(lab: Lab, tmp_path: Path) -> None:
    """1,000 connections, garbage, lines without an end, readers that do not read: metering goes on, to the packet."""
    near, far = lab.pair()
    with (
        collector(far.ns, 4740),
        Daemon(lab, far.ns, tmp_path, configuration(OFTEN, KEPT, [HEARS]), as_user=False) as daemon,
        contextlib.ExitStack() as clients,
    ):
        path = control_socket(daemon.conf)
        descriptors = state_of(daemon)["daemon"]["descriptors"]
        for number in range(1000):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(path)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                client.send(GARBAGE[number % len(GARBAGE)])
        sent = Traffic(flows=100, packets=20_000).send(lab, near)
        wait_until(lambda: asks_well(path), "an operator gets an answer")
        clients.close()
        wait_until(lambda: state_of(daemon)["daemon"]["descriptors"] <= descriptors, "their places are free")
        state = state_of(daemon)
        account = daemon.finish()
        log = daemon.log
    assert account.seen.packets == sent.wire_packets == 20_000
    assert account.is_balanced("hears")
    assert log.count("WARNING control socket: a client is refused") <= 1 + state["at_s"] // 60
    assert log.count("WARNING control socket: a request is longer") == 1
    print(f"longest silence {state['loop']}")


def asks_well(path: str) -> bool:
    try:
        return bool(control_client.ask(path, "status")["ok"])
    except NetobsError:
        return False
