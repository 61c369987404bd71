"""Where the former process had its programs: TCX links that go on, clsact qdiscs that were made for its filters, and
the names of the interfaces."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Protocol

from netobs.base import clock
from netobs.base.keeper import Keeper
from netobs.base.kept_record import KeptRecord
from netobs.kernel import attach, libbpf
from netobs.kernel.attach import Attachment, FilterPlace
from netobs.kernel.interface_history import InterfaceNames
from netobs.kernel.interfaces import ARPHRD_ETHERNET, Interface

PLACES = "places"
NOTED_WITHIN_NS = 50_000_000
"""A process that is killed while it attaches may leave the last work of so long unsaid."""


def link_name(index: int, direction: str, namespace: int = 0) -> str:
    """The name of a link in the keeper; at most 14 characters for indices below 100 million."""
    return f"l-{namespace}-{index}-{direction[0]}"


class Hooks(Protocol):
    """The hooks of the interfaces of a network namespace: of this process's, those of the module ``attach``."""

    def attach(
        self, interface: Interface, direction: str, program_fd: int, method: str, place: FilterPlace
    ) -> Attachment:
        """As ``attach.attach``."""

    def make_link(self, interface: Interface, direction: str, program_fd: int, place: FilterPlace) -> int:
        """As ``attach.make_link``."""


class KeptLinks:
    """Attaches as ``attach.attach`` does, with the link of the former process where there is one, which it keeps for
    the next one. Never two links of ours are on one hook."""

    def __init__(self, keeper: Keeper, place: FilterPlace, hooks: Hooks = attach, namespace: int = 0) -> None:
        """``place``: of the filters, as in ``attach.attach``. ``hooks``: those of the network namespace with the number
        ``namespace``."""
        self._keeper, self._place, self._hooks, self._namespace = keeper, place, hooks, namespace
        self._unclaimed = {name for name in keeper.names() if name.startswith(f"l-{namespace}-")}
        former = None if namespace else keeper.former(PLACES)
        self._places = KeptRecord(-1)
        self._had_filters: set[int] = set()
        self._noted: dict[str, Any] = {}
        self._noted_names: dict[int, Interface] = {}
        self._noted_ns = 0
        if former is not None:
            self._places = KeptRecord(former)
            self._noted = self._places.read() or {}
            self._had_filters.update(self._noted.get("filters", ()))
            attach.adopt_qdiscs(self._noted.get("made", ()), place)
        elif keeper.keeps and not namespace:
            self._places = KeptRecord(keeper.memory(PLACES))
        self._former_names: dict[str, list[str]] = self._noted.get("names", {})
        self._links: dict[str, int] = {}

    def attach(self, interface: Interface, direction: str, program_fd: int, method: str) -> Attachment:
        """As ``attach.attach``.

        :raises OSError: as in ``attach.attach``.
        """
        name = link_name(interface.index, direction, self._namespace)
        link = self._former(name, interface, direction, program_fd)
        if method != "tcx":
            if link >= 0:
                self._end(name, link)
            return self._hooks.attach(interface, direction, program_fd, method, self._place)
        if not self._keeper.keeps:
            return self._hooks.attach(interface, direction, program_fd, method, self._place)
        if link < 0:
            link = self._hooks.make_link(interface, direction, program_fd, self._place)
            self._keeper.keep(name, link)
        if interface.index in self._had_filters:
            attach.remove_former_filter(interface, direction, self._place)
        self._links[name] = link
        return replace(
            attach.attachment_of_link(interface, direction, link),
            detach=lambda: self._end(name, link),
            forget=lambda: self._forget(name, link),
        )

    def former_method(self, index: int, direction: str) -> str:
        """How the former process had its program on this hook of interface ``index``; "" if it had none there."""
        if link_name(index, direction, self._namespace) in self._unclaimed:
            return "tcx"
        return "tc" if index in self._had_filters else ""

    def _former(self, name: str, interface: Interface, direction: str, program_fd: int) -> int:
        """A descriptor of the former process's link on this hook, which runs the program from now on; -1 if there is
        none."""
        self._unclaimed.discard(name)
        former = self._keeper.former(name)
        if former is None:
            return -1
        link = fcntl.fcntl(former, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            if libbpf.tcx_place(link) == (interface.index, attach.BPF_TCX[direction]):
                libbpf.update_link(link, program_fd)
                return link
        except OSError:  # it is detached, or was never one
            pass
        os.close(link)
        self._keeper.drop(name)
        return -1

    def _end(self, name: str, link: int) -> None:
        """Detaches at once, whoever else has a descriptor of the link."""
        _detach(link)
        self._forget(name, link)

    def _forget(self, name: str, link: int) -> None:
        self._links.pop(name, None)
        os.close(link)
        self._keeper.drop(name)

    @property
    def unclaimed(self) -> int:
        """How many links of the former process nobody wants so far."""
        return len(self._unclaimed)

    def end_unclaimed(self) -> None:
        """Everything wanted is attached: detaches one of the former process's links on other interfaces, which takes
        the kernel a grace period."""
        self._had_filters.clear()
        if not self._unclaimed:
            return
        name = self._unclaimed.pop()
        former = self._keeper.former(name)
        if former is not None:
            _detach(former)
            self._keeper.drop(name)

    def note(self, attachments: Mapping[int, Sequence[Attachment]], names: Mapping[int, Interface] | None) -> None:
        """Keeps which interfaces have filters of ours, by index, where the qdisc is of our making, and, unless it is
        empty, ``names``. None while more is due: then once in ``NOTED_WITHIN_NS``, as it takes ms for thousands."""
        if self._places.is_off or (names is None and clock.monotonic_ns() < self._noted_ns + NOTED_WITHIN_NS):
            return
        filters = sorted({index for index, each in attachments.items() for one in each if one.method == "tc"})
        noted = {**self._noted, "filters": filters, "made": attach.made_qdiscs()}
        if names and names != self._noted_names:
            self._noted_names = dict(names)
            noted["names"] = {str(index): [each.name, each.alias] for index, each in names.items()}
        if noted != self._noted:
            self._noted = noted
            self._places.write(noted)
        self._noted_ns = clock.monotonic_ns()

    def recall(self, interface_names: InterfaceNames, present: Callable[[], Iterable[Interface]]) -> None:
        """Flows of the former process's interfaces may be in the kernel. Those that are gone, or have another name now,
        keep the name that they had then."""
        if not self._former_names:
            return
        names_now = {interface.index: interface.name for interface in present()}
        for index, (name, alias) in ((int(text), values) for text, values in self._former_names.items()):
            interface_names.learn(Interface(index, name, ARPHRD_ETHERNET[0], alias=alias))
            if names_now.get(index) != name:
                interface_names.retire(index)
        self._former_names = {}

    def keep_nothing(self) -> None:
        """The next process finds nothing: after everything was detached."""
        while self._unclaimed:
            self.end_unclaimed()
        if not self._namespace:
            self._keeper.drop(PLACES)

    def close(self) -> None:
        """Closes this process's descriptors, and keeps everything."""
        while self._links:
            os.close(self._links.popitem()[1])
        self._places.close()


def _detach(link: int) -> None:
    with contextlib.suppress(OSError):  # detached, as its interface has gone
        libbpf.detach_link(link)
