"""The collector is down, dies, and comes back: the daemon goes on, and what did not arrive is counted."""

from __future__ import annotations

import re
import socket
import struct
from functools import partial
from pathlib import Path

import pytest

from lab.collectors import UdpSink
from lab.daemon import Account, Daemon, Table, configuration
from lab.namespaces import Lab, in_namespace
from lab.programs import WAIT_S, wait_until
from lab.traffic import Traffic
from netobs.collector.decode import Decoder, message_length

pytestmark = pytest.mark.e2e(tools=("make",))

FAST = {"eviction_interval": "200ms"}
AT_ONCE = {"active_timeout": "0s"}
HEADER_BYTES = 16
TEMPLATE_SET_ID = 2


class TcpCollector:
    """Takes one connection after another, and keeps all that comes over the present one."""

    def __init__(self, ns: str, port: int = 4739, receive_bytes: int = 0) -> None:
        """``receive_bytes``: what the kernel takes in for it while it does not read; 0 is the system's default."""
        with in_namespace(ns):
            self._listener = socket.create_server(("127.0.0.1", port))
        if receive_bytes:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._listener.settimeout(WAIT_S)
        self._connection: socket.socket | None = None
        self.data = b""

    def __enter__(self) -> TcpCollector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def accept(self) -> None:
        self._connection = self._listener.accept()[0]
        self._connection.setblocking(False)

    def close(self, reset: bool = False) -> None:
        """Go away; with ``reset`` as when the host crashes and comes back."""
        if self._connection is not None:
            if reset:
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connection.close()
            self._connection = None
        self._listener.close()

    def read(self) -> bool:
        """Take what has come; whether the daemon has closed the connection."""
        assert self._connection is not None
        try:
            while data := self._connection.recv(1 << 20):
                self.data += data
        except BlockingIOError:
            return False
        return True

    def messages(self) -> list[bytes]:
        """The whole Messages in ``data``."""
        messages, data = [], self.data
        while len(data) >= HEADER_BYTES and len(data) >= message_length(data[:HEADER_BYTES]):
            length = message_length(data[:HEADER_BYTES])
            messages.append(data[:length])
            data = data[length:]
        return messages

    def packets(self) -> int:
        """Packets in all flows that came; the Templates must have come first, and no Message may be missing."""
        messages = self.messages()
        assert not messages or struct.unpack_from("!H", messages[0], HEADER_BYTES) == (TEMPLATE_SET_ID,)
        decoder = Decoder()
        flows = [flow for message in messages for flow in decoder.decode(message, "exporter").flows]
        assert (decoder.stats.sets_without_template, decoder.stats.lost_records) == (0, 0)
        return sum(flow["packetDeltaCount"] for flow in flows)


def not_sent(account: Account) -> dict[str, int]:
    """Packets by reason."""
    return {reason: counts.packets for reason, counts in account.not_sent.get("127.0.0.1", {}).items()}


def test_tcp_collector_that_is_down_at_start_gets_everything_later(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    config = configuration(FAST, AT_ONCE, [{"transport": "tcp", "reconnect_max": "1s"}])
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        daemon.wait_for("not reachable: 127.0.0.1:4739: Connection refused")
        Traffic(flows=1000).send(lab, near)
        with TcpCollector(far.ns) as collector:
            collector.accept()
            wait_until(lambda: not collector.read() and collector.packets() == 1000, "what has waited arrives")
            Traffic(flows=500).send(lab, near)
            account = daemon.finish()
            wait_until(collector.read, "the daemon ends its session")
            assert collector.packets() == 1500
    assert account.is_balanced()
    assert not_sent(account) == {}
    assert "connected" in daemon.log


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_tcp_collector_that_dies_and_comes_back(lab: Lab, tmp_path: Path, reset: bool) -> None:
    near, far = lab.pair()
    config = configuration(FAST, AT_ONCE, [{"transport": "tcp", "reconnect_max": "1s"}])
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        with TcpCollector(far.ns) as first:
            first.accept()
            Traffic(flows=300).send(lab, near)
            wait_until(lambda: not first.read() and first.packets() == 300, "flows arrive")
            first.close(reset)
        daemon.wait_for("connection lost")
        Traffic(flows=400).send(lab, near)
        with TcpCollector(far.ns) as second:
            second.accept()
            wait_until(lambda: not second.read() and second.packets() == 400, "what has waited arrives")
            Traffic(flows=500).send(lab, near)
            account = daemon.finish()
            wait_until(second.read, "the daemon ends its session")
            assert second.packets() == 900
    assert account.sent["127.0.0.1"].packets == 1200
    assert account.is_balanced()
    assert not_sent(account) == {}


def test_tcp_collector_that_stays_away_costs_bounded_memory(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    config = configuration(FAST, AT_ONCE, [{"transport": "tcp", "queue_max": "64KiB"}])
    with Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=5000).send(lab, near)
        account = daemon.finish()
    assert account.sent["127.0.0.1"].flows == 0
    assert account.is_balanced()
    assert sum(not_sent(account).values()) == 5000
    assert set(not_sent(account)) == {"queue_full", "closed"}
    for reason, remedy in (("queue_full", "raise queue_max"), ("closed", "a spool keeps flows")):
        warnings = re.findall(rf' WARNING .*collector "127.0.0.1": not sent, {reason}: a loss begins: .*', daemon.log)
        assert len(warnings) == 1
        assert remedy in warnings[0]


def test_a_collector_that_is_down_harms_no_other(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    down: Table = {"name": "down", "transport": "tcp", "queue_max": "64KiB"}
    nowhere: Table = {"name": "nowhere", "host": "collector.invalid"}
    config = configuration(FAST, AT_ONCE, [down, nowhere, {"name": "up", "port": 4740}])
    with UdpSink(far.ns, 4740) as sink, Daemon(lab, far.ns, tmp_path, config) as daemon:
        Traffic(flows=5000).send(lab, near)
        account = daemon.finish()
        decoder = Decoder()
        flows = [flow for message in sink.drain() for flow in decoder.decode(message).flows]
    assert len(flows) == account.sent["up"].flows == 5000
    assert decoder.stats.lost_records == 0
    for name, sent in (("up", 5000), ("down", 0), ("nowhere", 0)):
        assert account.sent[name].flows == sent
        assert account.is_balanced(name)


@pytest.mark.parametrize("form", ["198.51.100.{}/24", "2001:db8:1::{}/64"], ids=["ipv4", "ipv6"])
def test_the_hosts_own_address_changes_while_flows_go_on(lab: Lab, tmp_path: Path, form: str) -> None:
    """DHCP, PPPoE, a failover: the collector gets a new Transport Session from the new address, and every flow."""
    near, far = lab.pair()
    uplink, site = lab.veth(far.ns, lab.namespace("site"))
    host, address = form.format(2).partition("/")[0], ["dev", uplink.name, *(["nodad"] if ":" in form else [])]
    lab.address(site, form.format(2))
    lab.address(uplink, form.format(1))
    config = configuration(FAST, AT_ONCE, [{"host": host, "name": "site", "template": "go-ipfix"}])
    decoder, flows, sources = Decoder(), 0, []
    with UdpSink(site.ns, host=host) as sink, Daemon(lab, far.ns, tmp_path, config) as daemon:
        traffic = Traffic(flows=2000).start(lab, near, rate=1000)
        wait_until(lambda: " sends from " in daemon.log and sent_flows(daemon, "site") > 0, "flows are sent")
        lab.run(far.ns, ["ip", "address", "del", form.format(1), *address[:2]])
        daemon.wait_for("no path from")
        lab.run(far.ns, ["ip", "address", "add", form.format(9), *address])
        wait_until(lambda: daemon.log.count(" sends from ") == 2, "the daemon sends from the new address")
        assert traffic.wait(WAIT_S).flows == 2000
        account = daemon.finish()
        for message, (source, *_) in sink.drain_from():
            flows += len(decoder.decode(message, source).flows)
            sources += [source] if source not in sources else []
    assert sources == [form.format(number).partition("/")[0] for number in (1, 9)]
    assert (decoder.stats.sets_without_template, decoder.stats.lost_records) == (0, 0)
    assert flows == account.sent["site"].flows == 2000
    assert account.not_sent == {}
    assert account.is_balanced("site")


class UdpCollector(UdpSink):
    """A collector that has just been started: it knows no Templates. Counts Data Records by Sequence Number."""

    def __init__(self, ns: str) -> None:
        super().__init__(ns)
        self._decoder = Decoder()
        self.first = self.next = self.flows = 0

    def read(self) -> None:
        """Take what has come; the Templates must have come first, and no Message may be missing."""
        for message in self.drain():
            decoded = self._decoder.decode(message)
            if self._decoder.stats.messages == 1:
                self.first = decoded.sequence
            self.next = decoded.sequence + len(decoded.flows)
        stats = self._decoder.stats
        assert (stats.sets_without_template, stats.lost_records) == (0, 0)
        self.flows = stats.flows

    def has(self, sequence: int) -> bool:
        """Whether all flows before ``sequence`` have come that will come."""
        self.read()
        return self.next == sequence


def refused(ns: str) -> int:
    """Datagrams that came to a port of ``ns`` where nothing listens."""
    with in_namespace(ns):
        lines = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")])


def sent_flows(daemon: Daemon, collector: str = "127.0.0.1") -> int:
    """Flow Records that the collector was sent so far, refused or not."""
    return daemon.account().transmitted(collector).flows


def test_udp_collector_that_is_down_at_start_and_dies_and_comes_back(lab: Lab, tmp_path: Path) -> None:
    """UDP does not tell what arrives: what a collector is missing shows in the Sequence Numbers."""
    near, far = lab.pair()
    arrived, missing = 0, []
    only_flows = {"template": "go-ipfix"}  # has no options records, which count in the Sequence Numbers too
    with Daemon(lab, far.ns, tmp_path, configuration(FAST, AT_ONCE, [only_flows])) as daemon:
        daemon.wait_for("nothing listens there")
        for number in (0, 1):
            end = 1000 * number + 1000
            refused_before = refused(far.ns)
            Traffic(flows=400, flow_base=end - 1000).send(lab, near)
            # All of them: a collector that comes up between Templates and data could not read the data.
            wait_until(partial(lambda sent: sent_flows(daemon) == sent, end - 600), "the flows are sent, in vain")
            assert refused(far.ns) > refused_before
            collector = UdpCollector(far.ns)
            with collector:
                Traffic(flows=600, flow_base=end - 600).send(lab, near)
                wait_until(partial(collector.has, end), "flows arrive")
            arrived += collector.flows
            missing.append(collector.first - (end - 1000))
        account = daemon.finish()
    assert all(0 < flows <= 400 for flows in missing)
    assert arrived + sum(missing) == 2000
    refused_flows = account.not_sent["127.0.0.1"]["refused"].flows
    assert refused_flows + account.sent["127.0.0.1"].flows == 2000
    assert refused_flows >= sum(missing), "an estimate, which is rather too high"
    assert account.is_balanced()
    assert re.search(r"\d+ times nothing listened there", daemon.log)
    assert 'collector "127.0.0.1": not sent, refused: a loss begins: ' in daemon.log
