"""What is measured only where a template asks for it (struct flow_extra), with each of the flow tables."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from lab import frames as f
from lab.namespaces import Lab, Link
from lab.prog_run import Programs, merged, on_cpu
from lab.wire import GSO_TCPV4, Sender, exchange, measured, virtio
from netobs.datapath.layout import FLOW_TABLES
from netobs.flow.metrics import GROUPS, METRICS
from netobs.flow.records import EXTRA, Records
from tests.kernel.flows import TIMES
from tests.kernel.numbered import TICK_NS, let_pass
from tests.kernel.test_fuzz import frame_of

pytestmark = pytest.mark.kernel

CPUS = sorted(os.sched_getaffinity(0))
NONE: dict[str, Any] = {
    "tcp_options": 0, "layer2_octets": 0, "ipv6_headers": 0, "flow_label": 0, "min_tcp_window": 0xFFFF,
    "customer_vlan_id": 0, "customer_priority": 0, "fragment_flags": 0, "mpls_depth": 0, "mpls_labels": (0, 0, 0),
}  # fmt: skip
LABEL = 0xBEEF5  # of lab.frames
DF, MF = 0x40, 0x20


@pytest.fixture(scope="module")
def with_table() -> Iterator[Callable[[str], Programs]]:
    """Programs that measure all, by flow table: each is loaded once, when it is first asked for."""
    with contextlib.ExitStack() as stack:
        loaded: dict[str, Programs] = {}

        def get(table: str) -> Programs:
            if table not in loaded:
                made = Programs(max_flows=1024, flow_table=table, extra_groups=GROUPS)
                loaded[table] = stack.enter_context(made)
            return loaded[table]

        yield get


@pytest.fixture(params=FLOW_TABLES)
def programs(request: pytest.FixtureRequest, with_table: Callable[[str], Programs]) -> Programs:
    return with_table(request.param)


def extra(row: np.void) -> dict[str, Any]:
    """The optional fields of a record: TCP options and MPLS labels as numbers."""
    shown = {name: row[name] for name in EXTRA.names or ()}
    return {
        **{name: int(value) for name, value in shown.items() if not value.shape},
        "tcp_options": sum(int(word) << 64 * i for i, word in enumerate(shown["tcp_options"])),
        "mpls_labels": tuple(int.from_bytes(bytes(label), "big") for label in shown["mpls_labels"]),
    }


def expected(frames: list[bytes], **fields: Any) -> dict[str, Any]:
    return {**NONE, "layer2_octets": sum(map(len, frames)), **fields}


def one(records: Records) -> dict[str, Any]:
    """Of the one flow that ``records`` are."""
    (row,) = merged(records)
    return extra(row)


def kinds(*numbers: int) -> int:
    return sum(1 << number for number in set(numbers))


def tcp4(options: bytes = b"", payload: bytes = b"", flags: int = f.ACK) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(flags, payload, options=options)))


def udp4(**fields: Any) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(), **fields))


def udp6(*headers: tuple[int, bytes]) -> bytes:
    return f.ethernet(f.IPV6, f.ipv6(*f.chain(list(headers), f.UDP, f.udp())))


def end6(protocol: int, *headers: tuple[int, bytes]) -> bytes:
    return f.ethernet(f.IPV6, f.ipv6(*f.chain(list(headers), protocol, bytes(8))))


def labels(count: int) -> tuple[int, ...]:
    """As ``frames.mpls`` makes them: of a stack of so many entries, padded to three."""
    found = [(1000 + n) << 4 | (n == count - 1) for n in range(count)]
    return tuple([*found, 0, 0, 0][:3])


TS = b"\x08\x0a" + bytes(8)
WINDOW: dict[str, Any] = {"min_tcp_window": 512}
V6: dict[str, Any] = {"flow_label": LABEL}
IP4 = f.ipv4(f.UDP, f.udp())
CASES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "no options": (tcp4(), WINDOW),
    "usual options": (tcp4(b"\1\1" + TS), {"tcp_options": kinds(1, 8), **WINDOW}),
    "as many octets of others": (tcp4(b"\2\4\5\xb4\4\2\1\3\3\7\0\0"), {"tcp_options": kinds(2, 4, 1, 3, 0), **WINDOW}),
    "options and payload": (tcp4(b"\2\4\5\xb4", b"\xfe\4ab"), {"tcp_options": kinds(2), **WINDOW}),
    "each word": (
        tcp4(b"\x1e\2\x45\2\xac\2\xfe\4ab\xfd\2"), {"tcp_options": kinds(30, 69, 172, 254, 253), **WINDOW}
    ),
    "kinds at the ends of words": (
        tcp4(b"\x3f\2\x40\2\x7f\2\x80\2\xbf\2\xc0\2\xff\2\1\1"),
        {"tcp_options": kinds(63, 64, 127, 128, 191, 192, 255, 1), **WINDOW},
    ),
    "nothing behind the end of the list": (tcp4(b"\0\2\4\5"), {"tcp_options": kinds(0), **WINDOW}),
    "forty octets of one": (tcp4(b"\1" * 40), {"tcp_options": kinds(1), **WINDOW}),
    "option of no length": (tcp4(b"\x05\0\2\4"), {"tcp_options": kinds(5), **WINDOW}),
    "option of length one": (tcp4(b"\x05\1\2\4"), {"tcp_options": kinds(5), **WINDOW}),
    "option beyond the header": (tcp4(b"\1\1\1\x1e", b"\2\4\2\4"), {"tcp_options": kinds(1, 30), **WINDOW}),
    "longer than the header": (tcp4(b"\x13\x12\2\4", bytes([2]) * 40), {"tcp_options": kinds(19), **WINDOW}),
    "tcp over ipv6": (
        f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(options=b"\2\4\5\xb4"))), {"tcp_options": kinds(2), **WINDOW, **V6}
    ),
    "tcp behind ipv4 options": (
        f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(options=b"\3\3\7\0"), options=bytes(8))),
        {"tcp_options": kinds(3, 0), **WINDOW},
    ),
    "tcp header cut short": (f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp()[:16])), {}),
    "udp": (udp4(), {}),
    "padded": (udp4() + bytes(18), {}),
    "don't fragment": (udp4(fragment=0x4000), {"fragment_flags": DF}),
    "reserved flag": (udp4(fragment=0x8000), {}),
    "first fragment": (udp4(fragment=0x2000), {"fragment_flags": MF}),
    "later fragment": (udp4(fragment=0x2010), {"fragment_flags": MF}),
    "last fragment": (udp4(fragment=0x0010), {}),
    "udp over ipv6": (udp6(), V6),
    "destination options": (udp6(f.extension(f.DEST)), {"ipv6_headers": kinds(0), **V6}),
    "three headers": (
        udp6(f.extension(f.HOP), f.extension(f.DEST), f.extension(f.ROUTING, 24)), {"ipv6_headers": 0x23, **V6}
    ),
    "first fragment of ipv6": (
        udp6(f.fragment6(0, more=True)), {"ipv6_headers": kinds(4), "fragment_flags": MF, **V6}
    ),
    "later fragment of ipv6": (
        end6(f.DEST, f.fragment6(9, more=True)), {"ipv6_headers": kinds(6), "fragment_flags": MF, **V6}
    ),
    "atomic fragment": (udp6(f.fragment6(0, more=False)), {"ipv6_headers": kinds(4), **V6}),
    "no next header": (end6(f.NO_NEXT), {"ipv6_headers": kinds(2), **V6}),
    "esp behind a header": (end6(f.ESP, f.extension(f.DEST)), {"ipv6_headers": kinds(0, 13, 3), **V6}),
    "ipcomp": (end6(108), {"ipv6_headers": kinds(3), **V6}),
    "authentication": (udp6(f.extension(f.AUTH, 24)), {"ipv6_headers": kinds(14), **V6}),
    "mobility, hip, shim6": (
        udp6(f.extension(f.MOBILITY), f.extension(f.HIP), f.extension(f.SHIM6)),
        {"ipv6_headers": kinds(12, 16, 17), **V6},
    ),
    "for experiments": (end6(253), {"ipv6_headers": kinds(18), **V6}),
    "for tests": (end6(254), {"ipv6_headers": kinds(19), **V6}),
    "one tag": (f.ethernet(*f.tag(f.Q, 5, f.IPV4, IP4, priority=3)), {}),
    "two tags": (
        f.ethernet(*f.tag(f.AD, 5, *f.tag(f.Q, 6, f.IPV4, IP4, priority=2), priority=7)),
        {"customer_vlan_id": 6, "customer_priority": 2},
    ),
    "three tags": (
        f.ethernet(*f.tag(f.AD, 5, *f.tag(f.Q, 6, *f.tag(f.Q, 7, f.IPV4, IP4)))), {"customer_vlan_id": 6}
    ),
    "priority tag in front of one": (f.ethernet(*f.tag(f.Q, 0, *f.tag(f.Q, 6, f.IPV4, IP4), priority=5)), {}),
    "priority tag in front of two": (
        f.ethernet(*f.tag(f.Q, 0, *f.tag(f.AD, 5, *f.tag(f.Q, 6, f.IPV4, IP4, priority=1)), priority=5)),
        {"customer_vlan_id": 6, "customer_priority": 1},
    ),
    "one label": (f.ethernet(*f.mpls(IP4)), {"mpls_depth": 1, "mpls_labels": labels(1)}),
    "three labels": (f.ethernet(*f.mpls(IP4, labels=3)), {"mpls_depth": 3, "mpls_labels": labels(3)}),
    "sixteen labels": (f.ethernet(*f.mpls(IP4, labels=16)), {"mpls_depth": 16, "mpls_labels": labels(16)}),
    "labels behind two tags": (
        f.ethernet(*f.tag(f.AD, 5, *f.tag(f.Q, 6, *f.mpls(IP4, labels=2)))),
        {"customer_vlan_id": 6, "mpls_depth": 2, "mpls_labels": labels(2)},
    ),
    "labels in pppoe": (
        f.ethernet(*f.pppoe(f.PPP_MPLS, f.mpls(IP4, labels=2)[1])), {"mpls_depth": 2, "mpls_labels": labels(2)}
    ),
    "labels in snap": (f.ethernet(*f.snap(*f.mpls(IP4, labels=2))), {"mpls_depth": 2, "mpls_labels": labels(2)}),
    "snap": (f.ethernet(*f.snap(f.IPV4, IP4)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_packet(programs: Programs, name: str) -> None:
    """Once, and several times, which makes it a next packet of its flow."""
    frame, fields = CASES[name]
    for repeat in (1, 3):
        observed = programs.observe(frame, program="netobs_egress", repeat=repeat)
        assert one(observed.records) == expected([frame] * repeat, **fields)
        assert {int(row["direction"]) for row in observed.records} == {1}


def test_flow_of_different_packets(programs: Programs) -> None:
    """Masks are joined, octets added, the least window kept; the rest is of the first packet."""
    first = f.ethernet(*f.tag(f.Q, 5, *f.tag(f.Q, 6, f.IPV4, f.ipv4(f.TCP, f.tcp(), fragment=0x4000))))
    syn = f.tcp(f.ACK, options=b"\2\4\5\xb4")
    small = syn[:14] + (7).to_bytes(2, "big") + syn[16:]
    second = f.ethernet(*f.tag(f.Q, 5, *f.tag(f.Q, 9, f.IPV4, f.ipv4(f.TCP, small))))
    zero = f.tcp(f.ACK, options=b"\xfe\4\0\0")
    third = f.ethernet(*f.tag(f.Q, 5, f.IPV4, f.ipv4(f.TCP, zero[:14] + bytes(2) + zero[16:])))
    records = programs.observe(first, second, third, second).records
    wanted = {"tcp_options": kinds(2, 254), "min_tcp_window": 0, "customer_vlan_id": 6, "fragment_flags": DF}
    assert one(records) == expected([first, second, third, second], **wanted)


def test_header_of_a_super_packet_counts_for_each_segment(programs: Programs) -> None:
    frame = tcp4(b"\1\1" + TS, bytes(2500))
    records = programs.observe(frame, gso_size=1000, gso_segs=3).records
    wanted = {"tcp_options": kinds(1, 8), **WINDOW, "layer2_octets": 2500 + 3 * (14 + 20 + 32)}
    assert one(records) == {**NONE, **wanted}


def test_jumbo_header_of_a_super_packet_is_not_on_the_wire(programs: Programs) -> None:
    inside = f.chain([f.jumbo(2528)], f.TCP, f.tcp(payload=bytes(2500)))
    records = programs.observe(f.ethernet(f.IPV6, f.ipv6(*inside, length=0)), gso_size=1000, gso_segs=3).records
    assert one(records) == {**NONE, **WINDOW, **V6, "layer2_octets": 2500 + 3 * (14 + 40 + 20)}


@pytest.mark.skipif(CPUS[-1] == 0, reason="a CPU besides the first is needed")
def test_slots_overflow_and_ring_say_the_same() -> None:
    frames = [frame for frame, _ in CASES.values()]
    found = []
    with Programs(max_flows=64, slots_for=1, extra_groups=GROUPS) as programs:
        for cpu, crowd in ((CPUS[0], 0), (CPUS[-1], 0), (CPUS[-1], 64)):
            with on_cpu(cpu), programs.accounting() as observed:
                for number in range(crowd):
                    programs.send(udp4(src=f"10.0.0.{number}"))
                for frame in frames:
                    programs.send(frame, repeat=2)
            rows = [row for row in merged(observed[0].records) if bytes(row["src_addr"][12:13]) != b"\x0a"]
            from_ring = observed[0].records["errno"] != 0
            assert from_ring.sum() >= (2 * len(rows) if crowd else 0)
            found.append(sorted((bytes(row)[:48], sorted(extra(row).items())) for row in rows))
    assert found[0] == found[1] == found[2]


def test_slot_of_a_former_flow_keeps_nothing_of_it(programs: Programs) -> None:
    for name in ("each word", "three headers", "labels behind two tags"):
        programs.observe(*[CASES[name][0]] * 2)
        programs.observe(*[CASES[name][0]] * 2)
    for _ in range(3):
        assert one(programs.observe(udp4()).records) == expected([udp4()])


def test_flow_that_starts_anew(with_table: Callable[[str], Programs]) -> None:
    """With a SYN behind a FIN, the packet that has it is the first one."""
    programs = with_table("percpu_array")
    with programs.accounting() as observed:
        programs.send(f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(f.FIN, options=b"\2\4\5\xb4"))))
        let_pass(2 * TICK_NS)
        anew = f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(f.SYN)))
        programs.send(anew[:15] + bytes.fromhex("b00042") + anew[18:])
    found = one(observed[0].records)
    assert (found["flow_label"], found["tcp_options"]) == (0x42, kinds(2))


@pytest.mark.parametrize("groups", [("tcp_options", "ip"), ("tcp_window", "link", "layer2_octets")])
def test_some_of_the_groups(groups: tuple[str, ...]) -> None:
    """What belongs to the others says that it was not measured."""
    own = {metric.name for metric in METRICS if metric.group in groups}
    with Programs(max_flows=64, extra_groups=groups) as programs:
        for name in ("usual options", "three headers", "labels behind two tags", "first fragment"):
            frame, fields = CASES[name]
            whole = expected([frame], **fields)
            assert one(programs.observe(frame).records) == {**NONE, **{key: whole[key] for key in own}}


def test_records_are_else_the_same(with_table: Callable[[str], Programs]) -> None:
    """Random frames: with the optional fields, the others say what they say without them."""
    rng = random.Random(515)
    frames = [frame for frame in (frame_of(rng) for _ in range(3000)) if len(frame) >= 54]
    seen = []
    with Programs(flow_table="ringbuf") as plain:
        for programs in (plain, with_table("ringbuf")):
            run = programs.run()
            with programs.accounting() as observed:
                for frame in frames:
                    run(frame)
            seen.append(observed[0])
    before, after = seen
    assert before.reasons == after.reasons
    for name in set(before.records.dtype.names or ()) - set(TIMES):
        assert (before.records[name] == after.records[name]).all(), name
    assert len(before.records) > 500


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Link, Link]]:
    with Lab() as lab:
        yield lab.pair(mtu=9000)


@pytest.fixture(scope="module")
def on_link(pair: tuple[Link, Link]) -> Iterator[Programs]:
    """Both directions of the second end."""
    with measured(pair[1], direction="both", extra_groups=GROUPS) as programs:
        yield programs


@pytest.mark.parametrize("sender", [0, 1])
def test_tags_on_the_wire(pair: tuple[Link, Link], on_link: Programs, sender: int) -> None:
    """A tag in the metadata is the outer one, and part of the frame, in both directions."""
    frame, fields = CASES["labels behind two tags"]
    with Sender(pair[sender]) as opened:
        records = exchange(on_link, opened, [frame] * 2).records
    assert one(records) == expected([frame] * 2, **fields)
    assert set(records["direction"].tolist()) == {sender}


@pytest.mark.parametrize("linear", [14, 34, 40, 54, 60])
def test_headers_that_are_not_linear(pair: tuple[Link, Link], on_link: Programs, linear: int) -> None:
    frame = tcp4(b"\2\4\5\xb4\4\2" + b"\xfe\6abcd", bytes(4000))
    with Sender(pair[0], offload=True) as sender:
        found = one(exchange(on_link, sender, [virtio(frame, linear=linear)]).records)
    assert found == expected([frame], tcp_options=kinds(2, 4, 254), **WINDOW)


def test_super_packet_on_the_wire(pair: tuple[Link, Link], on_link: Programs) -> None:
    """Each of its segments has the tag again."""
    frame = f.ethernet(*f.tag(f.Q, 9, f.IPV4, f.ipv4(f.TCP, f.tcp(payload=bytes(30_500)))))
    packet = virtio(frame, linear=58, gso=GSO_TCPV4, size=1000, checksum=(38, 16))
    with Sender(pair[0], offload=True) as sender:
        found = one(exchange(on_link, sender, [packet], packets=31).records)
    assert found == {**NONE, **WINDOW, "layer2_octets": 30_500 + 31 * 58}
