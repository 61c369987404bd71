"""One program on one hook: attaches it, by the method that is best there, and says what the kernel refused."""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import Callable, NamedTuple

from netobs.config.text import folded
from netobs.kernel import descriptors
from netobs.kernel.attach import FLOWS_PLACE, Attachment, FilterPlace
from netobs.kernel.interfaces import Interface
from netobs.kernel.kept_links import KeptLinks
from netobs.kernel.methods import Methods


class Purpose(NamedTuple):
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


class Placing:
    """The programs of one purpose, and how they come onto hooks."""

    def __init__(self, purpose: Purpose, program_fd: Callable[[str], int], kept: KeptLinks, methods: Methods) -> None:
        """``program_fd``: as in ``ObservationPoints``."""
        self._purpose, self._program_fd, self._kept, self._methods = purpose, program_fd, kept, methods
        self._refused: dict[tuple[int, str], str] = {}
        self._short: dict[int, Interface] = {}  # there is no file descriptor left for them
        self._said_short: set[int] = set()

    def find_method(self) -> None:
        """As ``Methods.find``."""
        self._methods.find(self._program_fd(f"{self._purpose.prefix}ingress"))

    def attach(self, interface: Interface, direction: str) -> Attachment | None:
        """None if the interface has gone, or the kernel refused, which is logged once for each reason."""
        place = (interface.index, direction)
        try:
            program = self._program_for(interface, direction)
            former = self._kept.former_method(interface.index, direction)
            methods = self._methods.best_first(interface.index, direction, former)
            made = self._attach_by(methods, interface, direction, program)
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

    def _program_for(self, interface: Interface, direction: str) -> int:
        layer = "" if interface.has_ethernet else "l3_"
        return self._program_fd(f"{self._purpose.prefix}{layer}{direction}")

    def _attach_by(self, methods: tuple[str, ...], interface: Interface, direction: str, program: int) -> Attachment:
        *others, last = methods
        for method in others:
            with contextlib.suppress(OSError):
                return self._kept.attach(interface, direction, program, method)
        if last == "tcx":
            descriptors.check_room(program)
        return self._kept.attach(interface, direction, program, last)

    def use(self, program_fd: Callable[[str], int]) -> None:
        """Uses other programs from now on."""
        self._program_fd = program_fd

    def swap(self, attachment: Attachment) -> None:
        """Puts the present program there, in one step."""
        with contextlib.suppress(OSError):  # somebody has removed it: ``restore`` attaches again
            attachment.swap(self._program_for(attachment.interface, attachment.direction))

    def say_short(self) -> None:
        """Logs once, in one line, the interfaces that have no file descriptor."""
        if not self._said_short.issuperset(self._short):
            names = folded(interface.name for interface in self._short.values())
            self._purpose.say_refused(names, descriptors.shortage(descriptors.limit()))
        self._said_short = set(self._short)

    def take_short(self) -> dict[int, Interface]:
        """Those interfaces, by index, to be tried again: others may have gone."""
        short, self._short = self._short, {}
        return short

    def forget(self, index: int) -> None:
        """The interface has gone."""
        self._short.pop(index, None)
        self._refused = {place: why for place, why in self._refused.items() if place[0] != index}
