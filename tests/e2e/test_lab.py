"""The laboratory itself: namespaces work and leave nothing behind, and the collectors are read right."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lab.collectors import IpfixDump, Nfcapd, Tshark, UdpSink
from lab.namespaces import Lab, LabError, in_namespace, namespaces
from lab.programs import Capture, bound_socket, wait_until
from lab.traffic import REPOSITORY, Traffic

pytestmark = pytest.mark.e2e(tools=("make",))


def test_a_pair_is_silent(lab: Lab) -> None:
    near, far = lab.pair()
    lab.run(near.ns, ["ip", "link", "set", near.name, "down"])
    lab.run(near.ns, ["ip", "link", "set", near.name, "up"])
    assert lab.counters(near)["tx_packets"] == lab.counters(far)["tx_packets"] == 0


def test_addresses_work_over_a_pair(lab: Lab) -> None:
    near, far = lab.pair(mtu=9000, macs=("02:00:00:00:00:0a", "02:00:00:00:00:0b"))
    assert (near.mac, far.mac) == ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
    for link, host in ((near, 1), (far, 2)):
        lab.address(link, f"192.0.2.{host}/24")
        lab.address(link, f"2001:db8::{host}/64")
        assert lab.links(link.ns)[-1]["mtu"] == 9000
    for target, origin in (("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")):
        with UdpSink(far.ns, 0, target) as sink, UdpSink(near.ns, 0, origin) as source:
            source.socket.sendto(b"hello", (target, sink.port))
            assert sink.receive() == b"hello"
            assert sink.drain() == []


def test_in_namespace_enters_and_leaves(lab: Lab) -> None:
    near, _ = lab.pair()
    home = os.readlink("/proc/thread-self/ns/net")
    inside = ""

    def enter_and_fail() -> None:
        nonlocal inside
        with in_namespace(near.ns):
            inside = os.readlink("/proc/thread-self/ns/net")
            raise KeyError

    with pytest.raises(KeyError):
        enter_and_fail()
    assert inside not in {"", home}
    assert os.readlink("/proc/thread-self/ns/net") == home


def test_everything_is_cleaned_up_after_an_exception() -> None:
    made: list[str] = []
    processes: list[subprocess.Popen[bytes]] = []

    def fail_inside() -> None:
        with Lab() as lab:
            near, far = lab.pair()
            made.extend([near.ns, far.ns])
            processes.append(lab.popen(near.ns, ["sleep", "1000"], stdout=subprocess.PIPE))
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert len(made) == 2
    assert not set(made) & set(namespaces())
    assert [process.returncode for process in processes] == [-signal.SIGTERM]


KILLED = """
import os, signal, sys
from lab.namespaces import Lab
lab = Lab()
for _ in range(int(sys.argv[1])):
    ns = lab.namespace()
    print(ns, lab.popen(ns, ["sleep", "1000"], stdout=-3).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_process(count: int) -> list[str]:
    """The names of its namespaces, each followed by the process that runs there."""
    argv = [sys.executable, "-c", KILLED, str(count)]
    done = subprocess.run(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    return done.stdout.split()


@pytest.mark.alone  # a test beside it may kill a process that has a namespace
def test_sweep_removes_what_a_killed_process_left_and_nothing_else(lab: Lab) -> None:
    mine = lab.namespace()
    ns, pid = left_by_a_killed_process(1)
    assert ns in namespaces()
    assert Lab.sweep() == [ns]
    assert mine in namespaces()
    wait_until(lambda: _ended(int(pid)), "the process in the swept namespace ends")


@pytest.mark.alone
def test_several_may_sweep_at_the_same_time() -> None:
    """As the workers of one run do when it begins."""
    made = left_by_a_killed_process(5)[::2]
    argv = [sys.executable, "-c", "from lab.namespaces import Lab; Lab.sweep()"]
    sweepers = [subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [sweeper.communicate()[1] for sweeper in sweepers] == [""] * 3
    assert not {*made} & {*namespaces()}


def _ended(pid: int) -> bool:
    """Whether it is gone, or waits only for its parent to take note."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_failing_command_is_told_with_its_own_words(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"ip netns exec .* ls /nonexistent: exit 2: .*No such file"):
        lab.run(lab.namespace(), ["ls", "/nonexistent"])


PLAN = Traffic(flows=30, packets=300, size=(60, 300))


@pytest.fixture
def pcap(lab: Lab, tmp_path: Path) -> Path:
    """A capture file with the packets of ``PLAN``, for an exporter made by others."""
    near, far = lab.pair()
    with Capture(lab, far.ns, tmp_path, far.name) as capture:
        PLAN.send(lab, near)
        capture.stop()
    return capture.pcap


def softflowd(lab: Lab, ns: str, pcap: Path, version: int, *options: str) -> None:
    lab.run(ns, ["softflowd", "-r", str(pcap), "-n", "127.0.0.1:4739", "-v", str(version), *options])


@pytest.mark.e2e(tools=("nfcapd", "nfdump", "softflowd", "tcpdump"))
@pytest.mark.parametrize("version", [5, 9, 10])
def test_nfcapd_is_read_right(lab: Lab, tmp_path: Path, pcap: Path, version: int) -> None:
    ns = lab.namespace()
    with Nfcapd(lab, ns, tmp_path) as collector:
        softflowd(lab, ns, pcap, version, "-A", "milli")
        flows = collector.flows()
        summary = collector.summary()
    rows = PLAN.expected()
    by_port = {flow["src_port"]: (flow["in_packets"], flow["in_bytes"]) for flow in flows}
    assert len(flows) == len(by_port) == PLAN.flows
    assert by_port == {int(row["src_port"]): (int(row["packets"]), int(row["octets"])) for row in rows}
    assert (summary.flows, summary.packets, summary.octets) == (PLAN.flows, PLAN.packets, rows["octets"].sum())
    assert summary.drops == 0
    assert f"Flows: {PLAN.flows}" in collector.log


@pytest.mark.e2e(tools=("nfcapd", "nfdump"))
def test_nfcapd_without_traffic_and_over_ipv6(lab: Lab, tmp_path: Path) -> None:
    with Nfcapd(lab, lab.namespace(), tmp_path, 9995, "::1") as collector:
        assert collector.flows() == []
        assert collector.summary().flows == 0


@pytest.mark.e2e(tools=("nfcapd",))
def test_a_collector_that_cannot_start_says_why(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    with UdpSink(ns), pytest.raises(LabError, match="nfcapd-4739 ended at once"), Nfcapd(lab, ns, tmp_path):
        pass


@pytest.mark.e2e(tools=("tcpdump", "tshark", "softflowd"))
def test_tshark_is_read_right_over_udp(lab: Lab, tmp_path: Path, pcap: Path) -> None:
    ns = lab.namespace()
    with UdpSink(ns) as sink, Tshark(lab, ns, tmp_path) as capture:
        softflowd(lab, ns, pcap, 9)
        messages = capture.messages()
        datagrams = sink.drain()
    assert len(messages) == len(datagrams) > 0
    assert {message["cflow.version"] for message in messages} == {"9"}
    assert capture.sizes() == [len(datagram) for datagram in datagrams]
    assert all(re.match(r"\d+\t\S", line) for line in capture.experts())


def ipfix_message(sequence: int) -> bytes:
    """A Message with a Template (packetDeltaCount in 4 octets) and one Data Record; RFC 7011, section 3."""
    header = struct.pack("!HHIII", 10, 36, 1_700_000_000, sequence, 1)
    return header + struct.pack("!HHHHHH", 2, 12, 256, 1, 2, 4) + struct.pack("!HHI", 256, 8, 77)


@pytest.mark.e2e(tools=("tcpdump", "tshark"))
def test_tshark_finds_a_hole_in_the_sequence(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    with UdpSink(ns) as sink, Tshark(lab, ns, tmp_path) as capture:
        for sequence in (0, 1, 3):
            sink.socket.sendto(ipfix_message(sequence), ("127.0.0.1", sink.port))
        sizes = capture.sizes()
        experts = capture.experts()
    assert sizes == [36, 36, 36]
    assert len(experts) == 1
    assert "expected 2, got 3" in experts[0]


@pytest.mark.e2e(tools=("socat", "ipfixDump"))
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ipfixdump_is_read_right(lab: Lab, tmp_path: Path, host: str) -> None:
    ns = lab.namespace()
    faults = []
    for port, sequences in ((4739, (0, 1, 2)), (4740, (0, 1, 3))):
        with IpfixDump(lab, ns, tmp_path, port, host) as dump:
            with in_namespace(ns), socket.create_connection((host, port)) as connection:
                connection.sendall(b"".join(map(ipfix_message, sequences)))
            assert dump.records() == [{"packetDeltaCount": "77"}] * 3
            assert dump.stats() == (3, 3, 3)
            faults.append(dump.faults())
    assert faults[0] == []
    assert len(faults[1]) == 1
    assert "out of sequence" in faults[1][0]


@pytest.mark.e2e(tools=("socat", "ipfixDump"))
def test_ipfixdump_tells_what_is_not_ipfix(lab: Lab, tmp_path: Path) -> None:
    ns = lab.namespace()
    with IpfixDump(lab, ns, tmp_path) as dump:
        with in_namespace(ns), socket.create_connection(("127.0.0.1", dump.port)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert "Illegal IPFIX Message version" in dump.faults()[0]


@pytest.mark.e2e(tools=("tcpdump", "tshark", "softflowd", "socat", "ipfixDump"))
def test_tshark_is_read_right_over_tcp(lab: Lab, tmp_path: Path, pcap: Path) -> None:
    ns = lab.namespace()
    with IpfixDump(lab, ns, tmp_path) as dump, Tshark(lab, ns, tmp_path, transport="tcp") as capture:
        softflowd(lab, ns, pcap, 10, "-P", "tcp", "-A", "milli")
        records = [record for record in dump.records() if "sourceIPv4Address" in record]
        messages = capture.messages()
    rows = PLAN.expected()
    counts = {record["sourceTransportPort"]: record["octetDeltaCount"] for record in records}
    assert counts == {str(row["src_port"]): str(row["octets"]) for row in rows}
    assert len(records) == PLAN.flows
    assert dump.stats()[0] == len(messages) == len(capture.sizes())
    assert [int(message["cflow.len"]) for message in messages] == capture.sizes()


def test_sockets_are_found_by_port(lab: Lab) -> None:
    ns, other = lab.namespace(), lab.namespace()
    with UdpSink(ns, 4740) as sink:
        sink.socket.sendto(b"waits", ("127.0.0.1", 4740))
        state = bound_socket(ns, 4740, "udp")
        assert state is not None
        assert state.waiting_bytes > 0
        assert bound_socket(ns, 4740, "tcp") is None
        assert bound_socket(ns, 4741, "udp") is None
        assert bound_socket(other, 4740, "udp") is None
