"""Which collector of a group gets which flows, with real sessions."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from netobs.config import GroupConfig
from netobs.flow.records import FlowBatch
from netobs.flow.tally import Tally
from tests.unit.export.site import FlowEncoder, Site, flows, group, received, tcp
from tests.unit.export.support import (
    TcpCollector,
    UdpCollector,
    check_sequence,
    free_port,
    is_suspect,
    is_up,
    numbers_of,
    udp_config,
)

MakeTcp = Callable[..., TcpCollector]
MakeUdp = Callable[..., UdpCollector]
MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(cleanup: contextlib.ExitStack) -> Callable[..., Site]:
    def make(*arguments: Any) -> Site:
        site = Site(*arguments)
        cleanup.callback(site.close)
        return site

    return make


def test_failover_and_back(make_site: MakeSite, make_tcp: MakeTcp, caplog: pytest.LogCaptureFixture) -> None:
    first, second = make_tcp(), make_tcp()
    site = make_site([tcp("a", first.port), tcp("b", second.port)], [group("failover", "a", "b")])
    a, b = site.sessions
    site.open()
    site.until(lambda: is_up(a) and is_up(b), "both are connected")
    to_first = site.send(300)
    site.until(lambda: received(first) == to_first, "the first gets all")
    assert received(second) == []
    first.close()
    site.until(lambda: not is_up(a), "the first is gone")
    to_second = site.send(200)
    site.until(lambda: received(second) == to_second, "the second gets all")
    back = make_tcp(port=first.port)
    for _ in range(10):
        site.move(1)
        if is_up(a):
            break
    assert is_up(a)
    site.move(8)
    to_second += site.send(10)
    site.move(3)
    to_first = site.send(100)
    site.until(lambda: received(back) == to_first and received(second) == to_second, "the first has its place again")
    check_sequence(back.sessions[-1])
    assert [record.message.partition(" (")[0] for record in caplog.records if record.message.startswith("group")] == [
        'group "site": flows go to collector "b"',
        'group "site": flows go to collector "a"',
    ]
    assert "again: it is up" in caplog.records[-1].message


def test_a_collector_that_flaps_is_left_alone(make_site: MakeSite, make_tcp: MakeTcp) -> None:
    first, second = make_tcp(), make_tcp()
    site = make_site([tcp("a", first.port), tcp("b", second.port)], [group("failover", "a", "b")])
    a, b = site.sessions
    site.open()
    site.until(lambda: is_up(a) and is_up(b), "both are connected")
    expected = []
    for _ in range(12):
        site.until(lambda: first.poll().connection, "it is accepted")
        first.hang_up()
        site.until(lambda: not is_up(a), "the connection is lost")
        expected += site.send(10)
        for _ in range(8):  # to the next connection
            site.move(1)
            if is_up(a):
                break
        assert is_up(a)
        expected += site.send(10)
    site.until(lambda: received(second) == expected, "the second gets all")
    assert received(first) == []


def test_what_waits_moves_on_when_the_next_is_up(make_site: MakeSite, make_tcp: MakeTcp) -> None:
    ports = [free_port(socket.SOCK_STREAM) for _ in range(3)]
    configs = [tcp(name, port) for name, port in zip("abc", ports)]
    site = make_site(configs, [group("failover", "a", "b", "c")])
    site.open()
    site.until(lambda: all(session.account.failed_attempts for session in site.sessions), "nobody is there")
    numbers = site.send(500)
    assert [session.account.queued.flows for session in site.sessions] == [500, 0, 0]
    third = make_tcp(port=ports[2])
    site.until(lambda: is_up(site.sessions[2]), "the third is up", step_s=1)
    site.move(1)
    site.until(lambda: received(third) == numbers, "what has waited arrives")
    assert site.sessions[0].account.moved_away == site.sessions[2].account.moved_in
    assert site.sessions[0].account.moved_away.flows == 500


def test_what_waits_stays_where_the_next_speaks_another_language(make_site: MakeSite, make_tcp: MakeTcp) -> None:
    second, port = make_tcp(), free_port(socket.SOCK_STREAM)
    configs = [tcp("a", port), tcp("b", second.port)]
    site = make_site(configs, [group("failover", "a", "b")], [FlowEncoder(), FlowEncoder()])
    a, b = site.sessions
    waiting = site.send(100)
    site.open()
    site.until(lambda: a.account.failed_attempts and is_up(b), "one is up")
    numbers = site.send(50)
    site.until(lambda: received(second) == numbers, "new flows go to the second")
    assert (a.account.queued.flows, a.account.moved_away) == (100, Tally())
    first = make_tcp(port=port)
    site.until(lambda: is_up(a), "the first is up", step_s=1)
    site.until(lambda: received(first) == waiting, "what has waited arrives")


def test_the_first_connection_is_waited_for(make_site: MakeSite, make_tcp: MakeTcp) -> None:
    collectors = [make_tcp(), make_tcp()]
    configs = [tcp(name, collector.port) for name, collector in zip("ab", collectors)]
    site = make_site(configs, [group("failover", "a", "b")])
    site.sessions[1].open(site.clock, site.now_ns)
    site.until(lambda: is_up(site.sessions[1]), "the second is connected")
    numbers = site.send(10)
    assert site.sessions[0].account.queued.flows == 10
    site.open()
    site.until(lambda: received(collectors[0]) == numbers, "the first gets all")


def test_failover_over_udp(make_site: MakeSite, make_udp: MakeUdp) -> None:
    first, second = make_udp(), make_udp()
    configs = [udp_config(collector.port, name=name) for name, collector in zip("ab", (first, second))]
    site = make_site(configs, [group("failover", "a", "b")])
    a, b = site.sessions
    site.open()
    site.until(lambda: is_up(a) and is_up(b), "the addresses are known")
    site.move(1)
    to_first = site.send(30)
    assert numbers_of(first.messages()) == to_first
    first.close()
    site.move(1)
    lost = site.send(30)
    site.until(lambda: is_suspect(a), "a Message is refused")
    to_second = site.send(30)
    assert numbers_of(second.messages()) == to_second
    site.move(30)
    assert is_suspect(a)
    back = make_udp(port=first.port)
    site.move(3)
    assert is_up(a)
    to_second = site.send(10)
    site.move(11)
    to_first = site.send(10)
    assert numbers_of(second.messages()) == to_second
    assert numbers_of(back.messages()) == to_first
    assert a.account.sent.flows == 40
    assert a.account.not_sent["refused"].flows == 30
    assert lost == list(range(30, 60))


def test_a_group_leaves_the_others_alone(make_site: MakeSite, make_tcp: MakeTcp) -> None:
    """All that get everything share what was encoded; unencodable flows count where they would have gone."""
    collectors = [make_tcp() for _ in range(6)]
    configs = [tcp(name, collector.port) for name, collector in zip("abcdef", collectors)]
    groups = [group("failover", "b", "a"), GroupConfig("shares", ("c", "d"), "balance"),
              GroupConfig("all", ("e", "f"), "replicate")]  # fmt: skip
    encoder = FlowEncoder()
    site = make_site(configs, groups, [encoder] * 6)
    site.open()
    site.until(lambda: all(is_up(session) for session in site.sessions), "all are connected")
    made = flows(0, 1000)
    made["vlan_id"][:10] = 1
    site.router.export(FlowBatch(made, site.clock), site.now_ns)
    everything = list(range(10, 1000))
    site.until(lambda: all(received(collectors[at]) == everything for at in (1, 4, 5)), "these get everything")
    shares = [received(collectors[at]) for at in (2, 3)]
    assert sorted(shares[0] + shares[1]) == everything
    assert min(map(len, shares)) > 400
    assert received(collectors[0]) == []
    assert encoder.batches.count(1000) == 1
    assert sum(encoder.batches) == 2000
    counts = [member.sink.account.unencodable.flows for member in site.members]
    assert [counts[at] for at in (0, 1, 4, 5)] == [0, 10, 10, 10]
    assert counts[2] + counts[3] == 10


def test_a_share_waits_for_its_collector(make_site: MakeSite, make_tcp: MakeTcp, make_udp: MakeUdp) -> None:
    up, tcp_port, udp_port = make_tcp(), free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    configs = [tcp("a", up.port), tcp("b", tcp_port), udp_config(udp_port, name="c")]
    site = make_site(configs, [group("balance", "a", "b", "c")])
    site.open()
    site.until(lambda: is_up(site.sessions[0]) and site.sessions[1].account.failed_attempts, "one is up")
    refused = site.send(300)
    site.until(lambda: is_suspect(site.sessions[2]), "a Message is refused")
    waiting = site.send(300)
    first, second = make_tcp(port=tcp_port), make_udp(port=udp_port)
    site.until(lambda: all(is_up(session) for session in site.sessions), "all are up", step_s=1)
    site.until(lambda: not sum(session.account.queued.flows for session in site.sessions), "all is sent")
    site.until(lambda: len(received(first)) == site.sessions[1].account.sent.flows, "all arrives")
    shares = [received(up), received(first), numbers_of(second.messages())]
    arrived = [number for share in shares for number in share]
    assert len(arrived) == len(set(arrived))
    assert set(waiting) <= set(arrived) <= {*refused, *waiting}
    assert all(shares)
