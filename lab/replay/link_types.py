"""Link types of capture files: which frame or packet a record is, and on which kind of interface it can be sent."""

from __future__ import annotations

from typing import NamedTuple

from lab.pcap import ETHERNET, Packet

LONGEST_OCTETS = 65535 + 18  # what an Ethernet interface of the largest MTU takes, with one VLAN tag
IPV4, IPV6, MPLS, PPPOE = 0x0800, 0x86DD, 0x8847, 0x8864
FIRST_ETHERTYPE = 0x0600  # below: a length (IEEE 802.3, 3.2.6), in cooked captures a number of Linux

_KERNEL_TAGS = frozenset({0x8100, 0x88A8})
_NULL, _PPP, _PPP_HDLC, _PPPOE, _C_HDLC, _LOOP, _SLL, _IPV4, _IPV6, _MPLS, _SLL2 = (
    0, 9, 50, 51, 104, 108, 113, 228, 229, 219, 276,
)  # fmt: skip
_RAW = frozenset({12, 14, 101})
_FAMILIES = {2: IPV4, 10: IPV6, 23: IPV6, 24: IPV6, 28: IPV6, 30: IPV6}
_PPP_PROTOCOLS = {0x0021: IPV4, 0x0057: IPV6, 0x0281: MPLS, 0x0283: 0x8848}
_NAMES = {6: "Token Ring", 10: "FDDI", 105: "802.11", 107: "Frame Relay", 119: "802.11 with Prism header",
          127: "802.11 with radiotap", 163: "802.11 with AVS header", 192: "PPI", 195: "802.15.4", 189: "USB",
          220: "USB", 201: "Bluetooth", 187: "Bluetooth", 253: "netlink", 239: "NFLOG", 143: "DOCSIS"}  # fmt: skip


class Sendable(NamedTuple):
    """``ethertype`` -1: ``octets`` are an Ethernet frame; else they are what follows a header with that EtherType.

    ``filled``: how many octets were not captured, and are 0 here.
    """

    ethertype: int
    octets: bytes
    filled: int


class NotSendable(Exception):
    """Its text is the reason."""


def sendable(packet: Packet) -> Sendable:
    """What to send for a record of a file.

    If the file holds only the start of a packet, zeros fill the packet up, so that lengths and headers stay right. If
    the length in the file cannot be true, the kept octets are the frame.

    :raises NotSendable: it is no frame and no packet that an interface of Linux could receive.
    """
    octets = packet.octets
    missing = max(packet.length - len(octets), 0) if packet.length <= LONGEST_OCTETS else 0
    ethertype, begin = _begin(packet.link, octets)
    length = len(octets) + missing - begin
    if length > LONGEST_OCTETS:
        raise NotSendable("too long")
    if ethertype < 0 and length < 14:
        raise NotSendable("shorter than an Ethernet header")
    if length <= 0:
        raise NotSendable("empty")
    return Sendable(ethertype, octets[begin:] + bytes(missing), missing)


def is_dropped_at_ingress(one: Sendable) -> bool:
    """Whether the kernel drops it before any hook at ingress: a VLAN tag with less than two octets behind it."""
    ethertype, size = one.ethertype, len(one.octets)
    if ethertype < 0:
        ethertype, size = int.from_bytes(one.octets[12:14], "big"), size - 14
    return ethertype in _KERNEL_TAGS and size < 6  # skb_vlan_untag()


def _begin(link: int, octets: bytes) -> tuple[int, int]:
    """EtherType (-1: an Ethernet frame) and the offset of what follows it."""
    if link == ETHERNET:
        return -1, 0
    if link in _RAW:
        return _of_version(octets), 0
    if link in {_IPV4, _IPV6, _MPLS, _PPPOE}:
        return {_IPV4: IPV4, _IPV6: IPV6, _MPLS: MPLS, _PPPOE: PPPOE}[link], 0
    if link in {_NULL, _LOOP}:
        return _of_family(octets[:4]), 4
    if link in {_PPP, _PPP_HDLC}:
        return _of_ppp(octets)
    if link in {_SLL, _SLL2, _C_HDLC}:
        at, size = {_SLL: (14, 16), _SLL2: (0, 20), _C_HDLC: (2, 4)}[link]
        ethertype = int.from_bytes(octets[at : at + 2], "big")
        if len(octets) < size or ethertype < FIRST_ETHERTYPE:
            raise NotSendable("no EtherType")
        return ethertype, size
    raise NotSendable(_NAMES.get(link, f"link type {link}"))


def _of_version(octets: bytes) -> int:
    version = octets[0] >> 4 if octets else 0
    if version not in {4, 6}:
        raise NotSendable("no IP packet")
    return IPV4 if version == 4 else IPV6


def _of_family(octets: bytes) -> int:
    """The address family of a BSD loopback header, in the byte order of whatever machine has captured."""
    for order in ("little", "big"):
        ethertype = _FAMILIES.get(int.from_bytes(octets, order))
        if ethertype:
            return ethertype
    raise NotSendable("no IP packet")


def _of_ppp(octets: bytes) -> tuple[int, int]:
    """Address and control may be left out, and the first octet of a protocol below 256 (RFC 1661, 6.5 and 6.6)."""
    at = 2 if octets[:2] == b"\xff\x03" else 0
    size = 1 if octets[at : at + 1] and octets[at] & 1 else 2
    protocol = int.from_bytes(octets[at : at + size], "big")
    if protocol not in _PPP_PROTOCOLS:
        raise NotSendable("PPP without IP")
    return _PPP_PROTOCOLS[protocol], at + size
