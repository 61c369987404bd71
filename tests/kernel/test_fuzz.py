"""Random frames: whatever comes, the programs let it pass and account for each packet and octet."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import astuple
from typing import Callable

import pytest

from lab import frames as f
from lab.prog_run import Programs
from netobs.datapath.layout import NOT_IP_ETHERTYPES

pytestmark = pytest.mark.kernel

FRAMES = 100_000
ROUND = 10_000  # frames between two evictions: more flows than the table takes, less than table and ring take
LEAST_FRAME = 54  # a test run refuses shorter ones with the EtherType of IPv6; those are made in a VLAN
EXTENSIONS = (f.HOP, f.ROUTING, f.FRAGMENT, f.AUTH, f.DEST, f.MOBILITY, f.HIP, f.SHIM6, f.ESP, f.NO_NEXT)
PROTOCOLS = (f.TCP, f.UDP, f.ICMP, f.ICMPV6, f.SCTP, f.DCCP, f.UDPLITE, f.GRE, f.IPIP, f.IP6IN4, f.ESP, 0, 255)
ETHERTYPES = (f.IPV4, f.IPV6, f.ARP, f.Q, f.AD, f.QINQ_OLD, f.PPPOE, f.MPLS, f.MPLS_MULTICAST, 38, 0)

Random = random.Random


def noise(rng: Random) -> bytes:
    return rng.randbytes(rng.randint(14, 200))


def noise_with_ethertype(rng: Random) -> bytes:
    return f.ethernet(rng.choice(ETHERTYPES), rng.randbytes(rng.randint(40, 120)))


def address(rng: Random) -> str:
    return f"10.0.{rng.randrange(4)}.{rng.randrange(256)}"


def transport(rng: Random, protocol: int) -> bytes:
    payload = rng.randbytes(rng.randrange(64))
    if protocol == f.TCP:
        return f.tcp(rng.randrange(4096), payload, sport=rng.randrange(9), options=bytes(4 * rng.randrange(11)))
    if protocol == f.UDP:
        port = rng.choice((53, 4789, 6081, 8472))
        return f.udp(payload, sport=rng.randrange(9), dport=port)
    return payload


def valid_ipv4(rng: Random) -> bytes:
    protocol = rng.choice(PROTOCOLS)
    fragment = rng.choice((0, 0, 0x4000, 0x2000, rng.randrange(65536)))
    options = bytes(4 * rng.choice((0, 0, 0, rng.randrange(11))))
    packet = f.ipv4(protocol, transport(rng, protocol), src=address(rng), options=options, fragment=fragment)
    return f.ethernet(f.IPV4, packet + bytes(rng.choice((0, 18))))


def valid_ipv6(rng: Random) -> bytes:
    protocol = rng.choice(PROTOCOLS)
    headers = [
        (rng.choice(EXTENSIONS), bytes([rng.choice((0, 0, 1, 2, 255))]) + rng.randbytes(rng.choice((6, 6, 14, 22, 3))))
        for _ in range(rng.choice((0, 0, 1, 2, 3, 8, 9, 20)))
    ]
    next_header, payload = f.chain(headers, protocol, transport(rng, protocol))
    return f.ethernet(f.IPV6, f.ipv6(next_header, payload, src=f"fd00::{rng.randrange(999)}"))


def long_chain(rng: Random) -> bytes:
    """About as many extension headers as are walked, and more."""
    headers = [f.extension(rng.choice((f.HOP, f.ROUTING, f.DEST)))] * rng.choice((63, 64, 65, rng.randrange(100)))
    next_header, payload = f.chain(headers, f.UDP, transport(rng, f.UDP))
    return f.ethernet(f.IPV6, f.ipv6(next_header, payload, src=f"fd00::{rng.randrange(9)}"))


def jumbogram(rng: Random) -> bytes:
    """A jumbo payload option that may be right, wrong, or anywhere among others."""
    payload = transport(rng, f.UDP)
    options = b"".join(rng.choice((b"\0", b"\1\0", b"\5\2\0\0", rng.randbytes(3))) for _ in range(rng.randrange(20)))
    size = -(-(8 + len(options)) // 8) * 8
    length = rng.choice((size + len(payload), size + len(payload), rng.randrange(200), rng.getrandbits(32)))
    body = bytes([size // 8 - 1]) + (options + b"\xc2\4" + length.to_bytes(4, "big")).ljust(size - 2, b"\0")
    packet = f.ipv6(*f.chain([(f.HOP, body)], f.UDP, payload), length=rng.choice((0, 0, 0, len(payload))))
    return f.ethernet(f.IPV6, packet + bytes(rng.choice((0, 18))))


def linked(rng: Random) -> bytes:
    """Behind LLC/SNAP, PPPoE or MPLS, or several of them; in a VLAN or not."""
    frame = rng.choice((valid_ipv4, valid_ipv6, jumbogram))(rng)
    ethertype, payload = int.from_bytes(frame[12:14], "big"), frame[14:]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        protocol = {f.IPV4: f.PPP_IPV4, f.IPV6: f.PPP_IPV6, f.MPLS: f.PPP_MPLS}.get(ethertype, rng.randrange(65536))
        ethertype, payload = rng.choice((
            f.mpls(payload, labels=rng.choice((1, 2, 16, 17)), multicast=rng.random() < 0.1),
            f.pppoe(protocol, payload, compressed=protocol < 256 and rng.random() < 0.2),
            f.snap(ethertype, payload),
        ))  # fmt: skip
        if rng.random() < 0.2:
            ethertype, payload = f.tag(f.Q, rng.randrange(4096), ethertype, payload)
    return f.ethernet(ethertype, payload + bytes(rng.choice((0, 18))))


def tagged(rng: Random) -> bytes:
    frame = rng.choice((valid_ipv4, valid_ipv6, linked))(rng)
    for _ in range(rng.randrange(1, 6)):
        tag = rng.choice((f.Q, f.AD, f.QINQ_OLD)).to_bytes(2, "big") + rng.randbytes(2)
        frame = frame[:12] + tag + frame[12:]
    return frame


def mutated(rng: Random) -> bytes:
    frame = bytearray(rng.choice((valid_ipv4, valid_ipv6, tagged, linked, jumbogram, long_chain))(rng))
    for _ in range(rng.randrange(1, 6)):
        frame[rng.randrange(12, len(frame))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(frame)


def truncated(rng: Random) -> bytes:
    frame = rng.choice((tagged, linked))(rng)
    return frame[: rng.randint(14, len(frame))]


KINDS: tuple[Callable[[Random], bytes], ...] = (
    noise,
    noise_with_ethertype,
    valid_ipv4,
    valid_ipv6,
    long_chain,
    jumbogram,
    linked,
    tagged,
    mutated,
    mutated,
    mutated,
    truncated,
)


def frame_of(rng: Random) -> bytes:
    frame = rng.choice(KINDS)(rng)
    if len(frame) < LEAST_FRAME and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
        frame = frame[:12] + b"\x81\x00\x00\x01" + frame[12:]
    return frame


def _context(rng: Random) -> tuple[int, int]:
    """gso_size and gso_segs: mostly none, else anything that a driver or a guest could say."""
    if rng.random() < 0.8:
        return 0, 0
    return rng.choice((1, 7, 536, 1448, 65535)), rng.choice((0, 1, 2, 45, 65535))


@pytest.mark.parametrize("flow_table", ["percpu_array", "percpu_hash"])
def test_random_frames_are_accounted_for(flow_table: str) -> None:
    rng = random.Random(20231201)
    with Programs(max_flows=1024, flow_table=flow_table) as programs:
        runs = [programs.run(name) for name in ("netobs_ingress", "netobs_egress", "netobs_l3_ingress")]
        total, kinds = 0, {"records": 0, "shed": 0, "not_ip": 0, "malformed": 0, "ext_headers": 0}
        for _ in range(FRAMES // ROUND):
            with programs.accounting() as observed:
                for _ in range(ROUND):
                    run = rng.choice(runs)
                    run.skb.gso_size, run.skb.gso_segs = _context(rng)
                    run(frame_of(rng))
            records, reasons = observed[0].records, observed[0].reasons
            total += int(records["packets"].sum()) + sum(packets for packets, _ in reasons.values())
            kinds["records"] += len(records)
            kinds["shed"] += int((records["errno"] != 0).sum())
            for name, (packets, _) in reasons.items():
                kinds[name] += packets
            # Nothing that cannot be: a packet is at least a header, and minimum <= maximum.
            assert (records["packets"] > 0).all()
            assert (records["octets"] >= 20 * records["packets"]).all()
            assert (records["min_ip_length"] <= records["max_ip_length"]).all()
            assert (records["min_ttl"] <= records["max_ttl"]).all()
            assert (records["first_ns"] <= records["last_ns"]).all()
        ledger = programs.ledger()
        listed = Counter({name: getattr(ledger.other_ethertypes, name) for name in ("packets", "octets")})
        for count in ledger.ethertypes.values():
            listed.update(packets=count.packets, octets=count.octets)
        assert (listed["packets"], listed["octets"]) == astuple(ledger.reasons["not_ip"])
        assert len(ledger.ethertypes) == NOT_IP_ETHERTYPES
        assert ledger.other_ethertypes.packets > 0
        assert total >= FRAMES
        assert min(kinds.values()) > FRAMES // 100, kinds  # the mixture reaches all branches
