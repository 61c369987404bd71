"""The decoder's state of an Observation Domain: Templates, Sequence Numbers, and facts from options records."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from netobs.collector.received import Layout
from netobs.collector.received_element import Element
from netobs.collector.work import Notes
from netobs.encode.registry import InformationElement

MAX_DOMAINS = 1024
"""The most Observation Domains with state: a peer that invents them cannot fill the memory."""
MAX_ROOM, _TEMPLATE_ROOM = 1 << 18, 64
"""The same for Templates: the most fields of all of them together, where each Template counts as some more."""
_SEQUENCE_MASK, _MAX_GAP = 0xFFFFFFFF, 1 << 31

Key = tuple[Hashable, int, int]
"""Exporter, version, and observation domain."""


@dataclass
class Sequence:
    """The Sequence Numbers of a Transport Session, modulo 2**32; what one counts depends on the protocol."""

    next: int | None = None
    _last: int | None = None
    _gap: tuple[int, int] = (0, 0)

    def check(self, number: int) -> tuple[str, int]:
        """Whether the number of a Message is "" (as expected), gap, late, repeated or back; and how many were lost.

        ``late``: it fills part of an earlier gap, so fewer were lost than the gap suggested.
        """
        if self.next is None or number == self.next:
            return "", 0
        ahead = (number - self.next) & _SEQUENCE_MASK
        if ahead < _MAX_GAP:
            self._gap = (self.next, number)
            return "gap", ahead
        begin, end = self._gap
        if (number - begin) & _SEQUENCE_MASK < (end - begin) & _SEQUENCE_MASK:
            return "late", 0
        return ("repeated" if number == self._last else "back"), 0

    def advance(self, number: int, count: int | None, verdict: str) -> None:
        """After the Message with ``number``, which had ``count`` numbered items; None if that is unknown."""
        if verdict in ("late", "repeated"):
            return
        self._last = number
        self.next = None if count is None else (number + count) & _SEQUENCE_MASK


@dataclass
class Domain:
    """The state of one Observation Domain of one exporter.

    ``types``: the elements it has described (RFC 5610), of which ``version`` counts the changes. ``init_ms``: when its
    sysUpTime was 0, in ms since 1970. ``room``: the fields of its Templates, see ``MAX_ROOM``.
    """

    layouts: dict[int, Layout] = field(default_factory=dict)
    options: dict[int, Layout] = field(default_factory=dict)
    sequence: Sequence = field(default_factory=Sequence)
    types: dict[Element, InformationElement] = field(default_factory=dict)
    version: int = 0
    init_ms: int | None = None
    boot_ms: int | None = None
    room: int = 0

    def layout(self, template_id: int) -> Layout | None:
        """The Template or Options Template with this id."""
        return self.layouts.get(template_id) or self.options.get(template_id)

    def define(self, template_id: int, layout: Layout, notes: Notes) -> None:
        """Store ``layout``, unless it is known. Templates and Options Templates share their ids (RFC 7011, 3.4)."""
        known = self.layout(template_id)
        if known is not None:
            if known.is_options == layout.is_options and known.content == layout.content:
                return
            self.withdraw(template_id)
            layout.former_octets = 0 if known.is_variable else known.least_octets
            text = (
                f"Template {template_id} changes without a withdrawal, {known.count} fields before, {layout.count} now"
            )
            notes.add("template-changed", text)
        (self.options if layout.is_options else self.layouts)[template_id] = layout
        self.room += _TEMPLATE_ROOM + layout.count

    def withdraw(self, template_id: int) -> None:
        """The Template with this id is no longer valid."""
        known = self.layouts.pop(template_id, None) or self.options.pop(template_id, None)
        if known is not None:
            self.room -= _TEMPLATE_ROOM + known.count

    def withdraw_all(self, is_options: bool) -> None:
        """The same for all of a kind."""
        kind = self.options if is_options else self.layouts
        self.room -= sum(_TEMPLATE_ROOM + layout.count for layout in kind.values())
        kind.clear()


class Domains:
    """The state of all exporters, bounded. ``given_up``: how often the state of a domain was dropped for space."""

    def __init__(self) -> None:
        self._domains: dict[Key, Domain] = {}
        self._room = 0
        self.given_up = 0

    def __iter__(self) -> Iterator[Domain]:
        return iter(self._domains.values())

    @property
    def room(self) -> int:
        """The fields of all Templates, see ``MAX_ROOM``."""
        return self._room

    def get(self, key: Key) -> Domain:
        """The state of a domain. If there are too many, the domain that was silent for longest is dropped."""
        domain = self._domains.pop(key, None)
        if domain is None:
            while len(self._domains) >= MAX_DOMAINS:
                self._drop(next(iter(self._domains)))
                self.given_up += 1
            domain = Domain()
        self._domains[key] = domain
        return domain

    def forget(self, exporter: Hashable) -> None:
        """End the Transport Sessions of ``exporter``."""
        for key in [key for key in self._domains if key[0] == exporter]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._room -= self._domains.pop(key).room

    def account(self, domain: Domain, before: int) -> None:
        """After a Message: ``domain`` had ``before`` fields. If all have too many, the largest domain is dropped.

        Dropping one is enough: it has at least as many fields as the Message brought.
        """
        self._room += domain.room - before
        while self._room > MAX_ROOM:
            largest = max(self, key=lambda each: each.room)
            self._room -= largest.room
            largest.room = 0
            largest.layouts.clear()
            largest.options.clear()
            self.given_up += 1
