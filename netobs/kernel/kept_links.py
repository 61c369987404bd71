"""Where the former process had its programs: TCX links that go on, clsact qdiscs that were made for its filters, and
the names of the interfaces."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, NamedTuple, Protocol

from netobs.base import clock
from netobs.base.keeper import Keeper, file_of
from netobs.base.kept_record import KeptRecord
from netobs.kernel import attach, libbpf, moving
from netobs.kernel.attach import Attachment, FilterPlace
from netobs.kernel.interface_history import InterfaceNames
from netobs.kernel.interfaces import ARPHRD_ETHERNET, Interface
from netobs.kernel.moving import TURN_SECOND, Turns

NOTED_WITHIN_NS = 50_000_000
"""A process that is killed while it attaches may leave the last work of so long unsaid."""


def places_name(namespace: int = 0) -> str:
    """The name in the keeper of where the programs are in a network namespace."""
    return f"places-{namespace}" if namespace else "places"


def link_name(index: int, direction: str, namespace: int = 0, last: bool = False) -> str:
    """The name of a link in the keeper, with a capital at its end for one behind others; at most 14 characters for
    indices below 100 million."""
    letter = direction[0]
    return f"l-{namespace}-{index}-{letter.upper() if last else letter}"


class Hooks(Protocol):
    """The hooks of the interfaces of a network namespace: of this process's, those of the module ``attach``."""

    def attach(
        self, interface: Interface, direction: str, program_fd: int, method: str, place: FilterPlace
    ) -> Attachment:
        """As ``attach.attach``."""

    def make_link(self, interface: Interface, direction: str, program_fd: int, place: FilterPlace) -> int:
        """As ``attach.make_link``."""

    def former_filters(self, interface: Interface, direction: str, place: FilterPlace) -> list[int]:
        """As ``attach.former_filters``."""

    def remove_former_filter(self, interface: Interface, direction: str, place: FilterPlace) -> None:
        """As ``attach.remove_former_filter``."""

    def adopt_qdiscs(self, indices: Iterable[int], place: FilterPlace) -> None:
        """As ``attach.adopt_qdiscs``."""

    def made_qdiscs(self) -> list[int]:
        """As ``attach.made_qdiscs``."""


class KeptLinks:
    """Attaches as ``attach.attach`` does, with the link of the former process where there is one, which it keeps for
    the next one. Never two links of ours are on one hook."""

    def __init__(self, keeper: Keeper, place: FilterPlace, hooks: Hooks = attach, namespace: int = 0) -> None:
        """``place``: of the filters, as in ``attach.attach``. ``hooks``: those of the network namespace with the number
        ``namespace``."""
        self._keeper, self.place, self._hooks, self._namespace = keeper, place, hooks, namespace
        self._unclaimed = {name for name in keeper.names() if name.startswith(f"l-{namespace}-")}
        self._places = KeptRecord(file_of(keeper, places_name(namespace)))
        self._noted: dict[str, Any] = self._places.read() or {}
        self._filters = {(index, each) for index in self._noted.get("filters", ()) for each in attach.BPF_TCX}
        """The hooks, by interface and direction, that may have a filter of the former process, unclaimed so far."""
        self._noted_names: dict[int, Interface] = {}
        self._noted_ns = 0
        hooks.adopt_qdiscs(self._noted.get("made", ()), place)
        self._former_names: dict[str, list[str]] = self._noted.get("names", {})
        self._links: dict[str, int] = {}

    def attach(self, interface: Interface, direction: str, program_fd: int, method: str) -> Attachment:
        """As ``attach.attach``, on a hook on which nothing is of the former process.

        :raises OSError: as in ``attach.attach``.
        """
        hook = (interface.index, direction)
        if method == "tcx":
            self._end_filter(hook)
        self._filters.discard(hook)  # another filter takes its place
        return self._attach(interface, direction, program_fd, method, self.place)

    def _attach(
        self, interface: Interface, direction: str, program_fd: int, method: str, place: FilterPlace
    ) -> Attachment:
        if method != "tcx" or not self._keeper.keeps:
            return self._hooks.attach(interface, direction, program_fd, method, place)
        link = self._hooks.make_link(interface, direction, program_fd, place)
        name = link_name(interface.index, direction, self._namespace, place.last)
        self._keeper.keep(name, link)
        return self._attachment(interface, direction, name, link, place.last)

    def _attachment(self, interface: Interface, direction: str, name: str, link: int, last: bool) -> Attachment:
        self._links[name] = link
        return replace(
            attach.attachment_of_link(interface, direction, link, last),
            detach=lambda: self._end(name, link),
            forget=lambda: self._forget(name, link),
        )

    def adopt(self, interface: Interface, direction: str, program_fd: int, turns: Turns | None) -> Attachment | None:
        """What the former process has on this hook, by whatever method; it runs ``program_fd`` from now on. If that
        process ended while it was moving its program, that goes on which counts. None if nothing is there."""
        found = [*self._former_links(interface, direction)]
        if not self._namespace:  # there, ``attach`` puts another one in its place
            found += self._former_filters(interface, direction)
        if not found:
            return None
        counts = -1 if len(found) > 1 and turns is not None and turns.turn == TURN_SECOND else 0
        goes_on, made = found.pop(counts), None
        with contextlib.suppress(OSError):  # somebody has removed it at this moment
            made = goes_on.adopt(program_fd)
        for other in found:
            other.end()
        return made

    def _former_links(self, interface: Interface, direction: str) -> Iterator[_Former]:
        """Those on this hook; a packet passes the first one first."""
        for last in (False, True):
            name = link_name(interface.index, direction, self._namespace, last)
            self._unclaimed.discard(name)
            former = self._keeper.former(name)
            if former is None:
                continue
            link = fcntl.fcntl(former, fcntl.F_DUPFD_CLOEXEC, 3)
            if _place_of(link) == (interface.index, attach.BPF_TCX[direction]):
                made = self._attachment(interface, direction, name, link, last)
                yield _Former(functools.partial(_swapped, made), made.detach)
            else:
                os.close(link)
                self._keeper.drop(name)

    def _former_filters(self, interface: Interface, direction: str) -> Iterator[_Former]:
        """As ``_former_links``; they come behind all links."""
        if (interface.index, direction) not in self._filters:
            return
        self._filters.discard((interface.index, direction))
        for priority in self._hooks.former_filters(interface, direction, self.place):
            place = self.place._replace(priority=priority)
            adopt = functools.partial(self._adopt_filter, interface, direction, place)
            yield _Former(adopt, functools.partial(self._hooks.remove_former_filter, interface, direction, place))

    def _adopt_filter(self, interface: Interface, direction: str, place: FilterPlace, program_fd: int) -> Attachment:
        return self._hooks.attach(interface, direction, program_fd, "tc", place)

    def move(self, old: Attachment, name: str, program_fd: int, turns: Turns, method: str) -> Attachment:
        """Attaches by ``method``, at the present ``place``, instead of by ``old``: as ``moving.move``.

        :raises OSError: as in ``moving.move``.
        """
        if method != "tcx":
            self._note(filters=sorted({*self._noted.get("filters", ()), old.interface.index}))
        return moving.move(
            old, name, program_fd, turns,
            moving.order_of(method, self.place.last) > moving.order_of(old.method, old.last),
            lambda fd: self._attach(old.interface, old.direction, fd, method, self.place._replace(beside=True)),
        )  # fmt: skip

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
        """How many links and filters of the former process nobody wants so far."""
        return len(self._unclaimed) + len(self._filters)

    def end_unclaimed(self) -> None:
        """Everything wanted is attached: detaches one of the former process's programs on other hooks, which takes the
        kernel a grace period where it is a link."""
        if self._filters:
            self._end_filter(next(iter(self._filters)))
        if not self._unclaimed:
            return
        name = self._unclaimed.pop()
        former = self._keeper.former(name)
        if former is not None:
            _detach(former)
            self._keeper.drop(name)

    def _end_filter(self, hook: tuple[int, str]) -> None:
        index, direction = hook
        for former in self._former_filters(Interface(index, f"interface {index}", ARPHRD_ETHERNET[0]), direction):
            former.end()

    def note(self, attachments: Mapping[int, Sequence[Attachment]], names: Mapping[int, Interface] | None) -> None:
        """Keeps which interfaces have filters of ours, by index, where the qdisc is of our making, and, unless it is
        empty, ``names``. None while more is due: then once in ``NOTED_WITHIN_NS``, as it takes ms for thousands."""
        if self._places.is_off or (names is None and clock.monotonic_ns() < self._noted_ns + NOTED_WITHIN_NS):
            return
        filters = {index for index, each in attachments.items() for one in each if one.method == "tc"}
        filters.update(index for index, _ in self._filters)
        known = {}
        if names and names != self._noted_names:
            self._noted_names = dict(names)
            known["names"] = {str(index): [each.name, each.alias] for index, each in names.items()}
        self._note(filters=sorted(filters), made=self._hooks.made_qdiscs(), **known)
        self._noted_ns = clock.monotonic_ns()

    def _note(self, **values: Any) -> None:
        noted = {**self._noted, **values}
        if noted != self._noted and not self._places.is_off:
            self._noted = noted
            self._places.write(noted)

    def recall(self, interface_names: InterfaceNames, present: Callable[[], Iterable[Interface]]) -> None:
        """Flows of the former process's interfaces may be in the kernel. Those that are gone, or have another name now,
        keep the name that they had then."""
        if not self._former_names:
            return
        names_now = {interface.index: interface.name for interface in present()}
        for index, (name, alias) in ((int(text), values) for text, values in self._former_names.items()):
            interface = Interface(index, name, ARPHRD_ETHERNET[0], alias=alias, netns=self._namespace)
            interface_names.learn(interface)
            if names_now.get(index) != name:
                interface_names.retire(interface.key)
        self._former_names = {}

    def keep_nothing(self) -> None:
        """The next process finds nothing: after everything was detached."""
        while self.unclaimed:
            self.end_unclaimed()
        self._keeper.drop(places_name(self._namespace))

    def close(self) -> None:
        """Closes this process's descriptors, and keeps everything."""
        while self._links:
            os.close(self._links.popitem()[1])
        self._places.close()


class _Former(NamedTuple):
    """A program of the former process on a hook."""

    adopt: Callable[[int], Attachment]
    """Puts another program there, by its descriptor, and uses it from now on; or raises OSError."""
    end: Callable[[], None]


def _swapped(attachment: Attachment, program_fd: int) -> Attachment:
    try:
        attachment.swap(program_fd)
    except OSError:
        attachment.forget()
        raise
    return attachment


def _place_of(link: int) -> tuple[int, int]:
    try:
        return libbpf.tcx_place(link)
    except OSError:  # it never was one
        return -1, -1


def _detach(link: int) -> None:
    with contextlib.suppress(OSError):  # detached, as its interface has gone
        libbpf.detach_link(link)
