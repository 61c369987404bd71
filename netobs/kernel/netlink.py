"""A small part of rtnetlink: requests that list things, and the framing of the answers."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWQDISC, RTM_GETQDISC = 36, 38
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
TCA_KIND = 1
_TCA_OPTIONS, _TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS, _TCA_BPF_FLAG_ACT_DIRECT = 2, 6, 7, 8, 1  # linux/pkt_cls.h
_ETH_P_ALL = 3
RTMGRP_LINK = 1
TC_H_INGRESS = 0xFFFFFFF1  # where a clsact qdisc is, or an ingress qdisc in its place
TC_H_CLSACT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, priority and protocol
RECEIVE_BYTES = 1 << 18
QUEUE_BYTES = 8 << 20  # a host may bring up hundreds of taps at once; memory is taken only for events that wait
_numbers = itertools.cycle(range(1, 1 << 31))
_DONE_BYTES = HEADER.size + 4
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python has no name for it


def open_socket(groups: int = 0) -> socket.socket:
    """A netlink socket that gets the events of the multicast ``groups``."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    bind(sock, groups)
    return sock


def bind(sock: socket.socket, groups: int = 0) -> None:
    """Makes a new socket ready for requests, and for the events of the multicast ``groups``."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
    except PermissionError:  # without CAP_NET_ADMIN as much as net.core.rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
    sock.bind((0, groups))


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, message with its header) of each netlink message in ``data``."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield kind, data[offset : offset + length]
        offset += (length + 3) & ~3


def dump(request: int, body: bytes, sock: socket.socket | None = None) -> Iterator[tuple[int, bytes]]:
    """The answer to a request that lists things: (type, message) each. ``sock``, errors: as in ``parts``."""
    for data in parts(request, body, sock):
        yield from messages(data)


def parts(request: int, body: bytes, sock: socket.socket | None = None) -> Iterator[bytes]:
    """The same as the kernel delivers it: several whole messages each. ``sock``: of another network namespace; nobody
    else uses it.

    :raises OSError: the socket failed, or the kernel answered with an error.
    """
    number = next(_numbers)
    with contextlib.nullcontext(sock) if sock is not None else open_socket() as asked:
        asked.send(HEADER.pack(HEADER.size + len(body), request, NLM_F_REQUEST | NLM_F_DUMP, number, 0) + body)
        while True:
            data = asked.recv(RECEIVE_BYTES)
            _, kind, _, answered, _ = HEADER.unpack_from(data)
            if answered != number:
                continue  # the rest of an answer that nobody read
            if kind == NLMSG_ERROR:
                failure = _failure(data)
                raise OSError(failure, f"rtnetlink request {request} failed (errno {failure})")
            end = _end_of(data, number)
            if end:
                yield data[:end]
            if end < len(data):
                return


def _end_of(data: bytes, number: int) -> int:
    """Where the message begins that says that there are no more; the length of ``data`` if there is none. The kernel
    sends it behind the last of the others, or alone (af_netlink.c: netlink_dump)."""
    offset = len(data) - _DONE_BYTES
    length, kind, _, answered, _ = HEADER.unpack_from(data, offset)
    return offset if (length, kind, answered) == (_DONE_BYTES, NLMSG_DONE, number) else len(data)


def _failure(message: bytes) -> int:
    """The errno in an NLMSG_ERROR, 0 in one that says that all went well (struct nlmsgerr)."""
    number: int = struct.unpack_from("=i", message, HEADER.size)[0]
    return -number


def filters(ifindex: int, parent: int, sock: socket.socket | None = None) -> list[tuple[int, int]]:
    """(handle, priority) of each filter on ``parent``, a hook of the clsact qdisc of interface ``ifindex``.

    ``sock``: as in ``dump``. Empty where there is no such qdisc or interface. Entries with handle 0 only announce a
    priority.
    """
    body = TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, parent, 0)
    try:
        entries = [message for kind, message in dump(RTM_GETTFILTER, body, sock) if kind == RTM_NEWTFILTER]
    except OSError:
        return []
    found = [TCMSG.unpack_from(entry, HEADER.size) for entry in entries]
    return [(handle, info >> 16) for _, _, handle, _, info in found]


def priorities_of(handle: int, ifindex: int, parent: int, sock: socket.socket | None = None) -> list[int]:
    """Of those ``filters`` that have the ``handle``, in ascending order."""
    return sorted(priority for each, priority in filters(ifindex, parent, sock) if each == handle)


def request(sock: socket.socket, kind: int, body: bytes, flags: int = 0, what: str = "rtnetlink request") -> None:
    """Has the kernel do what the request says, and waits for its answer. ``sock``: as in ``dump``; ``flags``: NLM_F_*.

    :raises OSError: the kernel refused ``what``.
    """
    number = next(_numbers)
    head = HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, 0)
    sock.send(head + body)
    while True:
        for answer, message in messages(sock.recv(RECEIVE_BYTES)):
            if (answer, HEADER.unpack_from(message)[3]) == (NLMSG_ERROR, number):
                failure = _failure(message)
                if failure:
                    raise OSError(failure, f"{what}: {os.strerror(failure)}")
                return


def replace_filter(
    sock: socket.socket, ifindex: int, parent: int, handle: int, priority: int, program_fd: int, name: str
) -> None:
    """Has a direct-action BPF filter that is there run another program, in one step, under another ``name``. ``sock``:
    as in ``dump``.

    :raises OSError: the kernel refused; ENOENT: it is not there.
    """
    options = packed(_TCA_BPF_FD, struct.pack("=I", program_fd)) + packed(_TCA_BPF_NAME, name.encode() + b"\0")
    options += packed(_TCA_BPF_FLAGS, struct.pack("=I", _TCA_BPF_FLAG_ACT_DIRECT))
    body = TCMSG.pack(socket.AF_UNSPEC, ifindex, handle, parent, priority << 16 | socket.htons(_ETH_P_ALL))
    body += packed(TCA_KIND, b"bpf\0") + packed(_TCA_OPTIONS, options)
    # Without NLM_F_CREATE it has to be there.
    request(sock, RTM_NEWTFILTER, body, NLM_F_REPLACE, "filter not replaced")


def packed(kind: int, value: bytes) -> bytes:
    """An attribute (struct nlattr), padded."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def ingress_qdisc(ifindex: int) -> str:
    """The kind of qdisc at the ingress of interface ``ifindex``: "clsact", "ingress", or "" if there is none.

    :raises OSError: the kernel did not list them.
    """
    for kind, message in dump(RTM_GETQDISC, TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, 0, 0)):
        _, index, _, parent, _ = TCMSG.unpack_from(message, HEADER.size)
        if kind == RTM_NEWQDISC and (index, parent) == (ifindex, TC_H_INGRESS):
            return text(attributes_of(message, HEADER.size + TCMSG.size).get(TCA_KIND, b""))
    return ""


def attributes_of(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The value of each attribute (struct nlattr) in ``data`` from ``offset`` on, by its type."""
    found = {}
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind] = data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def text(value: bytes) -> str:
    """An attribute that is a string, as Unicode: the kernel ends it with NUL."""
    return value.rstrip(b"\0").decode("utf-8", "replace")
