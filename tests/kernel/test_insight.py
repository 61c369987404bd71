"""What the programs say of TCP connections: by crafted segments, in all flow tables, and on a path with delays."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import pytest

from lab import frames as f
from lab.namespaces import Lab
from lab.path import PORT, TcpInfo, TcpPath, Wire, bulk, exchanges
from lab.prog_run import Programs, merged, on_cpu
from lab.wire import measured
from netobs.datapath.layout import FLOW_TABLES
from netobs.flow.metrics import NO_SAMPLE
from netobs.flow.records import INSIGHT

pytestmark = pytest.mark.kernel

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
COUNTS = ("retransmitted_packets", "retransmitted_octets", "out_of_order_packets", "zero_window_packets", "syn_packets",
          "fin_packets", "rst_packets")  # fmt: skip


class Conversation:
    """Segments of one connection at an interface: the client's come in, the server's go out."""

    ports = itertools.count(5000)
    """The programs remember the last connection with the same ends."""

    def __init__(self, programs: Programs, ipv6: bool = False) -> None:
        self._programs, self._ipv6, self._port = programs, ipv6, next(self.ports)

    def _segment(self, flags: int, seq: int, ack: int, octets: int, window: int, from_server: bool) -> bytes:
        ports = (443, self._port) if from_server else (self._port, 443)
        tcp = struct.pack("!HHIIHHHH", *ports, seq % (1 << 32), ack % (1 << 32), 5 << 12 | flags, window, 0, 0)
        if self._ipv6:
            ends = ("2001:db8::2", "2001:db8::1") if from_server else ("2001:db8::1", "2001:db8::2")
            return f.ethernet(f.IPV6, f.ipv6(f.TCP, tcp + bytes(octets), src=ends[0], dst=ends[1]))
        ends = (SERVER, CLIENT) if from_server else (CLIENT, SERVER)
        return f.ethernet(f.IPV4, f.ipv4(f.TCP, tcp + bytes(octets), src=ends[0], dst=ends[1]))

    def client(self, flags: int, seq: int, ack: int = 0, octets: int = 0, window: int = 1000) -> None:
        self._programs.send(self._segment(flags, seq, ack, octets, window, False), "netobs_ingress", ifindex=1)

    def server(self, flags: int, seq: int, ack: int = 0, octets: int = 0, window: int = 1000) -> None:
        self._programs.send(self._segment(flags, seq, ack, octets, window, True), "netobs_egress", ifindex=1)

    def flows(self) -> tuple[np.void, np.void]:
        """Those of the client and of the server."""
        rows = merged(self._programs.evict())
        (client,), (server,) = rows[rows["src_port"] == self._port], rows[rows["src_port"] == 443]
        return client, server


def counts(row: np.void) -> dict[str, int]:
    return {name: int(row[name]) for name in COUNTS if row[name]}


@pytest.fixture(scope="module", params=FLOW_TABLES)
def programs(request: pytest.FixtureRequest) -> Iterator[Programs]:
    with Programs(max_flows=1024, flow_table=request.param, extra_groups=("tcp",), precise_time=True) as loaded:
        yield loaded


def has_table(programs: Programs) -> bool:
    """With the ring buffer, each packet is a record of its own: nothing says what came before."""
    return bool(programs.table.MAPS)


@pytest.mark.parametrize("ipv6", [False, True])
def test_both_halves_of_a_handshake(programs: Programs, ipv6: bool) -> None:
    began_ns = time.monotonic_ns()
    talk = Conversation(programs, ipv6)
    talk.client(f.SYN, 100)
    time.sleep(0.03)
    talk.server(f.SYN | f.ACK, 500, 101)
    time.sleep(0.01)
    talk.client(f.ACK, 101, 501)
    talk.server(f.ACK, 501, 101)
    took_us = (time.monotonic_ns() - began_ns) / 1000
    client, server = talk.flows()
    assert 30_000 <= client["handshake_rtt"] == client["rtt_min"] == client["rtt_max"] <= took_us - 10_000
    assert 10_000 <= server["handshake_rtt"] == server["rtt_min"] == server["rtt_sum"] <= took_us - 30_000
    assert client["rtt_samples"] == server["rtt_samples"] == 1
    assert counts(client) == counts(server) == {"syn_packets": 1}


def test_octets_are_timed_until_all_of_them_are_acknowledged(programs: Programs) -> None:
    talk = Conversation(programs)
    talk.client(f.ACK, 1000, 1, 100)
    talk.server(f.ACK, 1, 1050)
    talk.server(f.ACK, 1, 1000)
    time.sleep(0.01)
    talk.server(f.ACK, 1, 1100)
    talk.client(f.ACK, 1100, 1)
    client, server = talk.flows()
    assert client["rtt_samples"] == 1
    assert client["rtt_min"] >= 10_000
    assert client["handshake_rtt"] == NO_SAMPLE
    assert (server["rtt_samples"], server["rtt_min"]) == (0, NO_SAMPLE)


def test_numbers_go_round(programs: Programs) -> None:
    talk = Conversation(programs)
    last = (1 << 32) - 50
    talk.client(f.ACK, last, 1, 100)
    talk.server(f.ACK, 1, last + 100)
    talk.client(f.ACK, last + 100, 1, 100)
    client, _ = talk.flows()
    assert client["rtt_samples"] == 1
    assert counts(client) == {}


def test_what_was_sent_again_is_not_timed(programs: Programs) -> None:
    talk = Conversation(programs)
    talk.client(f.ACK, 1000, 1, 100)
    talk.client(f.ACK, 1000, 1, 100)
    talk.server(f.ACK, 1, 1100)
    talk.client(f.ACK, 1100, 1)
    client, _ = talk.flows()
    assert client["rtt_samples"] == 0
    if has_table(programs):
        assert counts(client) == {"retransmitted_packets": 1, "retransmitted_octets": 100}


def test_retransmissions(programs: Programs) -> None:
    talk = Conversation(programs)
    talk.client(f.ACK, 1000, 1, 300)
    talk.client(f.ACK, 1100, 1, 400)  # half of it is new
    talk.client(f.ACK, 1499, 1, 1)  # a keep-alive
    talk.client(f.FIN | f.ACK, 1500, 1)
    talk.client(f.FIN | f.ACK, 1500, 1)
    talk.client(f.RST, 1200, 1)
    talk.server(f.ACK, 1, 1501)
    client, server = talk.flows()
    again = {"retransmitted_packets": 2, "retransmitted_octets": 201} if has_table(programs) else {}
    assert counts(client) == {**again, "fin_packets": 2, "rst_packets": 1}
    assert counts(server) == {}


def test_a_late_packet_is_out_of_order_or_sent_again(programs: Programs) -> None:
    talk = Conversation(programs)
    talk.client(f.ACK, 1000, 1, 100)
    time.sleep(0.05)
    talk.server(f.ACK, 1, 1100)
    talk.client(f.ACK, 1100, 1, 100)  # 50 ms are known now
    talk.client(f.ACK, 1300, 1, 100)
    talk.client(f.ACK, 1200, 1, 100)
    talk.client(f.ACK, 1500, 1, 100)
    time.sleep(0.06)
    talk.client(f.ACK, 1400, 1, 100)
    talk.server(f.ACK, 1, 1600)
    client, _ = talk.flows()
    late = {"out_of_order_packets": 1, "retransmitted_packets": 1, "retransmitted_octets": 100}
    assert counts(client) == (late if has_table(programs) else {})


@pytest.mark.parametrize("seq", [0, 1 << 31])
def test_a_flow_may_begin_without_octets(programs: Programs, seq: int) -> None:
    """As after an eviction."""
    talk = Conversation(programs)
    talk.client(f.ACK, seq + 100, 1)
    talk.client(f.ACK, seq + 100, 1, 10)
    talk.client(f.ACK, seq + 110, 1, 10)
    talk.server(f.ACK, 1, seq + 120)
    client, _ = talk.flows()
    assert counts(client) == {}
    if has_table(programs):
        talk.client(f.ACK, seq + 120, 1, 5)
        talk.client(f.ACK, seq + 120, 1, 5)
        talk.server(f.ACK, 1, seq + 125)
        assert counts(talk.flows()[0]) == {"retransmitted_packets": 1, "retransmitted_octets": 5}


def test_zero_windows(programs: Programs) -> None:
    talk = Conversation(programs)
    talk.client(f.ACK, 1000, 1, 100)
    talk.server(f.ACK, 1, 1100, window=0)
    talk.server(f.ACK, 1, 1100, window=5)
    talk.server(f.RST, 1, 0, window=0)
    _, server = talk.flows()
    assert counts(server) == {"zero_window_packets": 1, "rst_packets": 1}


def test_other_protocols_have_nothing(programs: Programs) -> None:
    programs.send(f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(20)))))
    programs.send(f.ethernet(f.IPV4, f.ipv4(f.TCP, struct.pack("!HHIH", 1, 2, 3, 4))))  # it ends within the header
    programs.send(f.ethernet(f.IPV4, f.ipv4(f.TCP, struct.pack("!HHIIHHHH", 1, 2, 3, 4, 15 << 12 | 2, 0, 0, 0))))
    for row in merged(programs.evict()):
        assert counts(row) == {}
        assert (row["rtt_samples"], row["rtt_min"], row["handshake_rtt"]) == (0, NO_SAMPLE, NO_SAMPLE)


def test_connections_are_told_apart(programs: Programs) -> None:
    """Hundreds at once, whose ends have one address or port in common."""
    talks = [Conversation(programs) for _ in range(200)]
    for number, talk in enumerate(talks):
        talk.client(f.SYN, 1000 * number)
    time.sleep(0.02)
    for number, talk in enumerate(talks):
        talk.server(f.SYN | f.ACK, 7, 1000 * number + 1)
        talk.client(f.ACK, 1000 * number + 1, 8)
    rows = merged(programs.evict())
    clients = rows[rows["dst_port"] == 443]
    assert len(clients) == 200
    assert (clients["rtt_samples"] <= 1).all()
    assert np.count_nonzero(clients["rtt_samples"]) > 170  # some share a bucket with two others
    assert (clients["handshake_rtt"] >= 20_000).all()


@pytest.mark.parametrize("sampling", [1, 2])
def test_nothing_is_timed_where_packets_are_sampled(sampling: int) -> None:
    with Programs(max_flows=64, extra_groups=("tcp",), sampling=sampling) as programs:
        talk = Conversation(programs)
        for number in range(200):
            talk.client(f.ACK, number, number, 1)
            talk.server(f.ACK, number, number + 1, 1)
        client, server = talk.flows()
        assert (client["rtt_samples"] > 0) == (server["rtt_samples"] > 0) == (sampling == 1)


def test_random_segments_are_accounted_for(programs: Programs) -> None:
    rng = random.Random(7)
    for _ in range(2000):
        header = struct.pack("!HHIIHHHH", rng.randrange(4), rng.randrange(4), rng.getrandbits(32), rng.getrandbits(32),
                             rng.getrandbits(16), rng.getrandbits(16), 0, 0)  # fmt: skip
        tcp = (header + bytes(rng.randrange(60)))[: rng.randrange(80)]
        ends = rng.sample([CLIENT, SERVER, "10.0.0.3"], 2)
        frame = f.ethernet(f.IPV4, f.ipv4(f.TCP, tcp, src=ends[0], dst=ends[1]))
        observed = programs.observe(frame, program=rng.choice(["netobs_ingress", "netobs_egress"]), ifindex=1)
        assert int(observed.records["packets"].sum()) == 1


def test_flows_of_several_cpus_are_one_with_all_samples() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with Programs(max_flows=64, extra_groups=("tcp",), precise_time=True) as programs:
        talk = Conversation(programs)
        for number, cpu in enumerate((cpus[0], cpus[-1], cpus[0])):
            time.sleep(0.005)  # one packet in a millisecond is timed
            with on_cpu(cpu):
                talk.client(f.ACK, 100 * number, 1, 100)
                talk.server(f.ACK, 1, 100 * number + 100)
                talk.client(f.ACK, 100 * number + 100, 1)
        client, _ = talk.flows()
        assert client["rtt_samples"] == 3
        assert client["rtt_min"] <= client["rtt_sum"] // 3 <= client["rtt_max"]
        assert set(INSIGHT.names or ()) <= set(client.dtype.names or ())


class Measured(NamedTuple):
    """What the programs say of one connection, and what the kernels of both ends do."""

    client: np.void
    server: np.void
    of_client: TcpInfo
    of_server: TcpInfo


Talk = Callable[[socket.socket, socket.socket], None]


def measure(folder: Path, near: Wire, far: Wire, talk: Talk, at_far: bool = False, offloads: bool = True) -> Measured:
    """``talk`` on a connection over a router, which measures at one of its interfaces."""
    with contextlib.ExitStack() as stack:
        path = TcpPath(stack.enter_context(Lab()), folder, near, far, offloads)
        stack.callback(path.close)
        at = path.far if at_far else path.near
        programs = stack.enter_context(measured(at, direction="both", extra_groups=("tcp",)))
        client, server = stack.enter_context(path.connection())
        talk(client, server)
        info = TcpInfo.of(client), TcpInfo.of(server)
        rows = merged(programs.evict())
    rows = rows[rows["protocol"] == 6]
    (to_server,), (to_client,) = rows[rows["dst_port"] == PORT], rows[rows["src_port"] == PORT]
    return Measured(to_server, to_client, *info)


def much(client: socket.socket, server: socket.socket) -> None:
    bulk(client, server, 10_000_000)


def both(client: socket.socket, server: socket.socket) -> None:
    exchanges(client, server, 50)
    bulk(client, server, 2_000_000)


@pytest.mark.kernel(tools=("gcc",))
@pytest.mark.parametrize("at_far", [False, True])
@pytest.mark.parametrize("offloads", [True, False])
def test_halves_add_up_to_what_the_kernel_measures(tmp_path: Path, at_far: bool, offloads: bool) -> None:
    """Over 1 ms before the router and 4 ms behind it."""
    found = measure(tmp_path, Wire(1000), Wire(4000), both, at_far, offloads)
    assert found.client["rtt_samples"] >= 10
    assert found.server["rtt_samples"] >= 10
    assert found.client["rtt_min"] >= 8000  # there and back
    assert found.server["rtt_min"] >= 2000
    whole = int(found.client["rtt_min"]) + int(found.server["rtt_min"])
    assert 10_000 <= whole <= found.of_client.min_rtt * 1.05 + 50
    for row in found[:2]:
        assert row["rtt_min"] <= row["rtt_sum"] // row["rtt_samples"] <= row["rtt_max"]
        assert row["rtt_min"] <= row["handshake_rtt"] < NO_SAMPLE


@pytest.mark.kernel(tools=("gcc",))
@pytest.mark.parametrize("lost_before", [False, True])
def test_retransmissions_are_those_of_the_kernel(tmp_path: Path, lost_before: bool) -> None:
    """One frame in a hundred is lost before the router or behind it."""
    wires = Wire(500, loss=10_000 * lost_before), Wire(500, loss=10_000 * (not lost_before))
    found = measure(tmp_path, *wires, much, offloads=False)
    sent_again = found.of_client.retransmitted
    assert sent_again > 5
    # Some are lost again before they get here.
    assert abs(int(found.client["retransmitted_packets"]) - sent_again) <= max(2, sent_again // 25)
    assert found.client["out_of_order_packets"] <= max(1, sent_again // 50)


@pytest.mark.kernel(tools=("gcc",))
def test_packets_that_overtake_each_other_are_not_sent_again(tmp_path: Path) -> None:
    """One in a hundred comes half a millisecond late; the kernel sends some of them again itself."""
    found = measure(tmp_path, Wire(10_000, swap=10_000), Wire(10_000), much, offloads=False)
    late = int(found.client["out_of_order_packets"])
    assert late > 5
    falsely = int(found.client["retransmitted_packets"]) - found.of_client.retransmitted
    assert falsely <= max(2, late // 10)
