"""The kernel's own counters of each interface: what ``ip -s link`` shows, from rtnetlink in one request."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from netobs.kernel import netlink

if TYPE_CHECKING:
    import numpy.typing as npt

RTM_NEWSTATS, RTM_GETSTATS = 92, 94
IFLA_STATS_LINK_64 = 1
IF_STATS_MSG = struct.Struct("=BxxxII")  # family, interface, which statistics
_COUNTERS = ("rx_packets", "tx_packets", "rx_octets", "tx_octets", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
LINK_STATS = np.dtype([("ifindex", "<u4"), *((name, "<u8") for name in _COUNTERS)])
"""The beginning of ``struct rtnl_link_stats64``, with the interface."""
QDISC_DROPS = np.dtype([("ifindex", "<u4"), ("dropped", "<u8")])
_MESSAGE = np.dtype({
    "names": ["length", "kind", "ifindex", "attribute", *_COUNTERS],
    "formats": ["<u4", "<u2", "<u4", "<u2", *["<u8"] * len(_COUNTERS)],
    "offsets": [0, 4, 20, 30, *range(32, 32 + 8 * len(_COUNTERS), 8)],
    "itemsize": 32 + 8 * len(_COUNTERS),
})  # fmt: skip
"""The answer for one interface: ``struct nlmsghdr``, ``struct if_stats_msg``, one attribute, which begins so that its
numbers need no padding."""
_TCA_STATS2, _TCA_STATS_QUEUE, _TC_H_ROOT = 7, 3, 0xFFFFFFFF
_QUEUE = struct.Struct("=III")  # struct gnet_stats_queue: length, backlog, drops


def link_stats(sock: socket.socket | None = None) -> npt.NDArray[np.void]:
    """Of all interfaces, dtype ``LINK_STATS``, in ascending order of ``ifindex``. ``sock``: as in ``netlink.dump``.
    The kernel waits for its lock of all interfaces (RTNL): call it in a thread.

    :raises OSError: the socket failed, or the kernel answered with an error.
    """
    body = IF_STATS_MSG.pack(socket.AF_UNSPEC, 0, 1 << (IFLA_STATS_LINK_64 - 1))
    parts = [_stats_of(data) for data in netlink.parts(RTM_GETSTATS, body, sock)]
    stats = np.concatenate([np.zeros(0, LINK_STATS), *parts])
    stats.sort(order="ifindex")
    return stats


def _stats_of(data: bytes) -> npt.NDArray[np.void]:
    """Of the messages in ``data``. All have one length, except the one that says that there are no more."""
    length = netlink.HEADER.unpack_from(data)[0]
    if length < _MESSAGE.itemsize:
        return np.zeros(0, LINK_STATS)
    count = len(data) // length
    messages = np.ndarray((count,), _MESSAGE, data, strides=(length,))
    messages = messages[(messages["kind"] == RTM_NEWSTATS) & (messages["attribute"] == IFLA_STATS_LINK_64)]
    stats = np.zeros(len(messages), LINK_STATS)
    for name in LINK_STATS.names or ():
        stats[name] = messages[name]
    return stats


def qdisc_drops(sock: socket.socket | None = None) -> npt.NDArray[np.void]:
    """Packets that the qdiscs of each interface have dropped, dtype ``QDISC_DROPS``, in ascending order of ``ifindex``:
    those at the root, which count what their children drop. ``sock``, errors: as in ``link_stats``."""
    body = netlink.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found = sorted(_drops(netlink.dump(netlink.RTM_GETQDISC, body, sock)))
    return np.array(found, QDISC_DROPS)


def _drops(answer: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, int]]:
    for kind, message in answer:
        _, index, _, parent, _ = netlink.TCMSG.unpack_from(message, netlink.HEADER.size)
        if kind == netlink.RTM_NEWQDISC and parent == _TC_H_ROOT:
            attributes = netlink.attributes_of(message, netlink.HEADER.size + netlink.TCMSG.size)
            queue = netlink.attributes_of(attributes.get(_TCA_STATS2, b"")).get(_TCA_STATS_QUEUE, b"")
            if len(queue) >= _QUEUE.size:
                yield index, _QUEUE.unpack_from(queue)[2]
