"""Transport Sessions over UDP, on real sockets on loopback."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import pytest

from lab.namespaces import Lab, command, in_namespace
from netobs.export import Address
from netobs.export.link.udp import PACE_BYTES, PACE_NS
from netobs.flow.tally import Tally
from tests.unit.export.support import (
    REALTIME_NS,
    SECOND,
    Bench,
    Encoder,
    Message,
    UdpCollector,
    check_sequence,
    free_port,
    numbers_of,
    rows,
    templates_of,
    udp_config,
)

GSO_MESSAGE = 1400
ROWS_PER_MESSAGE = (GSO_MESSAGE - 20) // 36
MakeBench = Callable[..., Bench]
MakeUdp = Callable[..., UdpCollector]


@pytest.fixture
def collector(make_udp: MakeUdp) -> UdpCollector:
    return make_udp()


@pytest.fixture
def bench(make_bench: MakeBench, collector: UdpCollector) -> Bench:
    return make_bench(udp_config(collector.port))


def segmenting(bench: Bench) -> bool:
    return bool(bench.session._link.segmentation)  # type: ignore[attr-defined]


def test_templates_go_out_at_open_and_before_data(bench: Bench, collector: UdpCollector) -> None:
    early = bool(bench.session.account.attempts)  # by a name: mypy takes a property for constant
    assert not early
    bench.open()
    assert bool(bench.session.account.attempts)
    assert bench.connected
    sent = bench.send(1000)
    messages = collector.messages()
    assert messages[0].numbers == []
    assert numbers_of(messages) == sent
    check_sequence(messages)
    assert {message.observation_domain for message in messages} == {7}
    assert {message.export_time_s for message in messages} == {(REALTIME_NS + bench.now_ns) // SECOND}
    assert bench.stats.messages == len(messages) - 1
    assert bench.stats.template_messages == 1
    assert bench.stats.sent == bench.stats.seen


def test_counters_say_what_was_sent(bench: Bench, collector: UdpCollector) -> None:
    bench.open()
    bench.send(500)
    expected = rows(0, 500)
    sent = bench.stats.sent
    assert (sent.flows, sent.packets, sent.octets) == (500, expected.packets.sum(), expected.octets.sum())
    assert bench.stats.bytes == sum(map(len, collector.raw()))


def test_templates_are_refreshed_on_time(bench: Bench, collector: UdpCollector) -> None:
    bench.open()
    bench.send(10)
    collector.raw()
    bench.move(59.9)
    assert collector.messages() == []
    bench.move(0.2)
    (refresh,) = collector.messages()
    assert refresh.numbers == []
    assert refresh.sequence == 10
    for _ in range(5):
        bench.move(60)
    assert len(templates_of(collector.messages())) == 5


def test_export_time_follows_the_wall_clock(bench: Bench, collector: UdpCollector) -> None:
    """Set back, with the Templates before the data: RFC 7011, section 8.2."""
    bench.open()
    bench.move(2)
    bench.send(1)
    bench.step_ns = -3600 * SECOND
    bench.send(1)
    bench.step_ns = 3600 * SECOND
    bench.send(1)
    base = (REALTIME_NS + 7 * SECOND) // SECOND
    assert [(message.export_time_s - base, len(message.numbers)) for message in collector.messages()] == [
        (-2, 0), (0, 1), (-3600, 0), (-3600, 1), (3600, 1)
    ]  # fmt: skip


def test_templates_follow_a_wall_clock_that_is_set_while_nothing_is_sent(bench: Bench, collector: UdpCollector) -> None:
    bench.open()
    collector.raw()
    bench.step_ns = 86_400 * SECOND
    bench.session.see_clock(bench.clock)
    bench.move(60)
    (refresh,) = collector.messages()
    assert refresh.export_time_s == (REALTIME_NS + bench.now_ns + bench.step_ns) // SECOND


def test_two_readings_of_the_clocks_that_differ_are_no_step(bench: Bench, collector: UdpCollector) -> None:
    bench.open()
    bench.send(1)
    bench.step_ns = -1
    bench.send(1)
    messages = collector.messages()
    assert len({message.export_time_s for message in messages}) == 1
    assert [len(message.numbers) for message in messages] == [0, 1, 1]


def test_sequence_goes_on_over_many_sends(bench: Bench, collector: UdpCollector) -> None:
    bench.open()
    for count in (1, 38, 39, 40, 5000):
        bench.send(count)
    check_sequence(collector.messages())


def test_bursts_fit_a_collectors_buffer(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port))
    bench.open()
    collector.raw()
    bench.now_ns += PACE_NS
    offered = bench.offer(10_000)
    bursts: list[list[bytes]] = []
    while bench.stats.queued.flows:
        bursts.append(collector.raw())
        bench.rounds()
        assert collector.raw() == [], "the clock stands still: nothing more may leave"
        bench.now_ns += PACE_NS
        bench.loop.run_once(0)
    bursts.append(collector.raw())
    assert all(PACE_BYTES // 2 < sum(map(len, burst)) <= PACE_BYTES + 1400 for burst in bursts[:-1])
    assert numbers_of([Message.parse(data) for burst in bursts for data in burst]) == offered


def test_a_queue_that_would_overflow_is_not_paced(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port, queue_max_bytes=65_536))
    bench.open()
    bench.offer(20_000)
    assert bench.stats.not_sent == {}
    assert bench.stats.queued.flows * 36 < 65_536


def test_gso_and_plain_sends_give_the_same_datagrams(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    got = []
    for segmentation in (True, False):
        collector = make_udp()
        bench = make_bench(udp_config(collector.port))
        bench.open()
        assert segmenting(bench), "loopback does UDP segmentation on every kernel from 4.18 on"
        bench.session._link.segmentation = segmentation  # type: ignore[attr-defined]
        bench.send(130 * ROWS_PER_MESSAGE + 1)  # batches of 46, the last short
        assert segmenting(bench) == segmentation
        got.append(collector.raw())
    assert got[0] == got[1]
    assert len(got[0]) == 1 + 131


def test_path_without_checksum_offload_falls_back_to_plain_sends(
    caplog: pytest.LogCaptureFixture, make_udp: MakeUdp, make_bench: MakeBench
) -> None:
    """SO_NO_CHECK makes the kernel refuse UDP_SEGMENT with EINVAL, as a path without offload does with EIO."""
    caplog.set_level(logging.INFO, "netobs.export")
    collector = make_udp()
    bench = make_bench(udp_config(collector.port))
    bench.open()
    bench.session._link._sock.setsockopt(socket.SOL_SOCKET, 11, 1)  # type: ignore[union-attr]
    sent = bench.send(5000)
    assert not segmenting(bench)
    assert numbers_of(collector.messages()) == sent
    assert bench.stats.not_sent == {}
    assert sum("no UDP segmentation" in line for line in caplog.messages) == 1


def test_ipv6(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    collector = make_udp("::1")
    bench = make_bench(udp_config(collector.port, host="::1"))
    bench.open()
    sent = bench.send(1000)
    assert numbers_of(collector.messages()) == sent
    assert str(bench.session) == f'collector "main" (udp [::1]:{collector.port})'


def test_source_address_and_checksum(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = make_bench(udp_config(collector.port, source="127.0.0.5"))
    bench.open()
    sock = bench.session._link._sock
    assert sock is not None
    assert sock.getsockname()[0] == "127.0.0.5"
    assert sock.getsockopt(socket.SOL_SOCKET, 11) == 0  # SO_NO_CHECK


def test_source_that_is_not_ours_is_tried_again(
    collector: UdpCollector, caplog: pytest.LogCaptureFixture, make_bench: MakeBench
) -> None:
    bench = make_bench(udp_config(collector.port, source="192.0.2.200"))
    bench.open()
    assert bool(bench.session.account.attempts)
    bench.send(10)
    for _ in range(5):
        bench.move(100)
    assert bench.stats.queued.flows == 10
    assert bench.stats.failed_attempts == 6
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 6, "once a minute at most, and the attempts here are more than a minute apart"
    assert all('source "192.0.2.200"' in warning for warning in warnings)
    bench.close()
    assert bench.stats.not_sent["closed"].flows == 10


def test_collector_down_is_counted_and_gets_templates_first_when_back(
    caplog: pytest.LogCaptureFixture, make_udp: MakeUdp, make_bench: MakeBench
) -> None:
    caplog.set_level(logging.INFO, "netobs.export")
    port = free_port(socket.SOCK_DGRAM)
    bench = make_bench(udp_config(port))
    bench.open()
    for _ in range(5):
        bench.rounds()
        bench.send(3000)
        bench.move(5)
    assert bench.stats.refused >= 5
    assert bench.stats.sent.flows + bench.stats.not_sent_total().flows == 15_000
    source = bench.session._link._port  # type: ignore[attr-defined]

    collector = make_udp(port=port)
    assert bench.stats.not_sent["refused"].flows == 15_000
    sent = bench.send(100)
    messages = collector.messages()
    assert messages[0].numbers == []
    assert messages[0].sequence == messages[1].sequence == 15_000
    assert numbers_of(messages) == sent
    refused = bench.stats.refused
    bench.move(1.1)
    assert len(templates_of(collector.messages())) == 1  # resent soon, without waiting for the refresh
    bench.send(100)
    assert templates_of(collector.messages()) == []
    assert bench.stats.sent.flows == 200
    assert collector.sources == {source}
    assert bench.stats.refused == refused
    states = [line.split(": ", 1)[1] for line in caplog.messages]
    assert [state.split()[0] for state in states] == ["sends", "nothing", "takes"]


def test_collector_killed_and_restarted_loses_only_the_time_between(
    bench: Bench, collector: UdpCollector, make_udp: MakeUdp
) -> None:
    bench.open()
    first = bench.send(100)
    assert numbers_of(collector.messages()) == first
    collector.close()
    bench.send(100)
    bench.until(lambda: bench.stats.refused == 1, "the refusal")
    assert bench.stats.not_sent["refused"].flows == 200, "the first 100 were sent in the same instant: it may be theirs"
    again = make_udp(port=collector.port)
    third = bench.send(100)
    assert numbers_of(again.messages()) == third


def test_pending_refusal_does_not_cost_a_message(bench: Bench, collector: UdpCollector, make_udp: MakeUdp) -> None:
    """The kernel reports the refusal of an earlier datagram by the next send, which it does not do."""
    bench.open()
    collector.close()
    bench.send(1)
    again = make_udp(port=collector.port)
    sent = bench.send(100)  # no round of the loop between: the error is still pending
    assert bench.stats.refused == 1
    assert numbers_of(again.messages()) == sent
    assert bench.stats.not_sent == {"refused": Tally.of(rows(0, 1))}


def test_a_talkative_collector_is_not_listened_to(bench: Bench, collector: UdpCollector) -> None:
    bench.open()
    for _ in range(100):
        collector.sock.sendto(b"hello", ("127.0.0.1", bench.session._link._port))  # type: ignore[attr-defined]
    bench.rounds(10)
    sent = bench.send(10)
    assert numbers_of(collector.messages()) == sent
    assert bench.stats.refused == 0


def test_message_longer_than_a_datagram_is_shortened_without_loss(
    caplog: pytest.LogCaptureFixture, make_udp: MakeUdp, make_bench: MakeBench
) -> None:
    collector = make_udp()
    bench = make_bench(udp_config(collector.port, max_message_size=65_535))
    bench.open()
    sent = bench.send(4000)
    datagrams = collector.raw()
    assert 65_000 < max(map(len, datagrams)) <= 65_507
    assert bench.stats.sent.flows == len(sent)
    assert sum("exceeds the path MTU" in line for line in caplog.messages) == 1


@pytest.mark.kernel
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_path_mtu_that_shrinks_costs_nothing(
    lab: Lab, host: str, caplog: pytest.LogCaptureFixture, make_udp: MakeUdp, make_bench: MakeBench
) -> None:
    ns = lab.namespace()
    lab.sysctl(ns, "net/ipv6/conf/lo/disable_ipv6", 0)
    with in_namespace(ns):
        collector = make_udp(host)
        bench = make_bench(udp_config(collector.port, host=host, max_message_size=8000))
        bench.open()
        bench.send(1000)
        command(["ip", "-n", ns, "link", "set", "lo", "mtu", "1300"])
        bench.send(1000)
        command(["ip", "-n", ns, "link", "set", "lo", "mtu", "65536"])
        bench.send(1000)
        bench.move(60)
        bench.send(1000)
        datagrams = collector.raw()
    sizes = [len(data) for data in datagrams]
    middle = sizes[sizes.index(max(sizes[:10])) + 10 :]
    limit = 1300 - (48 if ":" in host else 28)
    assert any(limit - 36 < size <= limit for size in middle)
    assert max(sizes[-4:]) > 7900, "the refresh of the templates finds the path MTU grown"
    messages = [Message.parse(data) for data in datagrams]
    assert numbers_of(messages) == list(range(4000))
    check_sequence(messages)
    assert bench.stats.not_sent == {}
    assert sum("exceeds the path MTU" in line for line in caplog.messages) == 1


@pytest.mark.kernel
def test_path_mtu_too_small_for_any_message_is_counted(
    lab: Lab, caplog: pytest.LogCaptureFixture, make_udp: MakeUdp, make_bench: MakeBench
) -> None:
    ns = lab.namespace()
    command(["ip", "-n", ns, "link", "set", "lo", "mtu", "300"])
    with in_namespace(ns):
        collector = make_udp()
        bench = make_bench(udp_config(collector.port))
        bench.open()
        bench.send(100)
        messages = collector.messages()
    assert bench.stats.not_sent["EMSGSIZE"].flows + bench.stats.sent.flows == 100
    assert bench.stats.not_sent["EMSGSIZE"].flows >= 91
    assert len(numbers_of(messages)) == bench.stats.sent.flows
    assert sum("counted as not sent" in line for line in caplog.messages) == 1


@pytest.mark.kernel
def test_network_that_goes_and_comes_back(
    lab: Lab, caplog: pytest.LogCaptureFixture, make_udp: MakeUdp, make_bench: MakeBench
) -> None:
    caplog.set_level(logging.INFO, "netobs.export")
    near, far = lab.pair()
    lab.address(near, "192.0.2.1/24")
    lab.address(far, "192.0.2.2/24")
    with in_namespace(far.ns):
        collector = make_udp("192.0.2.2", 4739)
    with in_namespace(near.ns):
        bench = make_bench(udp_config(4739, host="192.0.2.2"))
        bench.open()
        first = bench.send(2000)
        got: list[int] = []
        bench.until(lambda: collector_has(collector, got, 2000), "all flows at the collector")
        command(["ip", "-n", near.ns, "route", "del", "192.0.2.0/24"])
        second = bench.send(2000)
        bench.rounds()
        assert bench.stats.queued.flows == len(second)
        assert bench.stats.messages == -(-len(first) // ROWS_PER_MESSAGE)
        for _ in range(14):
            bench.move(5)
        command(["ip", "-n", near.ns, "route", "add", "192.0.2.0/24", "dev", near.name])
        bench.move(5)
        third = bench.send(2000)
        bench.until(lambda: collector_has(collector, got, 6000), "what has waited, and the rest")
    assert got == first + second + third
    assert bench.stats.sent.flows == 6000
    states = [line.split(": ", 1)[1] for line in caplog.messages]
    assert [state.split()[0] for state in states] == ["sends", "no", "not", "sends"]
    assert "Network is unreachable" in states[1]
    assert "Network is unreachable" in states[2], "said again after a minute"


def collector_has(collector: UdpCollector, got: list[int], count: int) -> bool:
    got.extend(numbers_of(collector.messages()))
    return len(got) >= count


def test_name_with_no_address_is_tried_again_and_harms_nothing(
    caplog: pytest.LogCaptureFixture, make_bench: MakeBench
) -> None:
    bench = make_bench(udp_config(9, host="no-such-host.invalid"))
    bench.open()
    bench.until(lambda: bool(bench.session.account.attempts), "the name service's answer")
    bench.send(10)
    assert bench.stats.failed_attempts == 1
    assert bench.stats.queued.flows == 10
    assert 'host "no-such-host.invalid" has no address' in caplog.text
    bench.now_ns += SECOND
    bench.until(lambda: bench.stats.failed_attempts == 2, "the second attempt")
    bench.close()
    assert bench.stats.not_sent["closed"].flows == 10


def test_name_is_resolved(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = make_bench(udp_config(collector.port, host="localhost", source="127.0.0.1"))
    bench.open()
    sent = bench.send(100)
    assert bench.stats.queued.flows == 100
    bench.until(lambda: bench.stats.sent.flows == 100, "the name service's answer, and the lead of the Templates")
    messages = collector.messages()
    assert messages[0].numbers == []
    assert numbers_of(messages) == sent
    check_sequence(messages)


def test_named_collector_that_fails_for_long_is_looked_up_again(make_bench: MakeBench) -> None:
    bench = make_bench(udp_config(free_port(socket.SOCK_DGRAM), host="localhost", source="127.0.0.1"))
    bench.open()
    bench.until(lambda: bench.connected, "the name service's answer")
    link = bench.session._link
    port = link._port  # type: ignore[attr-defined]
    since_ns = bench.now_ns
    for _ in range(4):
        bench.send(10)
        bench.move(5)
    assert link._failing_since_ns > since_ns, "the name service was asked"  # type: ignore[attr-defined]
    bench.until(lambda: not link._resolving, "the name service's answer")
    assert bench.stats.reconnects == 0, "the only address of the name: nothing changes"
    assert link._port == port  # type: ignore[attr-defined]


def test_next_address_gets_a_new_session_from_the_same_port(make_udp: MakeUdp, make_bench: MakeBench) -> None:
    first, second = make_udp("127.0.0.1"), make_udp("127.0.0.2")
    bench = make_bench(udp_config(first.port))
    bench.open()
    bench.send(100)
    addresses = [
        Address(socket.AF_INET, ("127.0.0.1", first.port)),
        Address(socket.AF_INET, ("127.0.0.2", second.port)),
    ]
    bench.session._link._on_resolved(addresses, bench.now_ns)
    sent = bench.send(100)
    messages = second.messages()
    assert messages[0].numbers == []
    assert numbers_of(messages) == sent
    check_sequence(messages)
    first.messages()
    assert first.sources == second.sources
    assert bench.stats.reconnects == 1


@pytest.mark.kernel
def test_full_socket_blocks_nothing_and_loses_nothing(lab: Lab, make_udp: MakeUdp, make_bench: MakeBench) -> None:
    """A link slower than the burst: the socket's buffer fills, the rest waits here until the link has taken it."""
    near, far = lab.pair()
    lab.address(near, "192.0.2.1/24")
    lab.address(far, "192.0.2.2/24")
    shaper = ["dev", near.name, "root", "tbf", "burst", "128k", "limit", "64m", "rate"]
    lab.run(near.ns, ["tc", "qdisc", "add", *shaper, "2mbit"])
    with in_namespace(far.ns):
        collector = make_udp("192.0.2.2", 4739)
    with in_namespace(near.ns):
        bench = make_bench(udp_config(4739, host="192.0.2.2"), Encoder(templates=3))
        bench.open()
        sent = bench.send(150_000)
        assert bench.stats.queued.flows > 0
        more = bench.send(10)
        lab.run(near.ns, ["tc", "qdisc", "change", *shaper, "2gbit"])
        got: list[int] = []
        bench.until(lambda: collector_has(collector, got, 150_010), "all flows at the collector")
    assert got == sent + more
    assert bench.stats.not_sent == {}
    assert bench.stats.sent == bench.stats.seen


def test_close_sends_what_waits_for_a_name(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = make_bench(udp_config(collector.port, host="localhost", source="127.0.0.1"))
    bench.open()
    sent = bench.send(10)
    bench.session.close(bench.now_ns, bench.now_ns + SECOND)
    bench.until(lambda: bench.session.closed, "the end of the session")
    assert numbers_of(collector.messages()) == sent


def test_several_template_messages_come_before_the_data(collector: UdpCollector, make_bench: MakeBench) -> None:
    bench = make_bench(udp_config(collector.port), Encoder(templates=3))
    bench.open()
    bench.send(10)
    bench.move(60)
    assert [bool(message.numbers) for message in collector.messages()] == [False, False, False, True, *[False] * 3]
    assert bench.stats.template_messages == 6
