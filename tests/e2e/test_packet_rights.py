"""Packet capture serves clients with no capability in effect, and holds those that loading needs, and no others."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab, in_namespace
from lab.privileges import IN_EFFECT
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.base import capabilities
from netobs.kernel.privileges import TO_LOAD

pytestmark = pytest.mark.e2e(tools=("setpriv", "mount"))

PORT = 9990
OF_ROOT = capabilities.DAC_OVERRIDE | capabilities.KILL
FOR_PROGRAMS = capabilities.SETGID | capabilities.SETUID
HELD = {
    True: (IN_EFFECT, TO_LOAD, TO_LOAD),
    False: (IN_EFFECT | OF_ROOT, TO_LOAD | OF_ROOT, TO_LOAD | OF_ROOT | FOR_PROGRAMS),
}
"""As the user of the unit and as root: in effect, permitted, and the bounding set."""


def sets(pid: int) -> set[tuple[int, ...]]:
    """CapEff, CapPrm and CapBnd of each thread of a process."""
    found = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        lines = Path(f"/proc/{pid}/task/{task}/status").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        found.add(tuple(int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")))
    return found


def client(ns: str, line: str) -> socket.socket:
    """A client that asks for ``line``, and has the header of its stream."""
    with in_namespace(ns):
        sock = socket.create_connection(("127.0.0.1", PORT), timeout=60)
    sock.sendall(line.encode() + b"\n")
    assert sock.recv(24)[:4] == b"\x4d\x3c\xb2\xa1"
    return sock


def received(sock: socket.socket, size: int) -> int:
    """How many bytes have come, ``size`` or less."""
    count = 0
    while count < size and (data := sock.recv(size - count)):
        count += len(data)
    return count


@pytest.mark.parametrize(("attach", "as_user"), [("auto", True), ("tc", False)])
def test_nothing_is_in_effect_while_clients_and_interfaces_come_and_go(
    lab: Lab, tmp_path: Path, attach: str, as_user: bool
) -> None:
    sender, receiver = lab.pair()

    def config(snaplen: int) -> str:
        packets = {"enabled": True, "listen": f"127.0.0.1:{PORT}", "filter": "tcp", "snaplen": snaplen}
        return configuration(
            {"interfaces": ["veth*", "later*"], "attach": attach, "direction": "ingress"}, KEPT, packet_capture=packets
        )

    with Daemon(lab, receiver.ns, tmp_path, config(200), as_user=as_user) as daemon:

        def holds_what_it_should() -> None:
            pid = daemon.capture_process().pid
            wait_until(lambda: sets(pid) == {HELD[as_user]}, f"packet capture has few capabilities, not {sets(pid)}")

        holds_what_it_should()
        for filter_ in ("udp", "udp and not port 1"):  # libpcap compiles the second
            with client(receiver.ns, filter_) as stream, client(receiver.ns, "icmp"):
                holds_what_it_should()
                Traffic(packets=10, flows=1, size=100).send(lab, sender, rate=1_000)
                assert received(stream, 10 * (16 + 100)) == 10 * (16 + 100)
        with client(receiver.ns, "udp"):  # the first interface is attached to anew, and one that comes later
            lab.run(receiver.ns, ["ip", "link", "add", "later0", "type", "bridge"])
            with client(receiver.ns, '{"interface": "later0"}'):
                holds_what_it_should()
            lab.run(receiver.ns, ["ip", "link", "delete", "later0"])
            holds_what_it_should()
        before = daemon.capture_process()
        daemon.reload(config(100))
        wait_until(lambda: daemon.log.count("packet capture: listening on") == 2, "the next one listens")
        wait_until(lambda: not Path(f"/proc/{before.pid}").exists(), "the one before ends")
        holds_what_it_should()
        with client(receiver.ns, "udp") as stream:
            Traffic(packets=1, flows=1, size=100).send(lab, sender, rate=1_000)
            assert received(stream, 16 + 100) == 16 + 100
        daemon.finish()
    assert "not captured" not in daemon.log
    assert "packet capture: its process" not in daemon.log
