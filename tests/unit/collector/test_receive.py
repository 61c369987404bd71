"""The built-in collector with real sockets on the loopback addresses."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lab.messages import message, template
from lab.samples import golden_messages
from lab.worst_cases import WORST
from netobs.base.errors import NetobsError
from netobs.collector.receive import Collector
from netobs.collector.received import Record
from netobs.collector.sockets import Exporter
from netobs.collector.work import MAX_STEPS

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 10
FLOWS = 12


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector("", 0)) as opened:
        yield opened


def serve_until(collector: Collector, done: Callable[[], bool]) -> list[tuple[Exporter, Record]]:
    """Serve the sockets until ``done``; the flows that came."""
    got: list[tuple[Exporter, Record]] = []
    deadline = time.monotonic() + WAIT_S
    while not done():
        left = deadline - time.monotonic()
        assert left > 0, f"still not done, with {collector.decoder.stats}"
        got += [(exporter, flow) for exporter, decoded in collector.receive(left) for flow in decoded.flows]
    return got


def receive(collector: Collector, flows: int) -> list[tuple[Exporter, Record]]:
    """Serve the sockets until ``flows`` more flows have come."""
    total = collector.decoder.stats.flows + flows
    return serve_until(collector, lambda: collector.decoder.stats.flows >= total)


def send_udp(address: str, port: int, messages: list[bytes]) -> Exporter:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        for message in messages:
            sender.send(message)
        return Exporter("udp", address, sender.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_udp(collector: Collector, address: str) -> None:
    exporter = send_udp(address, collector.port, golden_messages())
    got = receive(collector, FLOWS)
    assert {peer for peer, _ in got} == {exporter}
    assert [flow["protocolIdentifier"] for _, flow in got] == [6, 17, 1, 1, 17, 6, 47, 6, 17, 58, 132, 58]


def test_all_protocols_on_one_port(collector: Collector) -> None:
    for name, flows in (("netflow9_default.hex", 12), ("netflow5.hex", 6), ("ipfix_default.hex", 12)):
        send_udp("127.0.0.1", collector.port, golden_messages(name))
        assert len(receive(collector, flows)) == flows
    stats = collector.decoder.stats
    assert (stats.malformed, stats.sets_without_template, stats.sequence_errors) == (0, 0, 0)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tcp_in_pieces_of_any_size(collector: Collector, address: str) -> None:
    stream = b"".join(golden_messages())
    with socket.create_connection((address, collector.port)) as sender:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        list(collector.receive(WAIT_S))  # accepts
        got = []
        for start in range(0, len(stream), 333):
            sender.sendall(stream[start : start + 333])
            got += [flow for _, decoded in collector.receive(WAIT_S) for flow in decoded.flows]
    assert len(got) == FLOWS
    assert collector.decoder.stats.sequence_errors == 0


def test_several_exporters_at_once(collector: Collector) -> None:
    templates, *data = golden_messages()
    with socket.create_connection(("127.0.0.1", collector.port)) as one:
        with socket.create_connection(("::1", collector.port)) as two:
            one.sendall(templates)
            send_udp("127.0.0.1", collector.port, golden_messages())
            two.sendall(templates + data[0])
            one.sendall(data[0][:100])
            got = receive(collector, FLOWS + 5)
        one.sendall(data[0][100:])
        got += receive(collector, 5)
    assert len({exporter for exporter, _ in got}) == 3
    assert collector.decoder.stats.sets_without_template == 0


def test_the_same_template_id_means_another_thing_to_each_exporter(collector: Collector) -> None:
    """Six sessions with Template 256: two over UDP, one over TCP, one with two domains, and NetFlow v9 beside IPFIX."""
    kinds = {"protocolIdentifier": 4, "ipVersion": 60, "flowDirection": 61, "minimumTTL": 52, "maximumTTL": 53}
    sets = {name: (2, template(256, (number, 1))) for name, number in kinds.items()}
    v9 = struct.pack("!HHIIII", 9, 1, 0, 0, 0, 1)
    first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with first, second, socket.create_connection(("127.0.0.1", collector.port)) as stream:
        for sender in (first, second):
            sender.connect(("127.0.0.1", collector.port))
        data = (256, b"\7")
        exchanges = [
            (first, message(sets["protocolIdentifier"]), message(data)),
            (second, message(sets["ipVersion"]), message(data)),
            (second, message(sets["flowDirection"], domain=2), message(data, domain=2)),
            (stream, message(sets["minimumTTL"]), message(data)),
            (first, v9 + struct.pack("!HH", 0, 12) + template(256, (53, 1)), v9 + struct.pack("!HHB3x", 256, 8, 9)),
        ]
        for sender, templates, _ in exchanges:
            sender.sendall(templates)
        serve_until(collector, lambda: collector.decoder.stats.messages >= len(exchanges))
        for sender, _, flows in exchanges:
            sender.sendall(flows)
        got = receive(collector, 8)
    found = sorted(name for _, flow in got for name in flow)
    assert found == sorted([*(name for name in kinds if name != "maximumTTL"), *["maximumTTL"] * 4])
    assert collector.decoder.stats.sets_without_template == 0


def test_templates_end_with_the_connection(collector: Collector) -> None:
    templates, data, *_ = golden_messages()
    with socket.create_connection(("127.0.0.1", collector.port)) as sender:
        port = sender.getsockname()[1]
        sender.sendall(templates + data)
        assert len(receive(collector, 5)) == 5
    list(collector.receive(WAIT_S))
    assert collector.decoder.decode(data, Exporter("tcp", "127.0.0.1", port)).flows == []
    assert collector.decoder.stats.sets_without_template == 1


def test_garbage_on_tcp_closes_that_peer_only(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", collector.port)) as good:
        good.sendall(golden_messages()[0])
        list(collector.receive(WAIT_S))
        with socket.create_connection(("127.0.0.1", collector.port)) as bad:
            port = bad.getsockname()[1]
            bad.settimeout(WAIT_S)
            bad.sendall(b"GET / HTTP/1.1\r\n")
            serve_until(collector, lambda: bool(caplog.records))
            assert bad.recv(1) == b""
        good.sendall(golden_messages()[1])
        assert len(receive(collector, 5)) == 5
    assert collector.decoder.stats.malformed == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"127.0.0.1 port {port} (tcp): closed: not an IPFIX Message: octet 0: version 18245, expected 10 (IPFIX)"
    ]


def test_a_bad_set_on_tcp_closes_the_connection(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    message = struct.pack("!HHIIIHH", 10, 20, 0, 0, 1, 2, 3)
    with socket.create_connection(("127.0.0.1", collector.port)) as bad:
        bad.settimeout(WAIT_S)
        bad.sendall(message)
        serve_until(collector, lambda: bool(caplog.records))
        assert bad.recv(1) == b""
    assert "octet 18: Set length 3" in caplog.text


def test_half_a_message_at_the_end_of_a_connection(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", collector.port)) as sender:
        sender.sendall(golden_messages()[0] + golden_messages()[1][:30])
        serve_until(collector, lambda: collector.decoder.stats.messages == 1)
    serve_until(collector, lambda: collector.decoder.stats.malformed == 1)
    assert "ended 30 bytes into a Message" in caplog.text


def test_garbage_on_udp_is_ignored_with_one_line(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    messages = golden_messages()
    exporter = send_udp("127.0.0.1", collector.port, [b"x", b"", messages[0], b"\0\x09" * 20, messages[1]])
    assert len(receive(collector, 5)) == 5
    assert collector.decoder.stats.malformed == 3
    assert len(caplog.records) == 1
    assert str(exporter) in caplog.text


def test_port_in_use(collector: Collector) -> None:
    with pytest.raises(
        NetobsError, match=rf"cannot listen on 127.0.0.1 port {collector.port}: .* in use; .* another one"
    ):
        Collector("127.0.0.1", collector.port)


def test_address_that_is_not_here() -> None:
    with pytest.raises(NetobsError, match=r"cannot listen on 192.0.2.1 port 0: Cannot assign requested address"):
        Collector("192.0.2.1", 0)


def test_one_address_family() -> None:
    with closing(Collector("127.0.0.1", 0)) as collector:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("::1", collector.port))
        send_udp("127.0.0.1", collector.port, golden_messages())
        assert len(receive(collector, FLOWS)) == FLOWS


def connect(collector: Collector) -> socket.socket:
    """A connection that the collector has accepted."""
    before = len(collector._streams)
    stream = socket.create_connection(("127.0.0.1", collector.port))
    stream.settimeout(WAIT_S)
    accepted = collector._turns
    serve_until(collector, lambda: collector._turns > accepted)
    assert len(collector._streams) >= before
    return stream


def test_the_connection_that_is_idle_for_longest_gives_its_place(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """256 hold all places: one that never sent a Message goes, and the exporter that did stays."""
    with ExitStack() as stack:
        honest = stack.enter_context(connect(collector))
        honest.sendall(golden_messages()[0])
        serve_until(collector, lambda: collector.decoder.stats.messages == 1)
        idle = [stack.enter_context(connect(collector)) for _ in range(255)]
        last = stack.enter_context(connect(collector))
        assert idle[0].recv(1) == b""
        assert collector.idle_closed == 1
        for sender in (last, honest):
            sender.sendall(golden_messages()[1] if sender is honest else b"".join(golden_messages()[:2]))
            assert len(receive(collector, 5)) == 5
    assert "of 256 connections it was idle for longest" in caplog.text
    assert "1 idle connections closed" in collector.account()


def test_datagrams_that_the_kernel_drops_are_counted_and_said(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """Sent while nobody reads, more than the buffer takes."""
    raw = message((2, template(300, (4, 1))), (4, bytes(60_000)))
    sent = 1_200
    send_udp("127.0.0.1", collector.port, [raw] * sent)
    dropped = collector.dropped
    assert 0 < dropped < sent
    serve_until(collector, lambda: collector.decoder.stats.messages == sent - dropped)
    list(collector.receive(0))
    assert f"the kernel dropped {dropped} datagrams" in caplog.text
    assert f", {dropped} datagrams dropped by the kernel" in collector.account()


def test_a_round_ends_after_some_work(collector: Collector) -> None:
    """A TCP exporter is served between the datagrams of one that sends as much work as it can."""
    case = WORST["records of one octet"]
    with connect(collector) as stream:
        send_udp("127.0.0.1", collector.port, [*case.before, *[case.raw] * 20])
        stream.sendall(golden_messages()[0])
        rounds, served = [], []
        for _ in range(30):
            begin = collector.decoder.steps
            served.append({exporter.transport for exporter, _ in collector.receive(0)})
            rounds.append(collector.decoder.steps - begin)
    assert {"tcp", "udp"} in served[:2]
    assert max(rounds) <= 4 * MAX_STEPS
    assert sum(rounds) > 20 * 0.9 * MAX_STEPS
    assert collector.decoder.stats.unread_octets > 20 * 50_000
    assert "octets not read" in collector.account()
