"""Random frames: whatever comes, the programs let it pass and account for each packet and octet."""

from __future__ import annotations

import random
from typing import Callable

import pytest

from tests.kernel import frames as f
from tests.kernel.programs import Programs

pytestmark = pytest.mark.kernel

FRAMES = 100_000
ROUND = 10_000  # frames between two evictions: more flows than the table takes, less than table and ring take
LEAST_FRAME = 54  # a test run refuses shorter ones with the EtherType of IPv6; those are made in a VLAN
EXTENSIONS = (f.HOP, f.ROUTING, f.FRAGMENT, f.AUTH, f.DEST, f.MOBILITY, f.HIP, f.SHIM6, f.ESP, f.NO_NEXT)
PROTOCOLS = (f.TCP, f.UDP, f.ICMP, f.ICMPV6, f.SCTP, f.DCCP, f.UDPLITE, f.GRE, f.IPIP, f.IP6IN4, f.ESP, 0, 255)
ETHERTYPES = (f.IPV4, f.IPV6, f.ARP, f.Q, f.AD, f.QINQ_OLD, 38)

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


def tagged(rng: Random) -> bytes:
    frame = rng.choice((valid_ipv4, valid_ipv6))(rng)
    for _ in range(rng.randrange(1, 5)):
        tag = rng.choice((f.Q, f.AD, f.QINQ_OLD)).to_bytes(2, "big") + rng.randbytes(2)
        frame = frame[:12] + tag + frame[12:]
    return frame


def mutated(rng: Random) -> bytes:
    frame = bytearray(rng.choice((valid_ipv4, valid_ipv6, tagged))(rng))
    for _ in range(rng.randrange(1, 6)):
        frame[rng.randrange(12, len(frame))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(frame)


def truncated(rng: Random) -> bytes:
    frame = tagged(rng)
    return frame[: rng.randint(14, len(frame))]


KINDS: tuple[Callable[[Random], bytes], ...] = (
    noise,
    noise_with_ethertype,
    valid_ipv4,
    valid_ipv6,
    tagged,
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
        total, kinds = 0, {"records": 0, "shed": 0, "not_ip": 0, "malformed": 0}
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
        assert total >= FRAMES
        assert min(kinds.values()) > FRAMES // 100, kinds  # the mixture reaches all branches
