"""Observation Points: keeps programs attached to the interfaces that a selection matches.

Flows and packets have separate programs on the same hooks, and one set of Observation Points each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Callable, NamedTuple

from netobs.base.clock import NS_PER_S
from netobs.base.keeper import NOTHING, Keeper
from netobs.config.selector import InterfaceSelector
from netobs.kernel.attach import Attachment
from netobs.kernel.interface_history import InterfaceNames
from netobs.kernel.interfaces import Interface, LinkMonitor
from netobs.kernel.kept_links import Hooks, KeptLinks
from netobs.kernel.many import SWITCH
from netobs.kernel.methods import Methods
from netobs.kernel.placing import Placing, Purpose

log = logging.getLogger("netobs.capture")

RESTORE_NS = 5 * NS_PER_S
"""How often the owner of the loop calls ``restore``, which attaches programs again that somebody has removed."""

SLICE_NS = 20_000_000
"""How long ``work`` may take before the other work of the loop, and of others who wait for the kernel's lock of all
interfaces: the kernel waits for a grace period at each TCX link, some 15 ms (net/tcx.h: tcx_entry_sync)."""

DIRECTIONS = {"ingress": ("ingress",), "egress": ("egress",), "both": ("ingress", "egress")}


def _never() -> bool:
    return False


class Elsewhere(NamedTuple):
    """The interfaces of the network namespace ``number``, their hooks, the names of all interfaces, and the methods of
    the host."""

    number: int
    links: LinkMonitor
    hooks: Hooks
    names: InterfaceNames
    methods: Methods


class ObservationPoints:
    """Attaches programs to interfaces and follows these. ``links`` is for the loop.

    ``want_all``, ``want_none``, ``select``, ``follow_links`` and ``restore`` only note which interfaces are due.
    ``work`` attaches to them, detaches from them and checks them, one after the other, and can be called again and
    again between other work.
    """

    def __init__(
        self,
        selector: InterfaceSelector,
        direction: str,
        setting: str,
        purpose: Purpose,
        program_fd: Callable[[str], int],
        keeper: Keeper = NOTHING,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """``direction``, ``setting``: as the keys capture.direction and capture.attach; ``program_fd``: the file
        descriptor of a program, by name; ``keeper``: keeps the links for the next process; ``elsewhere``: for another
        network namespace than this process's."""
        self._selector = selector
        self._directions = DIRECTIONS[direction]
        self.methods = Methods(setting, elsewhere.methods if elsewhere else None)
        self._purpose = purpose
        self.number = elsewhere.number if elsewhere else 0
        """Of the network namespace."""
        self._attachments: dict[int, list[Attachment]] = {}
        self._kept = (
            KeptLinks(keeper, purpose.place, elsewhere.hooks, elsewhere.number)
            if elsewhere
            else KeptLinks(keeper, purpose.place)
        )
        self.placing = Placing(purpose, program_fd, self._kept, self.methods)
        self.wants_any = False
        """Whether the programs are to be on any interface."""
        self._due: dict[int, Interface] = {}  # ordered; to attach to, or to detach from
        self._unsure: dict[int, None] = {}  # ordered; to check
        self._doubted: set[int] = set()  # of those that are due: another interface may have the index by now
        self.on_reuse: Callable[[int], None] = lambda key: None
        """Called before a key (``Interface.key``) gets another interface's name: the flows of the former interface must
        be evicted first."""
        self.names: dict[int, Interface] = {}
        self.interface_names = elsewhere.names if elsewhere else InterfaceNames()
        self.links = elsewhere.links if elsewhere else LinkMonitor()

    def find_method(self) -> None:
        """Finds out how to attach. The programs must be loaded.

        :raises CaptureError: the configured method does not work, or this process lacks the right.
        """
        self.placing.find_method()

    @property
    def label(self) -> str:
        """What the names of its interfaces begin with in the log."""
        return self._purpose.label

    @property
    def method(self) -> str:
        """As ``Methods.method``."""
        return self.methods.method

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

    def want_all(self) -> None:
        """From now on the programs are to be on all wanted interfaces."""
        self.wants_any = True
        self._kept.recall(self.interface_names, self.links.interfaces)
        self.methods.choose(self.links.interfaces(), self.wanted())
        self._due = {interface.index: interface for interface in (*self.attached, *self.wanted())}

    def for_filters(self) -> set[int]:
        """The indices of the present interfaces that get filters, although the method is tcx."""
        return self.methods.for_filters(self.links.interfaces(), self.wanted())

    def want_none(self) -> None:
        """From now on the programs are to be on no interface. Their flows can still be evicted."""
        self.wants_any = False
        self._unsure.clear()
        self._due = {interface.index: interface for interface in self.attached}

    @property
    def due(self) -> int:
        """How many interfaces ``work`` has before it, and in the end links of the former process that nobody wants."""
        return len(self._due) + len(self._unsure) or self._kept.unclaimed

    def work(self, is_over: Callable[[], bool] = _never) -> bool:
        """Does what is due, until ``is_over``, and for one interface at least. Whether more is due."""
        while self.due:
            if self._due:
                self._settle(self._due.pop(next(iter(self._due))))
            elif self._unsure:
                self._check(self._unsure.popitem()[0])
            else:
                self._kept.end_unclaimed()
            if is_over():
                break
        if not self.due:
            self.placing.at_rest()
        self._note()
        return self.due > 0

    def _note(self) -> None:
        self._kept.note(self._attachments, None if self.due else self.names)

    def attach(self, is_over: Callable[[], bool] = _never) -> int:
        """Attaches to all wanted interfaces, or until ``is_over``; returns how many are attached."""
        self.want_all()
        self.work(is_over)
        return len(self.attached)

    def settle(self, index: int) -> None:
        """Does what is due for one interface: what attaching to it has waited for is there."""
        if index in self.names:
            self._settle(self.names[index])
        if index in self._attachments:
            self._check(index)
        self._note()

    def _settle(self, interface: Interface) -> None:
        """Attaches what is missing, detaches what is too much."""
        index = interface.index
        if index in self._doubted:
            self._doubted.remove(index)
            if not all(attachment.is_there() for attachment in self._attachments.get(index, ())):
                self._forget(self.names[index])
        if interface.kind == SWITCH and self.methods.links_only():
            self._unsure.update(dict.fromkeys(self._attachments))
        if self.wants_any and self._selects(interface):
            if self.links.name_of(index) == interface.name:  # else an event says soon what it is
                self._detach_directions(index)
                self.attach_to(interface)
        elif index in self._attachments:  # renamed to a name that is not selected, or the selection is another one
            self.detach_from(index)
            self.names.pop(index)
            if self.wants_any:
                self._tell("%s: detached, no longer selected", interface.name)
            else:
                self.interface_names.retire(interface.key)

    def _detach_directions(self, index: int) -> None:
        """Takes off the programs for directions that are not selected any more."""
        attachments = self._attachments.get(index, [])
        for attachment in attachments[:]:
            if attachment.direction not in self._directions:
                attachment.detach()
                attachments.remove(attachment)
                self._tell("%s: detached, %s", self.names[index].name, attachment.direction)

    def attach_to(self, interface: Interface) -> None:
        """Attaches the missing programs to one interface. A failure is logged, and affects no other interface."""
        if self.interface_names.is_gone(interface.key):
            self.on_reuse(interface.key)
        self.names[interface.index] = interface
        self.interface_names.learn(interface)
        present = self._attachments.get(interface.index, [])
        there = [attachment.direction for attachment in present]
        missing = [direction for direction in self._directions if direction not in there]
        if not missing:
            return
        done = [
            made for made in (self.placing.attach(interface, direction) for direction in missing) if made is not None
        ]
        if done:
            self._attachments[interface.index] = [*present, *done]
            if not all(map(self.placing.fits, done)):  # the former process had it elsewhere
                self._unsure[interface.index] = None
            directions = " and ".join(attachment.direction for attachment in done)
            methods = " and ".join(dict.fromkeys(attachment.method for attachment in done))
            self._tell("%s: attached by %s, %s", interface.name, methods, directions)

    def swap(self, program_fd: Callable[[str], int]) -> None:
        """Puts other programs, as ``program_fd`` gives them, on all hooks, each in one step, and uses them from now
        on."""
        self.placing.use(program_fd)
        for attachment in self.placed():
            self.placing.swap(attachment)

    def move_to(self, setting: str, last: bool) -> None:
        """Attaches by another method, as the key capture.attach, and before or behind others: ``last``."""
        if self.placing.move_to(setting, last):
            self.methods.choose(self.links.interfaces(), self.wanted())
            self._check_all()

    def _check_all(self) -> None:
        self._unsure.update(dict.fromkeys(self._attachments))

    def restore(self) -> None:
        """Looks where somebody has removed a program of ours, and attaches it again. Packets in between were not
        seen."""
        self.follow_links()
        self._check_all()
        self._due = {**self.placing.postponed.take_all(), **self._due}

    def _check(self, index: int) -> None:
        attachments = self._attachments.get(index, [])
        lost = [attachment for attachment in attachments if not attachment.is_there()]
        unfit = [
            attachment for attachment in attachments if attachment not in lost and not self.placing.fits(attachment)
        ]
        if not (lost or unfit) or self.links.name_of(index) != self.names[index].name:
            return  # a removed interface takes its programs along, which is normal
        for attachment in unfit:
            attachments.remove(attachment)
            moved = self.placing.move(attachment)
            if moved is not None:
                attachments.append(moved)
        for attachment in lost:
            attachments.remove(attachment)
            attachment.forget()
            what = "link" if attachment.method == "tcx" else "filter"
            self._purpose.say_missed(f"{self.names[index].name}: {attachment.direction}", what)
        self.attach_to(self.names[index])

    def select(self, selector: InterfaceSelector, direction: str) -> None:
        """Switches to other interfaces and directions."""
        self._selector, self._directions = selector, DIRECTIONS[direction]
        self._due.update({interface.index: interface for interface in self.links.interfaces()})

    def follow_links(self) -> None:
        """Notes new interfaces, and forgets removed ones. Call it when ``links`` is readable."""
        events = self.links.read()
        if events is None:
            log.warning("rtnetlink lost events: listing the interfaces anew")
            self._resynchronise()
            return
        for event in events:
            if event.gone:
                self._forget(event.interface)
            else:
                self._due[event.interface.index] = event.interface

    def _resynchronise(self) -> None:
        """By what is attached, not by index: another interface may have that by now."""
        present = {interface.index: interface for interface in self.links.interfaces()}
        for index in self.names.keys() - present.keys():
            self._forget(self.names[index])
        self._doubted.update(self._attachments)
        self._due.update(present)

    def _forget(self, interface: Interface) -> None:
        attachments = self._attachments.pop(interface.index, None)
        if attachments is not None:
            for attachment in attachments:
                attachment.forget()
            self._tell("%s: gone", interface.name)
        for noted in (self.names, self._due, self._unsure):
            noted.pop(interface.index, None)
        self._doubted.discard(interface.index)
        self.methods.forget(interface.index)
        self.placing.forget(interface.index)
        self.interface_names.retire(interface.key)

    def detach_from(self, index: int) -> None:
        """Takes the programs off one interface."""
        for attachment in self._attachments.pop(index):
            attachment.detach()

    @property
    def attached(self) -> list[Interface]:
        """The interfaces that programs are attached to now."""
        return [self.names[index] for index, attachments in self._attachments.items() if attachments]

    def placed(self) -> Iterator[Attachment]:
        """All programs that are attached now."""
        return (one for attachments in self._attachments.values() for one in attachments)

    @property
    def has_filters(self) -> bool:
        """Whether any program is attached by a filter."""
        return any(one.method == "tc" for one in self.placed())

    def detach(self) -> None:
        """Takes the programs off all interfaces, at once."""
        self.want_none()
        self.work()

    def leave(self) -> None:
        """Stops following the network namespace, which may go now; the programs stay where they are."""
        self.links.close()
        self.wants_any = False
        for noted in (self._due, self._unsure, self.placing.postponed):
            noted.clear()

    @property
    def is_left_alone(self) -> bool:
        """Whether none of the programs is attached any more."""
        return not any(one.is_there() for one in self.placed())

    def forget(self) -> None:
        """Forgets all interfaces: they are gone, together with their network namespace."""
        for interface in list(self.names.values()):
            self._forget(interface)

    def close(self, keep: bool = False) -> None:
        """Detaches, unless the next process is to find the programs where they are: ``keep``."""
        if not keep:
            self.detach()
            self._kept.keep_nothing()
        self.placing.use_turns(None)
        self._kept.close()
        self.links.close()
