"""From a frame to what a flow has of it, by the standards alone: what is below IP.

What is no IP, and what is malformed, is as netobs(8) and docs/flows.md define it: a frame that says that it carries IP,
and is cut short or contradicts itself, is malformed; any other is not IP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lab.replay.reckoning_ip import Inner, Malformed, NotIp, ipv4, ipv6

IPV4, IPV6 = 0x0800, 0x86DD
_TAGS = frozenset({0x8100, 0x88A8, 0x9100})  # IEEE 802.1Q, table 9-1; 0x9100 is older equipment's
_MOST_TAGS = 4
_MPLS = frozenset({0x8847, 0x8848})
_MOST_LABELS = 16
_PPPOE_SESSION = 0x8864
_FIRST_ETHERTYPE = 0x0600  # IEEE 802.3, 3.2.6: below, the field is a length
_SNAP = b"\xaa\xaa\x03\0\0\0"  # RFC 1042: LLC of SNAP, organisation 0: an EtherType follows
_PPP_PROTOCOLS = {0x0021: IPV4, 0x0057: IPV6, 0x0281: 0x8847, 0x0283: 0x8848}  # RFC 1332, RFC 5072, RFC 3032, 4.3


@dataclass(frozen=True)
class Packet:
    """One packet as a flow counts it. ``vlan``: of the outermost tag that names one; ``priority``: of the outermost."""

    ethertype: int
    inner: Inner
    vlan: int = 0
    priority: int = 0
    source_mac: bytes = bytes(6)
    destination_mac: bytes = bytes(6)


def of_frame(frame: bytes) -> Packet:
    """The packet in an Ethernet frame of at least 14 octets.

    :raises NotIp: it carries no IP packet.
    :raises Malformed: it is cut short, or its lengths contradict each other.
    """
    packet = of_payload(int.from_bytes(frame[12:14], "big"), frame[14:])
    return replace(packet, source_mac=frame[6:12], destination_mac=frame[:6])


def of_payload(ethertype: int, data: bytes) -> Packet:
    """The packet in ``data`` that follows an EtherType, with VLAN tags in front of it. Raises as ``of_frame`` does."""
    vlan, priority, tags = 0, 0, 0
    while ethertype in _TAGS and tags < _MOST_TAGS:
        if len(data) < 4:
            raise Malformed("a VLAN tag is cut short")
        control, ethertype = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        vlan = vlan or control & 0xFFF  # 0 names no VLAN: such a tag has a priority only (IEEE 802.1Q, 9.6)
        priority = priority if tags else control >> 13
        tags += 1
        data = data[4:]
    ethertype, inner = _network(ethertype, data)
    return Packet(ethertype, inner, vlan, priority)


def _network(ethertype: int, data: bytes) -> tuple[int, Inner]:
    if ethertype == IPV4:
        return ethertype, ipv4(data)
    if ethertype == IPV6:
        return ethertype, ipv6(data)
    if ethertype < _FIRST_ETHERTYPE:
        return _llc(ethertype, data)
    if ethertype == _PPPOE_SESSION:
        return _pppoe(data)
    if ethertype in _MPLS:
        return _mpls(data)
    raise NotIp(f"EtherType 0x{ethertype:04x}")


def _llc(length: int, data: bytes) -> tuple[int, Inner]:
    """What is behind LLC and SNAP (RFC 1042). The length ends it where the frame is longer: padding follows."""
    ethertype = int.from_bytes(data[6:8], "big")
    if len(data) < 8 or data[:6] != _SNAP or ethertype < _FIRST_ETHERTYPE:
        raise NotIp("802.3 length without SNAP")
    return _network(ethertype, data[8:length])


def _pppoe(data: bytes) -> tuple[int, Inner]:
    """RFC 2516, 4 and 6: version and type 1, code 0 in a session; the length counts what follows the header, where
    padding may follow. The protocol may be compressed to one octet, which is odd (RFC 1661, 6.5)."""
    if len(data) < 8 or data[:2] != b"\x11\0":
        raise NotIp("PPPoE without session data")
    end = 6 + int.from_bytes(data[4:6], "big")
    begin = 7 if data[6] & 1 else 8
    protocol = int.from_bytes(data[6:begin], "big")
    if protocol not in _PPP_PROTOCOLS:
        raise NotIp(f"PPP protocol 0x{protocol:04x}")
    return _network(_PPP_PROTOCOLS[protocol], data[begin:end])


def _mpls(data: bytes) -> tuple[int, Inner]:
    """RFC 3032, 2.1: a stack of labels; the last one is marked. Nothing tells what follows it but its first four
    bits, if it is IP (RFC 4928, 3): what then is no IP packet was none."""
    for label in range(_MOST_LABELS):
        if len(data) < 4 * label + 4:
            raise NotIp("MPLS: a label stack that is cut short")
        if data[4 * label + 2] & 1:
            break
    else:
        raise NotIp(f"MPLS: more than {_MOST_LABELS} labels")
    data = data[4 * label + 4 :]
    version = data[0] >> 4 if data else 0
    if version not in {4, 6}:
        raise NotIp("MPLS without IP")
    try:
        return (IPV4, ipv4(data)) if version == 4 else (IPV6, ipv6(data))
    except Malformed as error:
        raise NotIp("MPLS without IP") from error
