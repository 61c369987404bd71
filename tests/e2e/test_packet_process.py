"""Packet capture is a process of its own: what happens to it does not happen to metering."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from lab.daemon import KEPT, Daemon, alive, bpf_objects, children, configuration, traffic_control
from lab.namespaces import Lab, Link, in_namespace
from lab.programs import gone, wait_until
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e

PORT = 9990
SETTINGS = {"enabled": True, "listen": f"127.0.0.1:{PORT}", "filter": "udp"}
AGAIN = "flows are measured without it, and it is tried again in 1 s"


def config(capture: dict[str, object] | None = None, **settings: object) -> str:
    return configuration({"direction": "ingress", **(capture or {})}, KEPT, packet_capture={**SETTINGS, **settings})


def measure(lab: Lab, sender: Link, daemon: Daemon, packets: int = 500) -> None:
    """Flows are measured and exported, each packet."""
    Traffic(packets=packets, flows=5).send(lab, sender, rate=5_000)
    account = daemon.finish()
    assert (account.seen.packets, account.transmitted().packets, account.is_balanced()) == (packets, packets, True)


def client(ns: str) -> socket.socket:
    """A client that has the header of its stream."""
    with in_namespace(ns):
        sock = socket.create_connection(("127.0.0.1", PORT), timeout=10)
    sock.sendall(b"\n")
    assert sock.recv(24)[:4] == b"\x4d\x3c\xb2\xa1"
    return sock


def test_somebody_has_the_port(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    with in_namespace(receiver.ns):
        other = socket.create_server(("127.0.0.1", PORT))
    with other, Daemon(lab, receiver.ns, tmp_path, config()) as daemon:
        assert f"another program listens there; end it, or set another port; {AGAIN}" in daemon.log
        other.close()
        daemon.wait_for("packet capture: listening on 127.0.0.1:9990")
        client(receiver.ns).close()
        measure(lab, sender, daemon)


def test_a_name_that_cannot_be_resolved(lab: Lab, tmp_path: Path) -> None:
    """In a namespace without a way out, as at boot."""
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, config(filter="host no.such.host.invalid")) as daemon:
        daemon.wait_for(AGAIN)
        assert 'packet_capture.filter: filter "host no.such.host.invalid": unknown host' in daemon.log
        measure(lab, sender, daemon)


def test_the_process_is_killed(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, config()) as daemon:
        stream, before = client(receiver.ns), daemon.capture_process()
        with stream:
            os.kill(before.pid, signal.SIGKILL)
            assert stream.recv(1) == b""
        daemon.wait_for(f"packet capture: its process was ended by SIGKILL; {AGAIN}")
        wait_until(lambda: daemon.log.count("packet capture: listening on") == 2, "it is started again")
        client(receiver.ns).close()
        assert daemon.capture_process() != before
        measure(lab, sender, daemon)


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_it_ends_with_a_daemon_that_is_killed(lab: Lab, tmp_path: Path, attach: str) -> None:
    _, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, config({"attach": attach})) as daemon:
        child = daemon.capture_process()
        with client(receiver.ns) as stream:
            objects = bpf_objects(child)
            assert "prog" in {kind for kind, _ in objects}
            daemon.process.kill()
            assert stream.recv(1) == b""  # its stream ends as it should
        wait_until(lambda: gone(child.pid), "it ends")
        wait_until(lambda: not alive(objects), "its programs are gone")
        assert "packets_" not in traffic_control(lab, receiver.ns)


def test_signals_that_are_for_all_processes(lab: Lab, tmp_path: Path) -> None:
    """systemd sends SIGTERM to the whole service, a terminal SIGINT: the streams end when the daemon says so."""
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, config()) as daemon, client(receiver.ns) as stream:
        child = daemon.capture_process()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(child.pid, number)
        Traffic(packets=10, flows=1, size=100).send(lab, sender, rate=1_000)

        def works() -> bool:
            daemon.account()
            return "packet capture, all clients: 10 packets in " in daemon.log

        wait_until(works, "it works")
        daemon.finish()
        received = bytearray()
        while data := stream.recv(1 << 16):
            received += data
        assert len(received) == 10 * (16 + 100)
    assert "packet capture: its process" not in daemon.log
    assert daemon.log.index("netobs ends: 10 packets") < daemon.log.rindex(" seen: ")  # the last account is the last


def test_what_a_reload_leaves_alone(lab: Lab, tmp_path: Path) -> None:
    _, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, config()) as daemon, client(receiver.ns) as stream:
        child = daemon.capture_process()
        debug = configuration({"direction": "ingress"}, KEPT, log={"level": "debug"}, packet_capture=SETTINGS)
        daemon.reload(debug)
        assert daemon.capture_process() == child
        stream.setblocking(False)
        with pytest.raises(BlockingIOError):
            stream.recv(1)
        stream.settimeout(10)
        daemon.reload(config(snaplen=100))
        assert stream.recv(1) == b""
        wait_until(lambda: daemon.log.count("packet capture: listening on") == 2, "the next one listens")
        wait_until(lambda: gone(child.pid), "the one before ends")
        client(receiver.ns).close()
        daemon.reload(config(enabled=False))
        wait_until(lambda: not children(daemon.process.pid), "there is no such process any more")
        daemon.finish()
    assert re.search(r"packet capture: 0 clients now, 1 ever", daemon.log)  # the last words of each


def test_the_daemon_holds_nothing_of_it(lab: Lab, tmp_path: Path) -> None:
    """Neither modules, nor libpcap, nor programs, whether it captures or not; without it there is no process either."""
    _, receiver = lab.pair()
    for settings in (config(enabled=False), config(filter="host 192.0.2.1")):
        with Daemon(lab, receiver.ns, tmp_path, settings, label=f"netobs{len(settings)}") as daemon:
            wanted = "enabled = true" in settings
            assert bool(children(daemon.process.pid)) is wanted
            if wanted:
                client(receiver.ns).close()
                assert bpf_objects(daemon.capture_process())
            maps = Path(f"/proc/{daemon.process.pid}/maps").read_text(encoding="utf-8")
            assert "libpcap" not in maps
            daemon.finish()
