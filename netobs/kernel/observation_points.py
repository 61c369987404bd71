"""Observation Points: keeps programs attached to the interfaces that a selection matches.

Flows and packets have separate programs on the same hooks, and one set of Observation Points each.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable

from netobs.base.clock import NS_PER_S
from netobs.base.errors import CaptureError
from netobs.config.selector import InterfaceSelector
from netobs.config.text import folded
from netobs.kernel import descriptors, privileges
from netobs.kernel.attach import FLOWS_PLACE, Attachment, FilterPlace, attach, has_tcx, may_filter, method_for
from netobs.kernel.interface_history import InterfaceNames
from netobs.kernel.interfaces import Interface, LinkMonitor

log = logging.getLogger("netobs.capture")

RESTORE_NS = 5 * NS_PER_S
"""How often the owner of the loop calls ``restore``, which attaches programs again that somebody has removed."""

DIRECTIONS = {"ingress": ("ingress",), "egress": ("egress",), "both": ("ingress", "egress")}


@dataclass(frozen=True)
class Purpose:
    """The kind of programs, for flows or packets, and its log messages."""

    prefix: str
    """Prefix of the programs' names: ``netobs_`` ingress, egress, l3_ingress, l3_egress."""
    say_refused: Callable[[str, str], None]
    """Logs the name of an interface that the kernel accepts no program for, and the reason."""
    say_missed: Callable[[str, str], None]
    """Logs "NAME: DIRECTION" of a program that somebody removed, and whether it was a link or a filter."""
    place: FilterPlace = FLOWS_PLACE
    label: str = ""
    """Prefix of log messages about new and removed interfaces."""
    level: int = logging.INFO
    """The level of these messages."""


class ObservationPoints:
    """Attaches programs to interfaces and follows these. ``links`` is for the loop."""

    def __init__(
        self,
        selector: InterfaceSelector,
        direction: str,
        setting: str,
        purpose: Purpose,
        program_fd: Callable[[str], int],
    ) -> None:
        """``direction``, ``setting``: as the keys capture.direction and capture.attach; ``program_fd``: the file
        descriptor of a program, by name."""
        self._selector = selector
        self._directions = DIRECTIONS[direction]
        self._setting = setting
        self._purpose = purpose
        self._program_fd = program_fd
        self._attachments: dict[int, list[Attachment]] = {}
        self._refused: dict[tuple[int, str], str] = {}
        self._short: dict[int, Interface] = {}  # there is no file descriptor left for them
        self._said_short: set[int] = set()
        self.on_reuse: Callable[[int], None] = lambda index: None
        """Called before an index gets another interface's name: the flows of the former interface must be evicted
        first."""
        self.method = ""
        self.names: dict[int, Interface] = {}
        self.interface_names = InterfaceNames()
        self.links = LinkMonitor()

    def find_method(self) -> None:
        """Finds out how to attach. The programs must be loaded.

        :raises CaptureError: the configured method does not work, or this process lacks the right.
        """
        probe = self._program_fd(f"{self._purpose.prefix}ingress")
        self.method = method_for(self._setting, lambda: has_tcx(probe))
        if self.method == "tc" and not may_filter():
            raise CaptureError(*privileges.explain_filters())
        if self.method == "tcx":
            descriptors.raise_limit()

    def _tell(self, text: str, *values: object) -> None:
        log.log(self._purpose.level, self._purpose.label + text, *values)

    def wanted(self) -> list[Interface]:
        """The host's present interfaces that the configuration selects."""
        return [interface for interface in self.links.interfaces() if self._selects(interface)]

    def _selects(self, interface: Interface) -> bool:
        if not self._selector.matches(interface.name):
            return False
        if not interface.is_measurable:
            log.debug("%s: left out, link type %d is not measured", interface.name, interface.arphrd)
            return False
        return True

    def attach(self, is_over: Callable[[], bool] = lambda: False) -> int:
        """Attaches to all wanted interfaces, or until ``is_over``; returns how many are attached."""
        for interface in self.wanted():
            if is_over():
                break
            self.attach_to(interface)
        self._say_short()
        return len(self.attached)

    def change_to(self, interfaces: Sequence[Interface]) -> Iterator[None]:
        """Attaches to ``interfaces``, and detaches from all others: one of them in each step of the iterator, so that a
        caller can do other work in between."""
        indices = {interface.index for interface in interfaces}
        former = [interface for interface in self.attached if interface.index not in indices]
        for interface in interfaces:
            with contextlib.suppress(OSError):  # gone
                if socket.if_indextoname(interface.index) == interface.name:
                    self.attach_to(interface)
            yield
        for interface in former:
            if interface in self.attached:
                self.detach_from(interface.index)
                self.names.pop(interface.index)
                self.interface_names.retire(interface.index)
            yield

    def attach_to(self, interface: Interface) -> None:
        """Attaches the missing programs to one interface. A failure is logged, and affects no other interface."""
        if self.interface_names.is_gone(interface.index):
            self.on_reuse(interface.index)
        self.names[interface.index] = interface
        self.interface_names.learn(interface)
        present = self._attachments.get(interface.index, [])
        there = [attachment.direction for attachment in present]
        missing = [direction for direction in self._directions if direction not in there]
        if not missing:
            return
        done = [made for made in (self._attach(interface, direction) for direction in missing) if made is not None]
        if done:
            self._attachments[interface.index] = [*present, *done]
            directions = " and ".join(attachment.direction for attachment in done)
            self._tell("%s: attached by %s, %s", interface.name, self.method, directions)

    def _attach(self, interface: Interface, direction: str) -> Attachment | None:
        """None if the interface has gone, or the kernel refused, which is logged once for each reason."""
        layer = "" if interface.has_ethernet else "l3_"
        place = (interface.index, direction)
        program = self._program_fd(f"{self._purpose.prefix}{layer}{direction}")
        try:
            if self.method == "tcx":
                descriptors.check_room(program)
            made = attach(interface, direction, program, self.method, self._purpose.place)
        except OSError as error:
            reason = str(error.strerror)
            if error.errno == errno.EMFILE:
                self._short[interface.index] = interface
            elif error.errno != errno.ENODEV and self._refused.get(place) != reason:
                self._refused[place] = reason
                self._purpose.say_refused(interface.name, reason)
            return None
        self._refused.pop(place, None)
        return made

    def _say_short(self) -> None:
        """Logs once, in one line, the interfaces that have no file descriptor."""
        if not self._said_short.issuperset(self._short):
            names = folded(interface.name for interface in self._short.values())
            self._purpose.say_refused(names, descriptors.shortage(descriptors.limit()))
        self._said_short = set(self._short)

    def restore(self) -> None:
        """Attaches again where somebody has removed a program of ours. Packets in between were not seen."""
        self.follow_links()  # a removed interface takes its programs along, which is normal
        for index, attachments in list(self._attachments.items()):
            lost = [attachment for attachment in attachments if not attachment.is_there()]
            if lost and not _exists(index):
                continue
            for attachment in lost:
                attachments.remove(attachment)
                attachment.forget()
                what = "link" if attachment.method == "tcx" else "filter"
                self._purpose.say_missed(f"{self.names[index].name}: {attachment.direction}", what)
            self.attach_to(self.names[index])
        short, self._short = self._short, {}
        for interface in short.values():  # others may have gone meanwhile
            self.attach_to(interface)
        self._say_short()

    def select(self, selector: InterfaceSelector, direction: str) -> None:
        """Switches to other interfaces and directions."""
        self._selector, self._directions = selector, DIRECTIONS[direction]
        for interface in self.links.interfaces():
            self._changed(interface)
        for index, attachments in self._attachments.items():
            for attachment in attachments[:]:
                if attachment.direction not in self._directions:
                    attachment.detach()
                    attachments.remove(attachment)
                    self._tell("%s: detached, %s", self.names[index].name, attachment.direction)

    def follow_links(self) -> None:
        """Attaches to new interfaces, and forgets removed ones. Call it when ``links`` is readable."""
        events = self.links.read()
        if events is None:
            log.warning("rtnetlink lost events: listing the interfaces anew")
            self._resynchronise()
            return
        for event in events:
            if event.gone:
                self._forget(event.interface)
            else:
                self._changed(event.interface)
        self._say_short()

    def _resynchronise(self) -> None:
        """By what is attached, not by index: another interface may have that by now."""
        present = self.links.interfaces()
        indices = {interface.index for interface in present}
        for index, attachments in list(self._attachments.items()):
            if index not in indices or not all(attachment.is_there() for attachment in attachments):
                self._forget(self.names[index])
        for interface in present:
            self._changed(interface)
        self._say_short()

    def _changed(self, interface: Interface) -> None:
        attached = interface.index in self._attachments
        selected = self._selects(interface)
        if selected:
            self.attach_to(interface)
        elif attached:  # renamed to a name that is not selected, or the selection is another one
            self.detach_from(interface.index)
            self.names.pop(interface.index)
            self._tell("%s: detached, no longer selected", interface.name)

    def _forget(self, interface: Interface) -> None:
        attachments = self._attachments.pop(interface.index, None)
        if attachments is not None:
            for attachment in attachments:
                attachment.forget()
            self._tell("%s: gone", interface.name)
        self.names.pop(interface.index, None)
        self._short.pop(interface.index, None)
        self._refused = {place: why for place, why in self._refused.items() if place[0] != interface.index}
        self.interface_names.retire(interface.index)

    def detach_from(self, index: int) -> None:
        """Takes the programs off one interface."""
        for attachment in self._attachments.pop(index):
            attachment.detach()

    @property
    def attached(self) -> list[Interface]:
        """The interfaces that programs are attached to now."""
        return [self.names[index] for index, attachments in self._attachments.items() if attachments]

    def detach(self) -> None:
        """Takes the programs off all interfaces. Their flows can still be evicted."""
        for index in list(self._attachments):
            self.detach_from(index)

    def close(self) -> None:
        """Detaches."""
        self.detach()
        self.links.close()


def _exists(index: int) -> bool:
    """Whether there is an interface with this index."""
    with contextlib.suppress(OSError):
        return bool(socket.if_indextoname(index))
    return False
