"""The packet capture agent with the real daemon: every packet, whole, beside flow metering that stays exact."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import UdpSink
from lab.daemon import KEPT, NETOBS, Daemon, bpf_objects, configuration, traffic_control
from lab.namespaces import Lab, Link, in_namespace
from lab.pcap import Packet, read_pcap
from lab.programs import Capture, Program, wait_until
from lab.traffic import REPOSITORY, Sent, Traffic

pytestmark = pytest.mark.e2e(tools=("tcpdump", "tshark"))

PORT = 9990
MILLISECOND_NS = 1_000_000
TCP, UDP = 6, 17
RATE = 8_000
SETTINGS = {
    "enabled": True,
    "listen": f"127.0.0.1:{PORT}",
    "buffer": "64MiB",
    "queue_max": "256MiB",
    "filter": "tcp,80",
}

MIXED = [
    (Traffic(packets=30_000, flows=50, size=(60, 1514)), 30_000),
    (Traffic(packets=20_000, flows=50, size=(80, 1514), ipv6=True), 30_000),
    (Traffic(packets=20_000, flows=50, size=(60, 1514), protocol="tcp", dst_port=80), 30_000),
    (Traffic(packets=10_000, flows=50, size=(68, 1514), vlan=7, priority=3), 30_000),
    (Traffic(packets=4_000, flows=50, size=(90, 1514), vlan=7, qinq=99, ipv6=True), 30_000),
    (Traffic(packets=15_000, flows=50, size=(60, 9000)), 10_000),
    (Traffic(packets=1_000, flows=10, size=(20_000, 65_000), protocol="tcp", gso=1400), 1_000),
]
"""Plans and their rates: 100,000 packets, of 60 to 9,000 octets, and super-packets."""


class Whole(Capture):
    """tcpdump for whole packets: without --immediate-mode its buffer has no fixed place for each, of 262,144 octets."""

    def _run(self, argv: list[str], **options: Any) -> Any:
        return super()._run([each for each in argv if each not in ("--immediate-mode", "-U")], **options)


class Client(Program):
    """`netobs capture` that writes all that it gets to ``file``."""

    def __init__(
        self, lab: Lab, ns: str, directory: Path, *options: str, file: str = "out.pcap", host: str = "127.0.0.1",
        label: str = "client",
    ) -> None:  # fmt: skip
        super().__init__(lab, ns, directory, label)
        self.file = self.directory / file
        self._argv = [*NETOBS, "capture", "--connect", f"{host}:{PORT}", "--write", str(self.file), *options]

    def _start(self) -> None:
        process = self._process = self._run(self._argv, cwd=REPOSITORY)
        self._ready(process, lambda: self.file.exists() and self.file.stat().st_size > 0)

    def finish(self) -> str:
        """Let it come to its end by itself; its last words."""
        assert self.process.wait(30) == 0, self.log
        return self.log


def send_all(lab: Lab, link: Link) -> list[Sent]:
    return [traffic.send(lab, link, rate=rate) for traffic, rate in MIXED]


def selected(capture: Capture, expression: str, directory: Path) -> list[Packet]:
    """What tcpdump selects of its own capture."""
    file = directory / "selected.pcap"
    argv = ["tcpdump", "-n", "-r", str(capture.pcap), "-w", str(file), expression]
    subprocess.run(argv, check=True, capture_output=True)
    return read_pcap(file)


def assert_same(got: list[Packet], wanted: list[Packet], timely: bool) -> None:
    """The same packets, in the same order; if they are to be ``timely``, within a millisecond, but for one in a
    thousand at most: whoever takes the CPU away, be it the hypervisor, does so between tcpdump's look at the clock and
    ours, too."""
    assert len(got) == len(wanted)
    different = [
        number for number, (one, other) in enumerate(zip(got, wanted))
        if one.octets != other.octets or one.length != other.length
    ]  # fmt: skip
    assert different == []
    late = [one.time_ns - other.time_ns for one, other in zip(got, wanted)]
    assert not timely or sum(abs(each) >= MILLISECOND_NS for each in late) <= len(late) // 1000


@pytest.mark.parametrize("attach", [pytest.param("auto", marks=pytest.mark.alone), "tc"])  # auto compares times
def test_every_packet_is_in_the_stream_and_in_a_flow(lab: Lab, tmp_path: Path, attach: str) -> None:
    sender, receiver = lab.pair(mtu=9000)
    expression = "udp and greater 200"
    config = configuration(
        {"direction": "ingress", "attach": attach}, KEPT, packet_capture=SETTINGS,
    )  # fmt: skip
    with (
        UdpSink(receiver.ns),
        Daemon(lab, receiver.ns, tmp_path, config) as daemon,
        Whole(lab, receiver.ns, tmp_path, "veth0") as tcpdump,
        Client(lab, receiver.ns, tmp_path, label="all") as everything,
        Client(lab, receiver.ns, tmp_path, "--filter", expression, label="some") as some,
    ):
        sent = send_all(lab, sender)
        tcpdump.stop()
        captured, wanted = read_pcap(tcpdump.pcap), selected(tcpdump, expression, tmp_path)
        for client, packets in ((everything, captured), (some, wanted)):
            size = 24 + sum(16 + len(packet.octets) for packet in packets)
            wait_until(lambda: client.file.stat().st_size == size, "it has all")  # noqa: B023 - at once
        account = daemon.finish()
        words = everything.finish(), some.finish()
    total = sum(each.packets for each in sent)
    assert total == 100_000
    assert_same(read_pcap(everything.file), captured, timely=attach == "auto")
    assert 10_000 < len(wanted) < total
    assert_same(read_pcap(some.file), wanted, timely=attach == "auto")
    assert [f"{number} packets" in text for number, text in zip((total, len(wanted)), words)] == [True, True]
    assert account.seen.packets == sum(each.wire_packets for each in sent)
    assert account.is_balanced()
    assert account.sent["127.0.0.1"].packets == account.seen.packets


def test_one_stops_one_dies_one_is_fast(lab: Lab, tmp_path: Path) -> None:
    """Packets of 93 MB, while queues hold 8 MiB: the process must not grow, and the fast one gets each."""
    sender, receiver = lab.pair()
    settings = {**SETTINGS, "queue_max": "8MiB", "buffer": "16MiB", "filter": ""}
    config = configuration({"direction": "ingress"}, KEPT, packet_capture=settings)
    with Daemon(lab, receiver.ns, tmp_path, config) as daemon:
        clients = [Client(lab, receiver.ns, tmp_path, label=label) for label in ("fast", "stopped", "killed")]
        with contextlib.ExitStack() as entered:
            fast, stopped, killed = (entered.enter_context(client) for client in clients)
            before_kib = resident_kib(daemon)
            sent = Traffic(packets=2_000, flows=10, size=1500).send(lab, sender, rate=RATE)
            stopped.process.send_signal(signal.SIGSTOP)
            killed.process.kill()
            sent_later = Traffic(packets=60_000, flows=10, size=1500).send(lab, sender, rate=RATE)
            total = sent.packets + sent_later.packets
            wait_until(lambda: fast.file.stat().st_size == 24 + total * (16 + 1500), "the fast client has every packet")
            daemon.account()
            wait_until(lambda: "the client is too slow" in daemon.log, "it says who is slow")
            assert resident_kib(daemon) < before_kib + 48 * 1024
            slow = re.findall(r"packet client [^\n]*the client is too slow[^\n]*", daemon.log)
            assert len({re.findall(r"client [^:]*:\d+", line)[0] for line in slow}) == 1  # the stopped one
            numbers = re.findall(r"(\d+) (?:packets in|waiting|dropped: the client)", slow[-1])
            assert len(numbers) == 3
            assert sum(map(int, numbers)) == total
            stopped.process.kill()
            account = daemon.finish()
            fast.finish()
    assert len(read_pcap(fast.file)) == total
    assert (account.seen.packets, account.is_balanced()) == (total, True)


def resident_kib(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.capture_process().pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0])


def held(daemon: Daemon) -> tuple[int, int]:
    """Descriptors and BPF objects that its process for packet capture has."""
    process = daemon.capture_process()
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir())), len(bpf_objects(process))


CLIENTS = 200


def test_hundreds_of_clients_leave_nothing(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    config = configuration({"direction": "ingress"}, KEPT, packet_capture=SETTINGS)
    with Daemon(lab, receiver.ns, tmp_path, config) as daemon, in_namespace(receiver.ns):
        before, qdiscs = held(daemon), traffic_control(lab, receiver.ns)
        running = Traffic(packets=10_000, flows=5).start(lab, sender, rate=2_000)
        for number in range(CLIENTS):
            with socket.create_connection(("127.0.0.1", PORT), timeout=10) as client:
                client.sendall(b"udp portrange 1-%d\n" % (1000 + number % 100) if number % 10 == 0 else b"tcp,80\n")
                answer = client.recv(200)
                assert answer[:4] == b"\x4d\x3c\xb2\xa1", answer
        assert running.wait().packets == 10_000
        wait_until(lambda: held(daemon) == before, "all is given back")
        wait_until(lambda: traffic_control(lab, receiver.ns) == qdiscs, "nothing is attached any more")
        account = daemon.finish()
    assert (account.seen.packets, account.is_balanced()) == (10_000, True)
    assert f"0 clients now, {CLIENTS} ever, of {CLIENTS} connections" in daemon.log


RUBBISH = [
    b"",
    b"\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"a" * 10_000,
    b"{" * 900 + b"\n",
]


def test_a_scan_and_rubbish_disturb_nobody(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    config = configuration({"direction": "ingress"}, KEPT, packet_capture={**SETTINGS, "filter": "udp"})
    with (
        Daemon(lab, receiver.ns, tmp_path, config) as daemon,
        Client(lab, receiver.ns, tmp_path, "--filter", "udp") as client,
        in_namespace(receiver.ns),
    ):
        lines = len(daemon.log.splitlines())
        running = Traffic(packets=5_000, flows=5).start(lab, sender, rate=2_000)
        half_open = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(100)]
        for _ in range(20):
            for rubbish in RUBBISH:
                scanner = socket.create_connection(("127.0.0.1", PORT), timeout=10)
                with scanner, contextlib.suppress(ConnectionError):
                    scanner.sendall(rubbish)
        running.wait()
        for each in half_open:
            each.close()
        refused = [line for line in daemon.log.splitlines()[lines:] if "refused" in line]
        assert len(refused) == 1
        account = daemon.finish()
        client.finish()
    assert len(read_pcap(client.file)) == 5_000
    assert (account.seen.packets, account.is_balanced()) == (5_000, True)


def test_the_own_stream_is_not_in_it(lab: Lab, tmp_path: Path) -> None:
    """A client over an interface that is captured, with no filter: each packet of its stream would make another."""
    far, near = lab.pair()
    lab.address(far, "192.0.2.1/24")
    lab.address(near, "192.0.2.2/24")
    settings = {**SETTINGS, "filter": "", "listen": f"192.0.2.2:{PORT}", "allow": ["192.0.2.1"]}
    with (
        Daemon(lab, near.ns, tmp_path, configuration(packet_capture=settings)) as daemon,
        Client(lab, far.ns, tmp_path, host="192.0.2.2") as client,
    ):
        Traffic(packets=1_000, flows=5, dst_mac=near.mac).send(lab, far, rate=2_000)
        daemon.finish()
        client.finish()
    packets = read_pcap(client.file)
    assert sum(packet.octets[23] == UDP for packet in packets) == 1_000
    assert [packet for packet in packets if packet.octets[23] == TCP] == []
