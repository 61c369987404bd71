"""What rtnetlink and /sys tell of each interface, beside what the daemon needs of them."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from netobs.kernel import host, netlink
from netobs.kernel.interfaces import IFINFOMSG, Interface, LinkMonitor

_IFLA_LINK, _IFLA_MASTER, _IFLA_PHYS_SWITCH_ID, _IFLA_LINK_NETNSID = 5, 10, 36, 37  # linux/if_link.h
_IFLA_PHYS_PORT_NAME, _IFLA_XDP = 38, 43
_XDP_MODES = {5: "driver", 6: "generic", 7: "hardware"}
"""IFLA_XDP_DRV_PROG_ID, _SKB_PROG_ID, _HW_PROG_ID, in the order in which a packet meets them but for the last."""
_SYS = Path("/sys/class/net")


class Link(NamedTuple):
    """``master``, ``lower``: the interface that this one is a port of, and the one that it lies on, by index; 0 where
    there is none in this network namespace. ``xdp``: program number by mode."""

    interface: Interface
    master: int
    lower: int
    xdp: dict[str, int]
    switch_id: str
    port_name: str
    virtual_functions: int

    @property
    def name(self) -> str:
        """The interface's name."""
        return self.interface.name


def links(sys: Path = _SYS) -> list[Link]:
    """All interfaces of this network namespace. ``sys``: the folder with their files.

    :raises OSError: rtnetlink does not answer.
    """
    monitor = LinkMonitor()
    try:
        interfaces = {each.index: each for each in monitor.interfaces()}
    finally:
        monitor.close()
    found = []
    for _, message in netlink.dump(netlink.RTM_GETLINK, IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, _, index, _, _ = IFINFOMSG.unpack_from(message, netlink.HEADER.size)
        interface = interfaces.get(index)
        if family == socket.AF_UNSPEC and interface is not None:
            found.append(parsed(interface, message[netlink.HEADER.size + IFINFOMSG.size :], sys))
    return found


def parsed(interface: Interface, data: bytes, sys: Path = _SYS) -> Link:
    """From the attributes of an RTM_NEWLINK."""
    attributes = netlink.attributes_of(data)
    return Link(
        interface,
        master=_number(attributes.get(_IFLA_MASTER)),
        lower=0 if _IFLA_LINK_NETNSID in attributes else _number(attributes.get(_IFLA_LINK)),
        xdp=_xdp(netlink.attributes_of(attributes.get(_IFLA_XDP, b""))),
        switch_id=attributes.get(_IFLA_PHYS_SWITCH_ID, b"").hex(),
        port_name=netlink.text(attributes.get(_IFLA_PHYS_PORT_NAME, b"")),
        virtual_functions=virtual_functions(interface, sys),
    )


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0


def _xdp(attributes: dict[int, bytes]) -> dict[str, int]:
    return {mode: _number(attributes[kind]) for kind, mode in _XDP_MODES.items() if attributes.get(kind)}


def virtual_functions(interface: Interface, sys: Path = _SYS) -> int:
    """How many SR-IOV virtual functions the network card has. 0 where /sys shows another network namespace."""
    folder = sys / interface.name
    if host.read_if_there(f"{folder}/ifindex").strip() != str(interface.index):
        return 0
    text = host.read_if_there(f"{folder}/device/sriov_numvfs").strip()
    return int(text) if text.isdigit() else 0
