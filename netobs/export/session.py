"""One collector, one Transport Session at a time: when to send, and the account of every flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Generic

from netobs.base.clock import NS_PER_S, ClockPair
from netobs.base.loop import POLL_NS, EventLoop, Timer
from netobs.export.in_flight import Shipment
from netobs.export.link.link import Failure, Progress, State, log
from netobs.export.link.transports import link_class
from netobs.export.loading import Loader
from netobs.export.policies import Keeping
from netobs.export.protocol import D, Encoder, H
from netobs.export.queue import Part
from netobs.export.sink import Reach, Sink, SinkState
from netobs.export.stats import ExportStats
from netobs.export.unsent import Waiting
from netobs.flow.report import Report

if TYPE_CHECKING:
    from netobs.config import CollectorConfig
    from netobs.export.kept.session import Place

START_WITHIN_S = 5.0
"""How long the start waits for the disk of a spool, to notice mistakes and other processes that use it."""
DISK_NS = NS_PER_S
"""How long the end waits for the disk of a spool."""
PROBE_NS = NS_PER_S
"""How often Templates probe a collector whose flows are held, and how often acknowledged data are freed."""


class TransportSession(Generic[H, D]):
    """A ``Sink``: exports to the collector of ``config``, over one Transport Session after another.

    ``new_header(export_time_s, sequence, observation_domain, clock_offset_ns)`` makes a header for ``encoder``. Nothing
    here blocks. ``loop`` drives timers and sockets; ``send`` takes the data to export. A collector that is down costs
    at most ``queue_max_bytes`` of memory; then the oldest flows are dropped and counted. ``report(realtime_ns)``
    returns the content of options records.

    Unsent Messages over UDP leave a gap in the Sequence Numbers, so the collector learns of them. Unacknowledged data
    of a broken connection go into the next one, once.

    With ``spool``, flows wait on the disk while the collector is down. When it is back, it gets them beside new flows.
    """

    def __init__(
        self,
        config: CollectorConfig,
        encoder: Encoder[H, D],
        new_header: Callable[[int, int, int, int], H],
        loop: EventLoop,
        report: Callable[[int], Report] = lambda _realtime_ns: Report(),
        start_within_s: float = START_WITHIN_S,
        place: Place | None = None,
    ) -> None:
        """``start_within_s``: how long the spool's disk may take to open it. ``place``: where what outlives the process
        is kept. Raises ExportError: see ``Waiting``."""
        self.account = ExportStats()
        self.closed = False
        self._config = config
        self._keeping = Keeping(spooled=bool(config.spool))
        self._loop = loop
        self._link = link_class(config.transport)(config, loop, self, self.account)
        self._waiting: Waiting[H, D] = Waiting(
            config, encoder, new_header, self._link, self.account, loop, self._on_spool, start_within_s, place
        )
        self._queue = self._waiting.queue
        self._loader = Loader(config, encoder, new_header, report, loop, self._link, self._waiting, self._pump)
        self._shipment: Shipment[H, D] | None = None
        self._said_too_large = False
        self._closing = self._ending = self._suspended = False
        self._moved_ns = 0  # when a Message was last accepted, or none was waiting
        self._timers: dict[str, Timer] = {}

    def __str__(self) -> str:
        return str(self._link)

    @property
    def reach(self) -> Reach:
        """Whether the collector can be reached, as far as we know."""
        return self._link.reach

    @property
    def state(self) -> SinkState:
        """As ``Sink.state``."""
        return self._loader.state

    def holds(self, reach: Reach) -> bool:
        """Whether Data Records are held back while the collector has this reach."""
        return self._keeping.holds(reach)

    def open(self, clock: ClockPair, now_ns: int) -> None:
        """Start the first Transport Session, now if ``host`` is an address, else when its name is resolved."""
        self._loader.headers.see_clock(clock)
        self._link.open(now_ns)

    def see_clock(self, clock: ClockPair) -> None:
        """Sets the present clocks: the wall clock may have been set."""
        self._loader.headers.see_clock(clock)

    def hold(self, held: bool) -> None:
        """Sets whether flows wait while the collector refuses them, instead of being sent without success."""
        self._keeping = self._keeping._replace(grouped=held)

    @property
    def last_batch(self) -> int:
        """The number of the last batch that ``send`` has taken, in this process or the one before; 0: unknown."""
        return self._waiting.last_batch

    def send(self, data_sets: Sequence[D], clock: ClockPair, now_ns: int, number: int = 0) -> None:
        """Export ``data_sets``, now or when the collector takes them. They must not be changed afterwards.

        ``number``: of the batch that they were made of, or 0.
        """
        self._loader.headers.see_clock(clock)
        if self._closing:
            self._waiting.refuse(data_sets)
            return
        self._waiting.add(data_sets, number, now_ns)
        if self.reach is Reach.SUSPECT:
            self._loader.announcer.require(options=False)  # if it is back now, these flows are its first
        self._pump(now_ns)
        self._trim(now_ns)

    def surrender(self, now_ns: int) -> list[Part[D]]:
        """Give up what waits, if the collector is not up."""
        self._take_back(now_ns)
        return self._waiting.give_away()

    def hand_over(self, given: Sequence[Part[D]]) -> None:
        """What ``surrender`` gave belongs to another session now."""
        self._waiting.hand_over(given)

    @property
    def origin(self) -> tuple[int, int]:
        """For ``take_over`` of another session; see ``netobs.export.kept``."""
        return self._waiting.origin

    def take_over(self, source: Sink, now_ns: int) -> None:
        """Export what waits for ``source``, a session of the same encoder."""
        given = source.surrender(now_ns)
        self._waiting.take_over(given, source.origin)
        source.hand_over(given)
        self._pump(now_ns)
        self._trim(now_ns)

    def options_changed(self, now_ns: int) -> None:
        """The content of options records has changed: send them again, at most once a second."""
        if self.reach.is_open and not self._closing:
            self._loader.announcer.changed(now_ns)

    def close(self, now_ns: int, deadline_ns: int) -> None:
        """Send the waiting flows; ``closed`` becomes true when they are sent or cannot be sent, or at ``deadline_ns``.

        The loop must keep running until then, and with a spool up to ``DISK_NS`` longer if the disk is slow. Unsent
        flows go to the spool, or count as ``closed``.
        """
        if self._closing:
            return
        self._closing = True
        self._loader.announcer.finish()
        self._call_at("end", deadline_ns, self._finish)
        if self._keeping.stores(self.reach, self._stalled_ns(now_ns)):
            self._finish(now_ns)
            return
        self._link.hurry(now_ns)
        if not self._ending:
            self._pump(now_ns)

    def suspend(self, now_ns: int, deadline_ns: int) -> None:
        """Send nothing any more; ``closed`` becomes true when all that was sent is acknowledged, or at ``deadline_ns``.

        The next process goes on from there. Where nothing is kept, this is ``close``.
        """
        if not self._waiting.outlives:
            self.close(now_ns, deadline_ns)
        elif not (self._closing or self._suspended):
            self._suspended = True
            self._take_back(now_ns)
            self._loader.announcer.close()
            for what in ("pump", "probe"):
                self._cancel(what)
            self._call_at("end", deadline_ns, self._leave)
            self._await_arrival(now_ns)

    def _await_arrival(self, now_ns: int) -> None:
        if self._waiting.release(now_ns) or not self.reach.is_open:
            self._leave(now_ns)
        else:
            self._call_at("pump", now_ns + POLL_NS, self._await_arrival)

    def _leave(self, now_ns: int) -> None:
        """What has not arrived waits for the next process, as what was never sent."""
        self._ending = True
        self._cancel("pump")
        self._waiting.end_session(now_ns)
        self._link.close()
        self._call_at("end", now_ns + DISK_NS, self._on_left)
        self._waiting.end(self._on_left, now_ns)

    def _on_left(self, _now_ns: int) -> None:
        """The disk has ended its work, or does not answer; in both cases the next process finds out what it has."""
        if not self.closed:
            self.closed = True
            self._cancel("end")
            self._waiting.leave()

    # Calls of the link.

    def on_up(self, now_ns: int) -> None:
        self._loader.begin(self._waiting.begin_session(), now_ns)
        if self._closing:
            self._loader.announcer.stop()
        self._pump(now_ns)

    def on_down(self, now_ns: int) -> None:
        self._take_back(now_ns)
        self._waiting.end_session(now_ns)
        self._store(now_ns)
        self._loader.announcer.stop()

    def on_writable(self, now_ns: int) -> None:
        self._pump(now_ns)

    def on_suspect(self, now_ns: int) -> None:
        self._call_at("probe", now_ns + PROBE_NS, self._probe)

    def on_recovered(self, now_ns: int) -> None:
        self._loader.announcer.require()
        self._pump(now_ns)

    def on_unreachable(self, now_ns: int) -> None:
        if self._closing:
            self._finish(now_ns)

    def _probe(self, now_ns: int) -> None:
        """Probe a collector that refuses, and whose flows are held, with Templates."""
        if self.reach is not Reach.SUSPECT or self._closing:
            return
        self._call_at("probe", now_ns + PROBE_NS, self._probe)
        if self.holds(self.reach):
            self._loader.announcer.require(options=False)
            self._pump(now_ns)
            if not self._loader.has_templates:
                self._link.probe(now_ns)

    def _pump(self, now_ns: int) -> None:
        """Send until everything is sent or the link accepts no more. Flows that exceed the queue are not held back."""
        if self._suspended:
            return
        self._waiting.lose("queue_age", self._queue.expire(now_ns - self._config.queue_max_age_ns))
        while self.reach.is_open:
            if self.holds(self.reach) and self._shipment is not None and not self._shipment.is_announcement:
                self._take_back(now_ns)
            waiting_bytes = self._queue.bytes
            shipment = self._shipment or self._loader.load(self.holds(self.reach), not self._closing, now_ns)
            self._shipment = shipment
            if shipment is None:
                self._moved_ns = now_ns
                self._link.wait_writable(False, now_ns)
                break
            progress = self._link.push(shipment.block, shipment.index, waiting_bytes, now_ns)
            if not self._follow(shipment, progress, now_ns):
                return
        all_arrived = self._waiting.release(now_ns)
        done = all_arrived and not self._queue
        if self._closing and self._shipment is None and (done or self.holds(self.reach)):
            self._finish(now_ns)
        else:
            self._arm_pump(all_arrived, now_ns)
        self._waiting.settle()

    def _follow(self, shipment: Shipment[H, D], progress: Progress, now_ns: int) -> bool:
        """Account for the progress of the link. Returns whether it accepts more now."""
        if progress.done > shipment.index:
            self._moved_ns = now_ns
        self._waiting.account(shipment, progress, now_ns)
        if progress.state is State.DONE:
            self._shipment = None
        elif progress.state is State.TOO_LARGE:
            self._shorten(shipment, now_ns)
        elif progress.state is State.BROKEN:
            self._link.disconnect(progress.reason, now_ns)
            return False
        elif progress.state is State.FAILED:
            return True
        elif self.holds(self.reach) and not shipment.is_announcement:
            self._take_back(now_ns)
            self._store(now_ns)
        else:
            self._waiting.release(now_ns)
            self._link.wait_writable(True, now_ns)
            return False
        return True

    def _shorten(self, shipment: Shipment[H, D], now_ns: int) -> None:
        """The next Message exceeds the path MTU: continue with shorter ones, or drop it if that is impossible."""
        shorter = self._loader.fit()
        if shorter and shipment.batch is None:
            self._take_back(now_ns)
            return
        if shorter and shipment.block.sizes[shipment.index] <= self._loader.message_size:
            return  # Messages of the spool keep their length
        if not self._said_too_large:
            self._said_too_large = True
            log.warning("%s: Messages of %d bytes exceed the path MTU and are counted as not sent; "
                        "set a smaller max_message_size", self, self._loader.message_size)  # fmt: skip
        skipped = Progress(shipment.index + 1, State.DONE, (Failure(shipment.index, shipment.index + 1, "EMSGSIZE"),))
        self._waiting.account(shipment, skipped, now_ns)
        if shipment.index == len(shipment.block):
            self._shipment = None

    def _take_back(self, now_ns: int) -> None:
        shipment, self._shipment = self._shipment, None
        if shipment is not None:
            self._loader.take_back(shipment, now_ns)

    def _stalled_ns(self, now_ns: int) -> int:
        """For how long the collector has accepted nothing, although Messages are on their way."""
        return now_ns - self._moved_ns if self._shipment is not None else 0

    def _trim(self, now_ns: int) -> None:
        most = self._config.queue_max_bytes - (self._shipment.waiting_bytes() if self._shipment else 0)
        if self._keeping.stores(self.reach, self._stalled_ns(now_ns)) or self._queue.bytes > most:
            self._store(now_ns)
        self._waiting.lose("queue_full", self._waiting.trim(most, now_ns))

    def _store(self, now_ns: int) -> bool:
        """Move the queue to the spool, if there is one, part by part. Returns whether a part is under way."""
        if self._suspended:
            return False
        size = self._link.message_size() if self._link.reliable else self._loader.message_size
        return self._waiting.store(self._loader.headers.realtime_ns(now_ns) // NS_PER_S, size, now_ns)

    def _on_spool(self, now_ns: int) -> None:
        """The spool has written or read something."""
        if self._suspended:
            return
        if self._ending:
            self._end(now_ns)
        else:
            self._trim(now_ns)
            self._pump(now_ns)

    def _arm_pump(self, all_arrived: bool, now_ns: int) -> None:
        """Schedule the next look: when more of the spool is due, or to check the arrivals."""
        replay_ns, due_ns = self._waiting.replay_due_ns, None
        if self.reach.is_open and self._closing:
            due_ns = now_ns + POLL_NS
        elif self.reach.is_open and replay_ns is not None and not self.holds(self.reach):
            due_ns = max(replay_ns, self._loader.announcer.data_from_ns)
        elif self.reach.is_open and not all_arrived:
            due_ns = now_ns + (POLL_NS if self._waiting.outlives else PROBE_NS)  # to free memory and disk
        self._cancel("pump")
        if due_ns is not None:
            self._call_at("pump", due_ns, self._pump)

    def _finish(self, now_ns: int) -> None:
        """Stop sending. Waiting flows go to the spool, then the session ends."""
        if self._ending:
            return
        self._ending = True
        self._take_back(now_ns)
        self._loader.announcer.close()
        for what in ("pump", "probe"):
            self._cancel(what)
        self._link.close()
        self._call_at("end", now_ns + DISK_NS, self._give_up)
        self._end(now_ns)

    def _end(self, now_ns: int) -> None:
        if self._store(now_ns):
            return  # the next call follows when the part is written
        self._waiting.lose("closed", self._queue.trim(0))
        self._waiting.end(self._on_ended, now_ns)

    def _give_up(self, now_ns: int) -> None:
        """The disk does not answer."""
        self._waiting.give_up()
        log.warning("%s: spool %s: the disk does not answer: %d flows that wait are given up", self,
                    self._config.spool, self.account.queued.flows)  # fmt: skip
        self._waiting.lose("closed", self._queue.trim(0))
        self._on_ended(now_ns)

    def _on_ended(self, _now_ns: int) -> None:
        if not self.closed:
            self.closed = True
            self._waiting.drop_kept()
        self._cancel("end")

    def _call_at(self, what: str, when_ns: int, callback: Callable[[int], None]) -> None:
        self._cancel(what)
        self._timers[what] = self._loop.call_at(when_ns, callback)

    def _cancel(self, what: str) -> None:
        timer = self._timers.pop(what, None)
        if timer is not None:
            timer.cancel()
