"""Interfaces of the host, and the events of new, changed and removed ones, from rtnetlink."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.flow.interface_key import interface_key
from netobs.kernel import netlink
from netobs.kernel.link_stats import LINK_STATS, link_stats

if TYPE_CHECKING:
    import numpy.typing as npt

# linux/if_arp.h: what begins with an Ethernet header, and what begins with the IP header
ARPHRD_ETHERNET = (1, 772)  # ETHER, LOOPBACK
ARPHRD_IP = (512, 519, 65534, 768, 769, 776, 778, 823)  # PPP, RAWIP, NONE, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE

MAC_OCTETS = 6
IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 18, 20  # linux/if_link.h
IFLA_INFO_KIND = 1  # in IFLA_LINKINFO
EVENTS_AT_ONCE = 64
"""A new interface is announced four times or so, and a host brings up hundreds at once: events are parsed in parts."""


@dataclass(frozen=True)
class Interface:
    """One network interface."""

    index: int
    name: str
    arphrd: int
    kind: str = ""  # of a virtual one: veth, bridge, vxlan, ...
    alias: str = ""
    mac: bytes = b""  # 6 octets, none where packets have no Ethernet header
    netns: int = 0  # number of its network namespace, 0 = the first

    @property
    def key(self) -> int:
        """Identifies it among the interfaces of all namespaces."""
        return interface_key(self.netns, self.index)

    @property
    def has_ethernet(self) -> bool:
        """Packets begin with an Ethernet header, not with the IP header."""
        return self.arphrd in ARPHRD_ETHERNET

    @property
    def is_measurable(self) -> bool:
        """Packets begin with a header that the programs understand."""
        return self.has_ethernet or self.arphrd in ARPHRD_IP


class LinkEvent(NamedTuple):
    """An interface that is there (new, or changed in some way), or is gone."""

    interface: Interface
    gone: bool


class LinkMonitor:
    """A netlink socket that lists interfaces and reports changes. ``fileno`` is readable when there are events."""

    def __init__(self, sockets: tuple[socket.socket, socket.socket] | None = None, netns: int = 0) -> None:
        """``sockets``: two netlink sockets of another network namespace, new ones; its number is ``netns``."""
        self._requests: socket.socket | None = None
        self._netns = netns
        if sockets is None:
            self._events = netlink.open_socket(netlink.RTMGRP_LINK)
        else:
            self._events, self._requests = sockets
            netlink.bind(self._events, netlink.RTMGRP_LINK)
            netlink.bind(self._requests)
        self._events.setblocking(False)

    def fileno(self) -> int:
        """For the event loop."""
        return self._events.fileno()

    def close(self) -> None:
        """Closes the sockets, which keep their network namespace alive."""
        self._events.close()
        if self._requests is not None:
            self._requests.close()

    def name_of(self, index: int) -> str:
        """The name of the interface that has this index now; empty if none has it."""
        if self._requests is not None:
            return next((each.name for each in self.interfaces() if each.index == index), "")
        with contextlib.suppress(OSError):
            return os.fsencode(socket.if_indextoname(index)).decode("utf-8", "replace")
        return ""

    def interfaces(self) -> list[Interface]:
        """All interfaces of the network namespace; none if it has just been left (``close``)."""
        if self._events.fileno() < 0:
            return []
        body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return [
            interface
            for _, message in netlink.dump(netlink.RTM_GETLINK, body, self._requests)
            for interface in self._interface(message)
        ]

    def stats(self) -> npt.NDArray[np.void]:
        """The kernel's counters of all interfaces, as ``link_stats``; none if the namespace has just been left.

        :raises OSError: as in ``link_stats``.
        """
        return link_stats(self._requests) if self._events.fileno() >= 0 else np.zeros(0, LINK_STATS)

    def read(self) -> list[LinkEvent] | None:
        """Events that have arrived, oldest first, at most ``EVENTS_AT_ONCE``: ``fileno`` stays readable if there are
        more. None: the kernel lost some, list the interfaces anew."""
        events: list[LinkEvent] = []
        while len(events) < EVENTS_AT_ONCE and (data := self._receive()) is not None:
            if not data:
                self.drop()  # the queued events are older than the lost ones
                return None
            events += self._parse(data)
        return events

    def drop(self) -> None:
        """Drops all events that have arrived."""
        while self._receive() is not None:
            pass

    def _receive(self) -> bytes | None:
        """The next events; empty: the kernel lost some; None: there are none."""
        try:
            return self._events.recv(netlink.RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return b""

    def _parse(self, data: bytes) -> list[LinkEvent]:
        return [
            LinkEvent(interface, kind == netlink.RTM_DELLINK)
            for kind, message in netlink.messages(data)
            if kind in (netlink.RTM_NEWLINK, netlink.RTM_DELLINK)
            for interface in self._interface(message)
        ]

    def _interface(self, message: bytes) -> Iterator[Interface]:
        """None from a bridge port's view of the interface, which is not the interface."""
        family, arphrd, index, _, _ = IFINFOMSG.unpack_from(message, netlink.HEADER.size)
        if family == socket.AF_UNSPEC:
            found = netlink.attributes_of(message, netlink.HEADER.size + IFINFOMSG.size)
            kind = netlink.attributes_of(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")
            mac = found.get(IFLA_ADDRESS, b"")
            yield Interface(
                index,
                netlink.text(found.get(IFLA_IFNAME, b"")),
                arphrd,
                netlink.text(kind),
                netlink.text(found.get(IFLA_IFALIAS, b"")),
                mac if len(mac) == MAC_OCTETS else b"",  # those of tunnels are IPv4 or IPv6
                self._netns,
            )
