"""Schedules the Templates and options records of a Transport Session: at its start, at refreshes, and on changes."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Callable, Generic, NamedTuple

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.export.protocol import D, Encoder, H
from netobs.flow.records import MessageBlock
from netobs.flow.report import Report

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

CHANGES_SPACING_NS = NS_PER_S
"""Changes within this time after another one are reported together. The first is reported at once: a collector cannot
name an interface in flows that come before."""

LEAD_NS = 5_000_000
"""How long the Templates of a new Transport Session over UDP precede the data.

Collectors with several workers (goflow2 has two) read the Messages of one exporter in parallel, and lose data whose
Templates another worker is still reading; half a millisecond was enough. A refresh needs no such time, because it
repeats Templates that the collector already has.
"""
_NOT_YET = sys.maxsize


class Announced(NamedTuple):
    """A Message without flows, and the number of its Data Records, which count in the sequence."""

    message: bytes
    records: int

    def block(self) -> MessageBlock:
        """The Message as a block without flows."""
        nothing = np.zeros(1, dtype=np.int64)
        return MessageBlock(memoryview(self.message), nothing + len(self.message), nothing, nothing, nothing)


class Announcer(Generic[H, D]):
    """Makes Messages when they are due, and keeps those that are under way. Calls ``wake`` when any are due.

    Call ``start`` at the start of a Transport Session, ``stop`` at its end. Only over UDP are Templates repeated: over
    TCP they live as long as the session (RFC 7011, section 8).
    """

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        report: Callable[[int], Report],
        loop: EventLoop,
        wake: Callable[[int], None],
    ) -> None:
        self._config = config
        self._encoder = encoder
        self._report = report
        self._loop = loop
        self._wake = wake
        self._waiting: deque[Announced] = deque()
        self._templates_due = self._options_due = False
        self._change_sent_ns = -CHANGES_SPACING_NS
        self._change_waits = False
        self._follows_namespaces = False
        self.data_from_ns = 0
        """The time from which Data Records may be sent, including those of options."""
        self._leads = False  # whether the Templates that are due may be new to the collector
        self._lead_timer: Timer | None = None
        self._messages = 0  # with flows, since the Templates
        self._templates_timer: Timer | None = None
        self._options_timer: Timer | None = None

    @property
    def due(self) -> bool:
        """Whether the caller must call ``take`` before it sends flows."""
        return bool(self._waiting) or self._templates_due or self._options_due

    @property
    def messages_left(self) -> int:
        """Number of Messages with flows that may be sent before the Templates are due again."""
        most = self._config.template_refresh_messages
        if self._config.transport != "udp" or not most:
            return sys.maxsize
        return max(0, most - self._messages)

    def count(self, messages: int) -> None:
        """Counts Messages with flows that are under way."""
        self._messages += messages
        if not self.messages_left:
            self.require(options=False)

    def require(self, options: bool = True) -> None:
        """Makes everything due; without ``options``, only the Templates of flows."""
        self._templates_due = True
        self._options_due |= options

    def take_back(self) -> None:
        """The last Message from ``take`` was not sent: all Messages are made again."""
        self._waiting.clear()
        self._leads = self._config.transport == "udp"
        self.require()

    def take(self, header: H, max_message_size: int, now_ns: int, realtime_ns: int) -> Announced | None:
        """The next Message, which has the Sequence Number of ``header``.

        None if the protocol has no such Message, or if it must wait until ``data_from_ns``.
        """
        if not self._waiting:
            templates, options = self._templates_due, self._options_due
            self._templates_due = self._options_due = False
            self._messages = 0 if templates else self._messages
            if options:
                if self._change_waits:
                    self._change_sent_ns, self._change_waits = now_ns, False
                report = self._report(realtime_ns)
                templates |= self._has_new_templates(report)
                made = self._encoder.announcement(report, header, max_message_size, templates)
            else:
                made = [(message, 0) for message in self._encoder.template_messages(header, max_message_size)]
            self._waiting.extend(Announced(*each) for each in made)
        if not self._waiting or (self._waiting[0].records and now_ns < self.data_from_ns):
            return None
        announced = self._waiting.popleft()
        if self._leads and not announced.records:
            self._lead(now_ns)
        self._leads = self._leads and bool(self._waiting)
        return announced

    def _has_new_templates(self, report: Report) -> bool:
        """Whether ``report`` has records whose Options Templates are new to the collector: of network namespaces."""
        before, self._follows_namespaces = self._follows_namespaces, report.namespaces is not None
        return self._follows_namespaces and not before

    def _lead(self, now_ns: int) -> None:
        """Templates are about to be sent. The next round reads the clock, so the time counts from after the send."""
        self._cancel_lead()
        self.data_from_ns = _NOT_YET
        self._lead_timer = self._loop.call_at(now_ns + 1, self._on_templates_sent)

    def _on_templates_sent(self, now_ns: int) -> None:
        self.data_from_ns = now_ns + LEAD_NS
        self._lead_timer = self._loop.call_at(self.data_from_ns, self._wake)

    def _cancel_lead(self) -> None:
        if self._lead_timer is not None:
            self._lead_timer.cancel()

    def start(self, now_ns: int) -> None:
        """A Transport Session starts: the collector knows no Templates."""
        self.take_back()
        self._arm(now_ns)

    def stop(self) -> None:
        """No more refreshes."""
        for timer in (self._templates_timer, self._options_timer):
            if timer is not None:
                timer.cancel()
        self._templates_timer = self._options_timer = None

    def finish(self) -> None:
        """The session is about to end: no more refreshes, and a change is sent now, with the last flows."""
        self.stop()
        self._options_due |= self._change_waits

    def close(self) -> None:
        """Nothing is due any more."""
        self.stop()
        self._cancel_lead()

    def changed(self, now_ns: int) -> None:
        """The content of options records has changed."""
        self._change_waits = True
        self._arm_options(now_ns, max(now_ns, self._change_sent_ns + CHANGES_SPACING_NS))

    def _arm(self, now_ns: int) -> None:
        self.stop()
        if self._config.transport == "udp":
            due_ns = now_ns + self._config.template_refresh_ns
            self._templates_timer = self._loop.call_at(due_ns, self._on_templates)
        self._arm_options(now_ns, now_ns + self._config.options_refresh_ns)

    def _arm_options(self, now_ns: int, due_ns: int) -> None:
        """Sends the next options records at ``due_ns``, unless they are due earlier."""
        if self._options_timer is not None:
            if now_ns < self._options_timer.when_ns <= due_ns:
                return
            self._options_timer.cancel()
        self._options_timer = self._loop.call_at(due_ns, self._on_options)

    def _on_templates(self, now_ns: int) -> None:
        """Repeats Templates, and options too: a restarted collector knows nothing."""
        self.require()
        self._arm(now_ns)
        self._wake(now_ns)

    def _on_options(self, now_ns: int) -> None:
        if self._templates_timer is not None and self._templates_timer.when_ns <= now_ns:
            return  # it comes in the same round
        self._options_due = True
        self._arm_options(now_ns, now_ns + self._config.options_refresh_ns)
        self._wake(now_ns)
