"""Packets of every kind, the same for the same seed: what a filter may meet, and what nobody should send."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from lab import frames as f

Random = random.Random

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:01")
ADDRESSES4 = ("10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.1", "198.51.100.2", "224.0.0.251", "255.255.255.255")
ADDRESSES6 = ("2001:db8::1", "2001:db8::2", "2001:db8:ffff::2", "fe80::1", "ff02::1", "::1")
PORTS = (22, 53, 80, 443, 4739, 8080, 6081, 4789, 1, 65535)
MPLS_MULTICAST, PPPOE_DISCOVERY, PPPOE, REVERSE_ARP, LOOPBACK = 0x8848, 0x8863, 0x8864, 0x8035, 0x9000
PPP_IPV4, PPP_IPV6 = 0x0021, 0x0057
LEAST, LONGEST, JUMBO = 14, 2000, 9000
"""A frame has at least its header. All octets from LONGEST on are 0, so that it can be made longer in the kernel."""


def _port(rng: Random) -> int:
    return rng.choice(PORTS) if rng.random() < 0.8 else rng.randrange(65536)


def transport(rng: Random) -> tuple[int, bytes]:
    """A protocol number, and a packet of it."""
    payload, sport, dport = rng.choice((b"", b"GET / ", bytes(9), rng.randbytes(80))), _port(rng), _port(rng)
    options, flags = bytes(4 * rng.choice((0, 0, 3, 10))), rng.choice((f.SYN, f.SYN | f.ACK, f.ACK, f.RST, 0xFFF))
    return rng.choice(
        [
            (f.TCP, f.tcp(flags, payload, sport=sport, dport=dport, options=options)),
            (f.TCP, f.tcp(flags, payload, sport=sport, dport=dport)),
            (f.UDP, f.udp(payload, sport=sport, dport=dport)),
            (f.UDP, f.udp(payload, sport=sport, dport=53)),
            (f.ICMP, f.icmp(rng.choice((0, 3, 8, 11)), rng.randrange(4), payload)),
            (f.ICMPV6, f.icmp(rng.choice((1, 128, 129, 135, 136)), 0, payload)),
            (f.SCTP, f.ports(12, sport=sport, dport=dport) + payload),
            (f.GRE, f.gre(f.IPV4, f.ipv4(f.TCP, f.tcp()), key=bool(payload))),
            (rng.choice((2, f.ESP, f.AUTH, 60, 89, 103, 112)), payload),
            (f.IPIP, f.ipv4(f.UDP, f.udp(sport=sport, dport=dport))),
            (rng.randrange(256), payload),
        ]
    )


def ipv4(rng: Random) -> bytes:
    """An IPv4 packet, mostly a right one."""
    protocol, payload = transport(rng)
    return f.ipv4(
        protocol,
        payload,
        src=rng.choice(ADDRESSES4),
        dst=rng.choice(ADDRESSES4),
        tos=rng.randrange(256),
        ttl=rng.randrange(256),
        options=bytes(4 * rng.choice((0, 0, 0, 1, 5, 10))),
        fragment=rng.choice((0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0010, rng.randrange(65536))),
        ihl=rng.choice((None, None, None, None, None, None, 0, 3, 15)),
        version=rng.choice((4, 4, 4, 4, 4, 4, 4, 6, 0, 15)),
    )


def ipv6(rng: Random) -> bytes:
    """An IPv6 packet, with extension headers or without."""
    protocol, payload = transport(rng)
    kinds = (f.HOP, f.ROUTING, f.FRAGMENT, f.DEST, f.AUTH)
    headers = [f.extension(rng.choice(kinds)) for _ in range(rng.choice((0, 0, 0, 1, 1, 2)))]
    source, destination = rng.choice(ADDRESSES6), rng.choice(ADDRESSES6)
    return f.ipv6(*f.chain(headers, protocol, payload), src=source, dst=destination)


def _arp(rng: Random) -> bytes:
    addresses = rng.randbytes(6) + bytes([10, 0, 0, rng.randrange(4)]) + bytes(6) + bytes([10, 0, 0, rng.randrange(4)])
    return struct.pack("!HHBBH", 1, f.IPV4, 6, 4, rng.choice((1, 2))) + addresses


def network(rng: Random) -> tuple[int, bytes]:
    """An EtherType, and a packet of it."""
    kind = rng.random()
    if kind < 0.5:
        return f.IPV4, ipv4(rng)
    if kind < 0.85:
        return f.IPV6, ipv6(rng)
    if kind < 0.93:
        return rng.choice((f.ARP, REVERSE_ARP)), _arp(rng)
    return rng.choice((f.LLDP, LOOPBACK, 0x88F7, rng.randrange(65536))), rng.randbytes(rng.randrange(100))


def _labels(rng: Random) -> bytes:
    """A stack of MPLS labels; the last one says that it is."""
    labels = [rng.choice((0, 2, 16, 100, 1023)) for _ in range(rng.choice((1, 1, 2, 3)))]
    return b"".join(struct.pack("!I", label << 12 | (i == len(labels) - 1) << 8 | 64) for i, label in enumerate(labels))


def _pppoe(rng: Random) -> bytes:
    kinds: list[tuple[int, Callable[[Random], bytes]]] = [
        (PPP_IPV4, ipv4), (PPP_IPV6, ipv6), (0xC021, lambda rng: rng.randbytes(20))
    ]  # fmt: skip
    protocol, packet = rng.choice(kinds)
    payload = struct.pack("!H", protocol) + packet(rng)
    return struct.pack("!BBHH", 0x11, 0, rng.choice((1, 7, 500)), len(payload)) + payload


def _tagged(rng: Random, depth: int) -> tuple[int, bytes]:
    return f.tag(
        rng.choice((f.Q, f.Q, f.AD, f.QINQ_OLD)), rng.choice((1, 100, 200, 4095)), *carried(rng, depth), priority=3
    )


def _mpls(rng: Random, _depth: int) -> tuple[int, bytes]:
    return rng.choice((f.MPLS, f.MPLS, MPLS_MULTICAST)), _labels(rng) + rng.choice((ipv4, ipv6))(rng)


def _pppoe_frame(rng: Random, _depth: int) -> tuple[int, bytes]:
    return rng.choice((PPPOE, PPPOE, PPPOE_DISCOVERY)), _pppoe(rng)


def _tunnel(rng: Random, depth: int) -> tuple[int, bytes]:
    inner = f.ethernet(*carried(rng, depth))
    options = bytes(4 * rng.randrange(4))
    encapsulated = rng.choice(
        (f.vxlan(inner), f.geneve(f.TEB, inner, options=options), f.geneve(f.IPV4, ipv4(rng), options=options))
    )
    return rng.choice(((f.IPV4, f.ipv4(f.UDP, encapsulated)), (f.IPV6, f.ipv6(f.UDP, encapsulated))))


def carried(rng: Random, depth: int = 3) -> tuple[int, bytes]:
    """An EtherType, and what it announces: something in something, at most ``depth`` deep."""
    if depth == 0 or rng.random() < 0.45:
        return network(rng)
    return rng.choices((_tagged, _mpls, _pppoe_frame, _tunnel), (4, 1, 1, 2))[0](rng, depth - 1)


def _length_field(rng: Random) -> tuple[int, bytes]:
    """802.3 with LLC: spanning tree, IPX, or anything."""
    payload = rng.choice((b"\x42\x42\x03", b"\xaa\xaa\x03\x00\x00\x0c\x20\x00", b"\xff\xff", b"\xe0\xe0\x03"))
    payload += rng.randbytes(40)
    return len(payload), payload


def _noise(rng: Random) -> tuple[int, bytes]:
    return rng.randrange(65536), rng.randbytes(rng.randrange(150))


def _frame(rng: Random) -> bytes:
    ethertype, payload = rng.choices((carried, _length_field, _noise), (20, 1, 1))[0](rng)
    frame = f.ethernet(ethertype, payload, src=rng.choice(MACS[:2]), dst=rng.choice(MACS))
    shape = rng.random()
    if shape < 0.15:
        return frame[: rng.randint(LEAST, len(frame))]
    if shape < 0.3:
        return frame.ljust(60, b"\0")
    return frame.ljust(rng.choice((1514, JUMBO)), b"\0") if shape < 0.35 else frame


def frames(count: int, seed: int) -> list[bytes]:
    """Ethernet frames of LEAST to JUMBO octets, among them one of each length up to 99."""
    rng = random.Random(seed)
    runts = [_frame(rng).ljust(100, b"\0")[:length] for length in range(LEAST, 100)]
    made = runts + [_frame(rng) for _ in range(count - len(runts))]
    assert not any(frame[LONGEST:].strip(b"\0") for frame in made)
    rng.shuffle(made)
    return made


def ip_packets(count: int, seed: int) -> list[bytes]:
    """Packets that begin with the IP header, of at least LEAST octets, as a TUN or WireGuard interface has them."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        packet = rng.choice((ipv4, ipv4, ipv6, lambda rng: rng.randbytes(rng.randint(LEAST, 100))))(rng)
        made.append(packet[: rng.randint(LEAST, len(packet))] if rng.random() < 0.2 else packet)
    return made


def put_back(frame: bytes, tpid: int, tci: int) -> bytes:
    """``frame`` with the tag that was beside it, as it is on the wire."""
    return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
