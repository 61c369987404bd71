"""The account of a session as numbers, and back. ``queued`` is not among them: the waiting rows say it."""

from __future__ import annotations

from collections.abc import Iterator

from netobs.export.kept.state import COLD_NUMBERS, REASONS, Cold, KeptState
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally

_TALLIES = ("seen", "taken_over", "resent", "spooled", "moved_in", "moved_away", "unencodable")
_COUNTS = ("clamped", "refused", "reconnects", "failed_attempts", "uncertain_bytes")
_OTHERS = "other reasons"


class KeptAccount:
    """``stats``, and ``unacknowledged``: what of the spool was sent, and is not acknowledged; as of ``state``."""

    def __init__(self, stats: ExportStats, state: KeptState) -> None:
        self.stats = stats
        self.unacknowledged = Tally()
        self._state = state

    def numbers(self) -> Cold:
        """All that is not in ``Hot``."""
        stats = self.stats
        found: list[int] = []
        for name in _TALLIES:
            found += _numbers(getattr(stats, name))
        found += _numbers(self.unacknowledged)
        found += [getattr(stats, name) for name in _COUNTS]
        by_reason = [0] * (3 * REASONS)
        for reason, tally in stats.not_sent.items():
            at = 3 * self._place(reason)
            by_reason[at : at + 3] = map(int.__add__, by_reason[at : at + 3], _numbers(tally))
        return (*found, *by_reason, *([0] * (COLD_NUMBERS - len(found) - len(by_reason))))

    def _place(self, reason: str) -> int:
        reasons = self._state.reasons
        if reason not in reasons:
            if len(reasons) >= REASONS - 1:
                reason = _OTHERS
            if reason not in reasons:
                self._state.add_reason(reason)
        return reasons.index(reason)

    def restore(self, cold: Cold) -> None:
        """``stats`` are as the former process had them."""
        numbers = iter(cold)
        for name in _TALLIES:
            setattr(self.stats, name, _tally(numbers))
        self.unacknowledged = _tally(numbers)
        for name in _COUNTS:
            setattr(self.stats, name, next(numbers))
        for reason in self._state.reasons:
            self.stats.not_sent[reason] = _tally(numbers)


def _numbers(tally: Tally) -> tuple[int, int, int]:
    return tally.flows, tally.packets, tally.octets


def _tally(numbers: Iterator[int]) -> Tally:
    return Tally(next(numbers), next(numbers), next(numbers))
