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
from netobs.kernel.moving import Turns
from netobs.kernel.postponed import Postponed

log = logging.getLogger("netobs.capture")


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


def words(one: Attachment) -> str:
    """How and where it is attached."""
    return f"{one.method}, {'last' if one.last else 'first'}"


class Placing:
    """The programs of one purpose, and how they come onto hooks."""

    def __init__(self, purpose: Purpose, program_fd: Callable[[str], int], kept: KeptLinks, methods: Methods) -> None:
        """``program_fd``: as in ``ObservationPoints``."""
        self._purpose, self._program_fd, self._kept, self._methods = purpose, program_fd, kept, methods
        self.turns: Turns | None = None
        """For programs that can move to another place on their hook without missing a packet; see ``moving.py``."""
        self._waiting: set[tuple[int, str]] = set()  # to be moved, when the answer is there
        self._stuck: set[tuple[int, str]] = set()
        self._to_say: dict[str, list[str]] = {}
        self._refused: dict[tuple[int, str], str] = {}
        self.postponed = Postponed()

    def use_turns(self, turns: Turns | None) -> None:
        """By these programs, if any, from now on. Frees those before."""
        if self.turns is not None:
            self.turns.close()
        self.turns = turns

    @property
    def refused(self) -> dict[tuple[int, str], str]:
        """Why there is no program, by index of the interface and direction; "" for those that lack a descriptor."""
        shortage = descriptors.shortage(descriptors.limit()) if self.postponed.short else ""
        return {**self._refused, **{(index, ""): shortage for index in self.postponed.short}}

    def find_method(self) -> None:
        """As ``Methods.find``."""
        self._methods.find(self._program_fd, f"{self._purpose.prefix}ingress")

    def move_to(self, setting: str, last: bool) -> bool:
        """Attaches by another method, as the key capture.attach, and before or behind others: ``last``. False if this
        is as it was.

        :raises CaptureError: as in ``Methods.find``.
        """
        if (self._methods.setting, self._kept.place.last) == (setting, last):
            return False
        self._methods.setting, self._kept.place = setting, self._kept.place._replace(last=last)
        self._stuck.clear()
        self.find_method()
        return True

    def fits(self, one: Attachment) -> bool:
        """Whether it is where it should be, or cannot be moved there."""
        if (one.interface.index, one.direction) in self._stuck:
            return True
        return (self._methods.for_attached(one), self._kept.place.last) == (one.method, one.last)

    def attach(self, interface: Interface, direction: str) -> Attachment | None:
        """What the former process has on the hook, in whatever place, or a new one. None if the interface has gone, or
        the kernel refused, which is logged once for each reason."""
        place = (interface.index, direction)
        try:
            program = self._program_for(interface, direction)
            made = self._kept.adopt(interface, direction, program, self.turns)
            made = made or self._attach_by(interface, direction, program)
        except OSError as error:
            reason = str(error.strerror)
            if not self.postponed.may_pass(interface, error.errno or 0) and self._refused.get(place) != reason:
                self._refused[place] = reason
                self._purpose.say_refused(interface.name, reason)
            return None
        self._refused.pop(place, None)
        return made

    def _program_name(self, interface: Interface, direction: str) -> str:
        return f"{self._purpose.prefix}{'' if interface.has_ethernet else 'l3_'}{direction}"

    def _program_for(self, interface: Interface, direction: str) -> int:
        return self._program_fd(self._program_name(interface, direction))

    def _attach_by(self, interface: Interface, direction: str, program: int) -> Attachment:
        *others, last = self._methods.best_first(interface.index, direction)
        for method in others:
            with contextlib.suppress(OSError):
                return self._kept.attach(interface, direction, program, method)
        if last == "tcx":
            descriptors.check_room(program)
        return self._kept.attach(interface, direction, program, last)

    def move(self, old: Attachment) -> Attachment | None:
        """Puts the program where it should be; ``old`` itself if that failed, which ``at_rest`` says, and is not
        tried again until ``move_to``. None if it is off the hook, to be attached again."""
        place, where = (old.interface.index, old.direction), f"{old.interface.name}: {old.direction}"
        method = self._methods.for_attached(old)
        if self.turns is None:
            old.detach()
            return None
        self._waiting.discard(place)
        try:
            program = self._program_for(old.interface, old.direction)
            if method == "tcx":
                descriptors.check_room(program)
            name = self._program_name(old.interface, old.direction)
            new = self._kept.move(old, name, program, self.turns, method)
        except OSError as error:
            if error.errno == errno.EINPROGRESS:
                self._waiting.add(place)
            elif error.errno != errno.EPIPE:  # as in ``Postponed``: at the next look
                self._stuck.add(place)
            if place in self._stuck and error.errno != errno.ENODEV:
                what = f"{old.direction}: stays attached by {words(old)}: {error.strerror}"
                self._to_say.setdefault(what, []).append(old.interface.name)
            return old
        if self._methods.mixes and (old.method, new.method, old.last) == ("tc", "tcx", new.last):
            where, now = old.interface.name, "a link takes the place of the filter, for the sake of others"
        else:
            now = f"now attached by {words(new)}"
        log.log(self._purpose.level, "%s%s: %s", self._purpose.label, where, now)
        return new

    def use(self, program_fd: Callable[[str], int]) -> None:
        """Uses other programs from now on."""
        self._program_fd = program_fd

    def swap(self, attachment: Attachment) -> None:
        """Puts the present program there, in one step."""
        with contextlib.suppress(OSError):  # somebody has removed it: ``restore`` attaches again
            attachment.swap(self._program_for(attachment.interface, attachment.direction))

    def at_rest(self) -> None:
        """Nothing is due any more: says which interfaces have no file descriptor, and what could not be moved, in a
        line for each reason."""
        self.postponed.say(self._purpose.say_refused)
        for what, names in self._to_say.items():
            log.warning("%s%s: %s", self._purpose.label, folded(names), what)
        self._to_say.clear()
        if self.turns is not None and not self._waiting:
            self.turns.close()

    def forget(self, index: int) -> None:
        """The interface has gone."""
        self.postponed.discard(index)
        self._refused = {place: why for place, why in self._refused.items() if place[0] != index}
        self._stuck = {place for place in self._stuck if place[0] != index}
        self._waiting = {place for place in self._waiting if place[0] != index}
