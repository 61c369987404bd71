"""What the replay tool sends of a file, and how it tells a difference."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

from lab import frames as f
from lab.pcap import Packet
from lab.replay.compare import differences
from lab.replay.flows import ETHERNET, Reckoning
from lab.replay.link_types import NotSendable, Sendable, is_dropped_at_ingress, sendable
from lab.replay.reckoning import of_frame

IP4, IP6 = f.ipv4(f.UDP, f.udp()), f.ipv6(f.UDP, f.udp())
FRAME = f.ethernet(f.IPV4, IP4)
ARP = f.ethernet(f.ARP, bytes(28))


def reckoned(*frames: bytes) -> Reckoning:
    reckoning = Reckoning()
    for number, frame in enumerate(frames, start=1):
        reckoning.count(number, ETHERNET, partial(of_frame, frame))
    return reckoning


def test_flows_are_added_up() -> None:
    second = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(9)), ttl=7, tos=1), src="02:00:00:00:00:07")
    reckoning = reckoned(FRAME, ARP, second, FRAME[:30])
    (flow,) = reckoning.flows.values()
    assert (flow.packets, flow.octets, flow.least_octets, flow.greatest_octets) == (2, 28 + 37, 28, 37)
    assert (flow.least_ttl, flow.greatest_ttl) == (7, f.TTL)
    assert flow.first == (f.TOS, 0, f.mac(f.SRC_MAC), f.mac(f.DST_MAC))
    assert [str(frames) for frames in reckoning.frames.values()] == ["frame 1, 3"]
    assert {reason: str(frames) for reason, frames in reckoning.ledger.items()} == {
        "not_ip": "frame 2",
        "malformed": "frame 4",
    }


def test_equal_is_no_difference() -> None:
    assert list(differences(reckoned(FRAME, ARP), reckoned(FRAME).flows, {"not_ip": 1, "malformed": 0})) == []


def test_each_field_is_compared() -> None:
    reckoning = reckoned(FRAME)
    ((key, flow),) = reckoning.flows.items()
    others = [
        dataclasses.replace(flow, **{field.name: getattr(flow, field.name) + 1})
        for field in dataclasses.fields(flow)
        if field.name != "first"
    ]
    others += [
        dataclasses.replace(flow, first=flow.first._replace(tos=1)),
        dataclasses.replace(flow, first=flow.first._replace(priority=1)),
        dataclasses.replace(flow, first=flow.first._replace(source_mac=b"\1" * 6)),
        dataclasses.replace(flow, first=flow.first._replace(destination_mac=b"\1" * 6)),
    ]
    lines = ["".join(differences(reckoning, {key: other}, {})) for other in others]
    assert [line.partition("(frame 1): ")[2].partition(":")[0] for line in lines] == [
        *("packets", "octets", "tcp_flags", "least_ttl", "greatest_ttl", "least_octets", "greatest_octets"),
        *("tos", "priority", "source_mac", "destination_mac"),
    ]
    assert all(line.count("expected") == 1 for line in lines)


def test_either_of_two_connections_may_be_the_first() -> None:
    def packet(flags: int, tos: int) -> bytes:
        return f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(flags), tos=tos))

    again = reckoned(packet(f.SYN, 1), packet(f.SYN, 2), packet(f.FIN, 3), packet(f.SYN, 4))
    ((key, flow),) = again.flows.items()
    lines = [
        list(differences(again, {key: dataclasses.replace(flow, first=flow.first._replace(tos=tos))}, {}))
        for tos in range(1, 5)
    ]
    assert [len(found) for found in lines] == [0, 1, 1, 0]


def test_flows_that_are_missing_or_too_many() -> None:
    other = reckoned(f.ethernet(f.IPV6, IP6))
    missing, extra = differences(reckoned(FRAME), other.flows, {})
    assert (
        missing
        == "protocol 17 192.0.2.1:40000 > 198.51.100.2:443 (frame 1): expected 1 packets, 28 octets, not exported"
    )
    assert (
        extra
        == "protocol 17 2001:db8::1:40000 > 2001:db8:ffff::2:443: exported with 1 packets, 48 octets, not expected"
    )


def test_reasons_of_the_ledger_are_compared() -> None:
    lines = list(differences(reckoned(ARP), {}, {"malformed": 2}))
    assert lines == [
        "ledger, malformed: expected 0 (no frame), got 2",
        "ledger, not_ip: expected 1 (frame 1), got 0",
    ]


SLL = bytes(14)
SENDABLE = {
    "ethernet": (1, FRAME, Sendable(-1, FRAME, 0)),
    "raw ipv4": (101, IP4, Sendable(f.IPV4, IP4, 0)),
    "raw ipv6, older number": (12, IP6, Sendable(f.IPV6, IP6, 0)),
    "ipv4": (228, IP4, Sendable(f.IPV4, IP4, 0)),
    "null, little endian": (0, b"\2\0\0\0" + IP4, Sendable(f.IPV4, IP4, 0)),
    "null, big endian": (0, b"\0\0\0\x1c" + IP6, Sendable(f.IPV6, IP6, 0)),
    "loop": (108, b"\0\0\0\2" + IP4, Sendable(f.IPV4, IP4, 0)),
    "cooked": (113, SLL + b"\x08\0" + IP4, Sendable(f.IPV4, IP4, 0)),
    "cooked, arp": (113, SLL + b"\x08\x06" + bytes(28), Sendable(f.ARP, bytes(28), 0)),
    "cooked, version 2": (276, b"\x86\xdd" + bytes(18) + IP6, Sendable(f.IPV6, IP6, 0)),
    "ppp": (9, b"\xff\x03\0\x21" + IP4, Sendable(f.IPV4, IP4, 0)),
    "ppp, short": (9, b"\x57" + IP6, Sendable(f.IPV6, IP6, 0)),
    "pppoe": (51, b"\x11\0\0\1", Sendable(0x8864, b"\x11\0\0\1", 0)),
    "cisco hdlc": (104, b"\x0f\0\x08\0" + IP4, Sendable(f.IPV4, IP4, 0)),
}


@pytest.mark.parametrize("name", SENDABLE)
def test_what_is_sent(name: str) -> None:
    link, octets, expected = SENDABLE[name]
    assert sendable(Packet(0, len(octets), octets, link)) == expected


@pytest.mark.parametrize("size", range(8))
def test_a_cut_tag_does_not_arrive(size: int) -> None:
    assert is_dropped_at_ingress(Sendable(-1, f.ethernet(f.AD, bytes(size)), 0)) == (size < 6)
    assert is_dropped_at_ingress(Sendable(f.Q, bytes(size), 0)) == (size < 6)
    assert not is_dropped_at_ingress(Sendable(-1, f.ethernet(f.IPV4, bytes(size)), 0))


def test_what_was_not_kept_is_filled_up() -> None:
    assert sendable(Packet(0, 60, FRAME, 1)) == Sendable(-1, FRAME + bytes(60 - len(FRAME)), 60 - len(FRAME))
    assert sendable(Packet(0, 1 << 31, FRAME, 1)) == Sendable(-1, FRAME, 0)


NOT_SENDABLE = {
    "802.11": (105, bytes(60)),
    "link type 147": (147, bytes(60)),
    "shorter than an Ethernet header": (1, bytes(13)),
    "too long": (1, bytes(65554)),
    "empty": (113, SLL + b"\x08\0"),
    "no IP packet": (101, b"\x50" + bytes(40)),
    "PPP without IP": (9, b"\xc0\x21" + bytes(9)),
    "no EtherType": (113, SLL + b"\0\4" + bytes(40)),
}


@pytest.mark.parametrize("reason", NOT_SENDABLE)
def test_what_is_not_sent(reason: str) -> None:
    link, octets = NOT_SENDABLE[reason]
    with pytest.raises(NotSendable, match=f"^{reason}$"):
        sendable(Packet(0, len(octets), octets, link))
