"""Linux features for a UDP socket with Messages: its buffer, segmentation, and the path MTU."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

from netobs.base import capabilities
from netobs.export.link.address import Address

MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.10
MAX_BATCH_BYTES = 65_000
MAX_PAYLOAD_BYTES = 65_507
NO_GSO = (errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EMSGSIZE)
"""Errors of the kernel for a batch that it cannot segment on this path."""

_SEND_BUFFER_BYTES = 1 << 20
# The kernel doubles it: 2 MiB hold about 900 Messages of 1400 bytes with their bookkeeping, fewer than the 1000 packets
# of a default device queue. So a burst gets EAGAIN here, which we can wait for, instead of a silent drop there.

# uapi linux/udp.h, linux/in.h, linux/in6.h, asm-generic/socket.h: Python has no names for these
_UDP_SEGMENT = 103
_SO_SNDBUFFORCE = 32
_MTU_OPTIONS = {  # level, *_MTU_DISCOVER, *_MTU, bytes of IP and UDP header; the value for *_PMTUDISC_DO is 2 in both
    socket.AF_INET: (socket.IPPROTO_IP, 10, 14, 28),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 24, 48),
}
_PMTUDISC_DO = 2


def connect(sock: socket.socket, address: Address) -> bool:
    """Make ``sock`` ready for ``address``; whether the kernel knows UDP_SEGMENT. Raises OSError."""
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):  # the first is not limited by wmem_max but needs CAP_NET_ADMIN
        with contextlib.suppress(OSError), capabilities.taken_up(capabilities.NET_ADMIN):
            sock.setsockopt(socket.SOL_SOCKET, option, _SEND_BUFFER_BYTES)
            break
    level, discover, _, _ = _MTU_OPTIONS[socket.AddressFamily(address.family)]
    sock.setsockopt(level, discover, _PMTUDISC_DO)
    segmentation = True
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 0)
    except OSError:
        segmentation = False  # kernels that do not know it would send the batch as one datagram
    sock.connect(address.sockaddr)
    return segmentation


def path_payload(sock: socket.socket) -> int:
    """The longest datagram for the path, as far as the kernel knows, in bytes of UDP payload. Raises OSError."""
    level, _, mtu_option, header_bytes = _MTU_OPTIONS[socket.AddressFamily(sock.family)]
    return min(sock.getsockopt(level, mtu_option) - header_bytes, MAX_PAYLOAD_BYTES)


def send(sock: socket.socket, data: memoryview, size: int) -> int:
    """Send ``data`` as datagrams of ``size`` bytes (the last may be shorter) in one call; 0, or the errno."""
    try:
        if len(data) > size:
            sock.sendmsg([data], [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", size))])
        else:
            sock.send(data)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
