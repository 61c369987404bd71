"""The verbs of the helper: each checks every value of its request, and names the one that is wrong."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

from netobs.helper.namespaces import NamedNamespaces
from netobs.kernel import inotify, libbpf
from netobs.kernel.attach import BPF_TCX, FLOWS_PLACE, PlacedFilter, make_link, place_filter, remove_filter
from netobs.kernel.helper_protocol import MAX_ANSWER_BYTES, MAX_NAMES, Message
from netobs.kernel.interfaces import ARPHRD_ETHERNET, Interface

METHODS = ("tcx", "tc")
PROGRAM_PREFIX = "netobs_"
_BPF_PROGRAM = "anon_inode:bpf-prog"
_MAX_IFINDEX, _MAX_PRIORITY, _MAX_U32 = 0x7FFFFFFF, 0xFFFF, 0xFFFFFFFF


class Refused(Exception):
    """A request that is not as it should be."""


class Verbs:
    """What the helper can be asked for."""

    def __init__(self, namespaces: NamedNamespaces) -> None:
        self._namespaces = namespaces
        self._verbs = {
            "list": self._list,
            "open": self._open,
            "link": self._link,
            "unlink": self._unlink,
            "events": self._events,
        }

    def answer(self, request: Message) -> Message:
        """The answer to ``request``; its descriptors are the caller's.

        :raises Refused: the request is not as it should be.
        :raises OSError: what it asks for failed.
        """
        verb = request.values.get("verb")
        if not isinstance(verb, str) or verb not in self._verbs:
            raise Refused(f"the verb is one of {', '.join(self._verbs)}")
        if len(request.fds) != (verb == "link"):
            raise Refused("link takes the descriptor of a program, the other verbs take none")
        return self._verbs[verb](request)

    def _list(self, _request: Message) -> Message:
        names, room = [], MAX_ANSWER_BYTES // 2
        for name, inode in self._namespaces.names(MAX_NAMES):
            room -= len(ascii(name)) + 32
            if room < 0:
                break
            names.append((name, inode))
        return Message({"names": names})

    def _open(self, request: Message) -> Message:
        with self._namespaces.opened(_text(request, "namespace")) as fd, self._namespaces.inside(fd):
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
            return Message({"inode": os.fstat(fd).st_ino}, [sock.detach()])

    def _link(self, request: Message) -> Message:
        name, interface, direction = _text(request, "namespace"), _interface(request), _choice(request, "direction")
        method, place = _choice(request, "method"), FLOWS_PLACE._replace(last=_boolean(request, "last"))
        if "beside" in request.values:
            place = place._replace(beside=_boolean(request, "beside"))
        if "priority" in request.values:
            place = place._replace(priority=_number(request, "priority", _MAX_PRIORITY))
        (program,) = request.fds
        _check_program(program)
        with self._namespaces.opened(name) as fd, self._namespaces.inside(fd):
            if method == "tcx":
                return Message({}, [make_link(interface, direction, program, place)])
            return Message(place_filter(interface, direction, program, place)._asdict())

    def _unlink(self, request: Message) -> Message:
        name, interface, direction = _text(request, "namespace"), _interface(request), _choice(request, "direction")
        placed = PlacedFilter(
            _number(request, "priority", _MAX_PRIORITY),
            _number(request, "program", _MAX_U32, least=0),
            _boolean(request, "made_qdisc"),
        )
        with self._namespaces.opened(name) as fd, self._namespaces.inside(fd):
            remove_filter(interface, direction, placed, FLOWS_PLACE.handle)
        return Message({})

    def _events(self, _request: Message) -> Message:
        return Message({}, [inotify.watch(self._namespaces.folder)])


_CHOICES: Mapping[str, tuple[str, ...]] = {"direction": tuple(BPF_TCX), "method": METHODS}


def _text(request: Message, key: str) -> str:
    value = request.values.get(key)
    if not isinstance(value, str):
        raise Refused(f"{key} is a string")
    return value


def _choice(request: Message, key: str) -> str:
    value = _text(request, key)
    if value not in _CHOICES[key]:
        raise Refused(f"{key} is one of {', '.join(_CHOICES[key])}")
    return value


def _number(request: Message, key: str, most: int, least: int = 1) -> int:
    value: Any = request.values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refused(f"{key} is a number from {least} to {most}")
    return value


def _boolean(request: Message, key: str) -> bool:
    value = request.values.get(key)
    if not isinstance(value, bool):
        raise Refused(f"{key} is true or false")
    return value


def _interface(request: Message) -> Interface:
    index = _number(request, "ifindex", _MAX_IFINDEX)
    return Interface(index, f"ifindex {index}", ARPHRD_ETHERNET[0])


def _check_program(fd: int) -> None:
    """:raises OSError: EINVAL: ``fd`` is no program for the TC hook that netobs has loaded."""
    if os.readlink(f"/proc/self/fd/{fd}") == _BPF_PROGRAM:
        kind, name = libbpf.program_info(fd)
        if kind == libbpf.PROG_TYPE_SCHED_CLS and name.startswith(PROGRAM_PREFIX):
            return
    raise OSError(errno.EINVAL, "the descriptor is no program of netobs for the TC hook")
