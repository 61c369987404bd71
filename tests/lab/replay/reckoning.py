"""From a frame to what a flow has of it, by the standards alone: what is below IP.

What is no IP, and what is malformed, is as netobs(8) and the README define it: a frame that is cut short, or whose
lengths contradict each other, is malformed; one that carries something else is not IP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.lab.replay.reckoning_ip import Inner, Malformed, NotIp, ipv4, ipv6

IPV4, IPV6 = 0x0800, 0x86DD
_TAGS = frozenset({0x8100, 0x88A8, 0x9100})  # IEEE 802.1Q, table 9-1; 0x9100 is older equipment's
_MPLS = frozenset({0x8847, 0x8848})
_PPPOE_SESSION = 0x8864
_FIRST_ETHERTYPE = 0x0600  # IEEE 802.3, 3.2.6: below, the field is a length (up to 1500) or undefined
_LONGEST_LLC = 1500
_SNAP = b"\xaa\xaa\x03\0\0\0"  # RFC 1042: LLC of SNAP, organisation 0: an EtherType follows
_PPP_PROTOCOLS = {0x0021: IPV4, 0x0057: IPV6, 0x0281: 0x8847, 0x0283: 0x8848}  # RFC 1332, RFC 5072, RFC 3032, 4.3
_LABEL_IPV4, _LABEL_IPV6, _LABEL_GAL = 0, 2, 13


@dataclass(frozen=True)
class Packet:
    """One packet as a flow counts it. ``vlan``, ``priority``: of the outermost tag that names a VLAN, else 0."""

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
    while ethertype in _TAGS:
        if len(data) < 4:
            raise Malformed("a VLAN tag is cut short")
        control, ethertype = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        if tags == 0 or (vlan == 0 and control & 0xFFF):
            # A VLAN id of 0 names no VLAN: such a tag has a priority only (IEEE 802.1Q, 9.6, table 9-2).
            vlan, priority = control & 0xFFF, control >> 13
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
    """IP, or MPLS (RFC 3032, 5), behind an 802.3 length, LLC and SNAP (RFC 1042)."""
    if length > _LONGEST_LLC or length < 8 or len(data) < 8 or data[:6] != _SNAP:
        raise NotIp("802.3 length without SNAP")
    ethertype = int.from_bytes(data[6:8], "big")
    if ethertype not in {IPV4, IPV6, *_MPLS}:
        raise NotIp("SNAP without IP")
    if length > len(data):
        raise Malformed("the 802.3 length goes beyond the frame")
    return _network(ethertype, data[8:length])


def _pppoe(data: bytes) -> tuple[int, Inner]:
    """RFC 2516, 4 and 6: version and type 1, code 0 in a session; the length counts what follows the header."""
    if len(data) < 6:
        raise Malformed("a PPPoE header is cut short")
    length = int.from_bytes(data[4:6], "big")
    if data[0] != 0x11 or data[1] != 0:
        raise NotIp("PPPoE of another version, or no session data")
    if length > len(data) - 6 or length < 2:
        raise Malformed("the PPPoE length goes beyond the frame, or has no room for a protocol")
    protocol = int.from_bytes(data[6:8], "big")
    if protocol not in _PPP_PROTOCOLS:
        raise NotIp(f"PPP protocol 0x{protocol:04x}")
    return _network(_PPP_PROTOCOLS[protocol], data[8 : 6 + length])


def _mpls(data: bytes) -> tuple[int, Inner]:
    """RFC 3032, 2.1: a stack of labels, the last of which is marked. What follows says what it is by its first four
    bits (RFC 4928, 3), unless the last label does (explicit NULL)."""
    label, bottom = 0, False
    while not bottom:
        if len(data) < 4:
            raise Malformed("a label stack is cut short")
        label, bottom = int.from_bytes(data[:3], "big") >> 4, bool(data[2] & 1)
        data = data[4:]
    version = data[0] >> 4 if data else 0
    if label == _LABEL_IPV4 or (version == 4 and label not in {_LABEL_IPV6, _LABEL_GAL}):
        return IPV4, ipv4(data)
    if label == _LABEL_IPV6 or (version == 6 and label != _LABEL_GAL):
        return IPV6, ipv6(data)
    raise NotIp("MPLS without IP")
