"""A veth pair between two network namespaces, its addresses and neighbours: requests to rtnetlink."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from netobs.kernel import netlink
from netobs.kernel.interfaces import IFINFOMSG, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO
from netobs.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, RTM_NEWLINK, packed
from netobs.selftest.frames import mac

_RTM_NEWADDR, _RTM_NEWNEIGH = 20, 28
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFLA_NET_NS_FD, _IFLA_INFO_DATA, _VETH_INFO_PEER = 28, 2, 1
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 0x02
_NDMSG = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
LOOPBACK_INDEX = 1


@dataclass(frozen=True)
class End:
    """One end of a veth pair. Its addresses have a prefix length."""

    name: str
    mac: str
    ipv4: str
    ipv6: str


def add_pair(here: End, there: End, there_fd: int) -> None:
    """Makes a veth pair from this namespace to the namespace ``there_fd``, not up yet. It never asks for the addresses
    of neighbours, and joins no multicast group that it would have to report (IFF_NOARP).

    :raises OSError: the kernel refused.
    """
    peer = packed(_VETH_INFO_PEER, _link(there) + packed(_IFLA_NET_NS_FD, struct.pack("=I", there_fd)))
    info = packed(IFLA_INFO_KIND, b"veth") + packed(_IFLA_INFO_DATA, peer)
    _ask(RTM_NEWLINK, _link(here) + packed(IFLA_LINKINFO, info), NLM_F_CREATE | NLM_F_EXCL, "no veth pair")


def _link(end: End) -> bytes:
    head = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, _IFF_NOARP, _IFF_NOARP)
    return head + packed(IFLA_IFNAME, end.name.encode() + b"\0") + packed(IFLA_ADDRESS, mac(end.mac))


def set_up(index: int = LOOPBACK_INDEX) -> None:
    """The interface ``index`` of this namespace. Loopback has its addresses from then on.

    :raises OSError: the kernel refused.
    """
    _ask(RTM_NEWLINK, IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP), 0, f"interface {index} not up")


def add_address(index: int, address: str, neighbour: str, neighbour_mac: str) -> None:
    """Gives the interface ``index`` of this namespace an ``address``, and a neighbour for ever.

    :raises OSError: the kernel refused.
    """
    interface, other = ipaddress.ip_interface(address), ipaddress.ip_interface(neighbour).ip
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    body = _IFADDRMSG.pack(family, interface.network.prefixlen, 0 if interface.version == 4 else _IFA_F_NODAD, 0, index)
    body += packed(_IFA_LOCAL, interface.ip.packed) + packed(_IFA_ADDRESS, interface.ip.packed)
    _ask(_RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_EXCL, f"no address {interface.ip}")
    body = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, 0)
    body += packed(_NDA_DST, other.packed) + packed(_NDA_LLADDR, mac(neighbour_mac))
    _ask(_RTM_NEWNEIGH, body, NLM_F_CREATE | NLM_F_REPLACE, f"no neighbour {other}")


def _ask(kind: int, body: bytes, flags: int, what: str) -> None:
    with netlink.open_socket() as sock:
        netlink.request(sock, kind, body, flags, what)
