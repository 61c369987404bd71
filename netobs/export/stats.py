"""The counters of one collector.

``seen + taken_over == sent + not_sent + queued + spooled + moved_away`` holds at all times; ``seen`` has ``moved_in``
in it. Over all collectors of a group, ``moved_in`` and ``moved_away`` are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netobs.flow.tally import Tally


@dataclass
class ExportStats:
    """The counters of one collector. They never go down, but ``queued``, ``spooled``, and ``sent`` when
    a connection breaks: what the collector's host has not acknowledged is counted as ``resent``, and waits again. Over
    UDP it goes down when Messages are refused: they are counted as not sent, see ``Refusals``.

    Sent means: accepted by the kernel, and not known to be refused.
    """

    seen: Tally = field(default_factory=Tally)
    sent: Tally = field(default_factory=Tally)
    queued: Tally = field(default_factory=Tally)
    spooled: Tally = field(default_factory=Tally)
    """Flows in the spool."""
    unseen: Tally = field(default_factory=Tally)
    """Those of ``spooled`` that a former process has counted, until the spool is opened."""
    taken_over: Tally = field(default_factory=Tally)
    """Flows that an earlier run of the daemon has left in the spool, without an account that goes on."""
    resent: Tally = field(default_factory=Tally)
    not_sent: dict[str, Tally] = field(default_factory=dict)
    """By reason: ``queue_full``, ``queue_age``, ``closed``, ``refused``, the name of the errno that the send gave; of
    the spool: ``spool_full``, ``other_template``, ``too_large``, ``damaged``, ``removed``."""
    moved_in: Tally = field(default_factory=Tally)
    """Flows taken over from another collector of a failover group; also in ``seen``."""
    moved_away: Tally = field(default_factory=Tally)
    """Flows given to another collector of the group, which then accounts for them."""
    unencodable: Tally = field(default_factory=Tally)
    """Flows that the protocol or Templates cannot carry; they are not in ``seen``."""
    clamped: int = 0  # flows sent with a substitute interface index
    messages: int = 0  # with Data Records
    template_messages: int = 0
    bytes: int = 0  # of all Messages sent
    refused: int = 0  # ICMP port unreachable (ECONNREFUSED) that came back over UDP
    reconnects: int = 0  # Transport Sessions after the first
    attempts: int = 0  # to reach the collector that went beyond its name, or failed with it
    failed_attempts: int = 0  # to resolve the collector's name or to connect to one of its addresses
    uncertain_bytes: int = 0  # taken by the kernel and not acknowledged when a connection broke

    def __add__(self, other: ExportStats) -> ExportStats:
        """The account of two collectors as one: every number is the sum."""
        reasons = dict.fromkeys((*self.not_sent, *other.not_sent))
        both = {
            name: mine + getattr(other, name) for name, mine in vars(self).items() if isinstance(mine, (int, Tally))
        }
        not_sent = {why: self.not_sent.get(why, Tally()) + other.not_sent.get(why, Tally()) for why in reasons}
        return ExportStats(**both, not_sent=not_sent)

    def see(self, tally: Tally) -> None:
        self.seen += tally
        self.queued += tally

    def spool(self, tally: Tally) -> None:
        """Moves it from the queue to the spool."""
        self.queued -= tally
        self.spooled += tally

    def take_over(self, tally: Tally) -> None:
        """The spool has ``tally`` at its opening."""
        known = self.unseen.within(tally)
        self.taken_over += tally - known
        self.spooled += tally - self.unseen
        lost, self.unseen = self.unseen - known, Tally()
        if lost != Tally():
            self.not_sent["removed"] = self.not_sent.get("removed", Tally()) + lost

    def count_sent(self, tally: Tally, spooled: bool = False) -> None:
        """``spooled``: it comes from the spool, not from the queue."""
        self.sent += tally
        self._leave(tally, spooled)

    def count_resent(self, tally: Tally, spooled: bool = False) -> None:
        """It was sent without success, and waits again."""
        self.sent -= tally
        self.resent += tally
        self._leave(Tally() - tally, spooled)

    def count_refused(self, tally: Tally) -> None:
        """It counted as sent, and the collector's host has refused it."""
        self.sent -= tally
        self.queued += tally
        self.count_not_sent("refused", tally)

    def count_not_sent(self, reason: str, tally: Tally, spooled: bool = False) -> None:
        if tally != Tally():
            self.not_sent[reason] = self.not_sent.get(reason, Tally()) + tally
            self._leave(tally, spooled)

    def _leave(self, tally: Tally, spooled: bool) -> None:
        if spooled:
            self.spooled -= tally
        else:
            self.queued -= tally

    def move_in(self, tally: Tally) -> None:
        self.moved_in += tally
        self.see(tally)

    def move_away(self, tally: Tally) -> None:
        self.moved_away += tally
        self.queued -= tally

    @property
    def exported(self) -> Tally:
        """All that the kernel has accepted, whatever became of it. It never goes down."""
        return self.sent + self.resent + self.refused_flows

    @property
    def refused_flows(self) -> Tally:
        """Flows that were sent over UDP and refused."""
        return self.not_sent.get("refused", Tally())

    def not_sent_total(self) -> Tally:
        """``not_sent`` over all reasons."""
        return sum(self.not_sent.values(), Tally())
