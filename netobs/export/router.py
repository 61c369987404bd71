"""Routes Flow Records to collectors, and encodes once for collectors that get the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.export.policies import GROUPS, Encoded, Member, Replicate
from netobs.flow.records import FlowBatch, take

if TYPE_CHECKING:
    from netobs.config import GroupConfig

TICK_NS = NS_PER_S


class Router:
    """All collectors: collectors in ``groups`` by their policy; the others get everything."""

    def __init__(
        self,
        members: Sequence[Member],
        groups: Sequence[GroupConfig],
        loop: EventLoop,
        former: Mapping[GroupConfig, Replicate] | None = None,
    ) -> None:
        """``former``: groups that may continue unchanged."""
        by_name = {member.name: member for member in members}
        self._loop = loop
        self._timer: Timer | None = None
        self._by_config = {
            group: _group(group, [by_name[name] for name in group.collectors], (former or {}).get(group))
            for group in groups
        }
        self._groups = list(self._by_config.values())
        grouped = {name for group in groups for name in group.collectors}
        alone = [member for member in members if member.name not in grouped]
        self._groups.append(Replicate("", alone))
        self._ticks = any(group.ticks for group in self._groups)

    def start(self, now_ns: int) -> None:
        """Start to watch which collectors are up."""
        if self._ticks:
            self._timer = self._loop.call_at(now_ns + TICK_NS, self._tick)

    def stop(self) -> None:
        """From now on, waiting flows stay with their collector."""
        if self._timer is not None:
            self._timer.cancel()

    def succeeded_by(self, members: Sequence[Member], groups: Sequence[GroupConfig], now_ns: int) -> Router:
        """The replacement of this router, for other ``members``. An unchanged group keeps its state."""
        self.stop()
        successor = Router(members, groups, self._loop, self._by_config)
        successor.start(now_ns)
        return successor

    def export(self, batch: FlowBatch, now_ns: int) -> None:
        """Encode ``batch`` and hand it to the sessions, except to those that have taken a batch of this number."""
        whole: dict[int, Encoded] = {}
        for group in self._groups:
            if batch.number and group.has_taken(batch.number):
                continue
            for member, rows in zip(group.members, group.shares(batch.records, now_ns)):
                if batch.number and member.sink.last_batch == batch.number:
                    continue
                if rows is None:
                    if id(member.encoder) not in whole:
                        whole[id(member.encoder)] = member.encoder.encode(batch)
                    share = whole[id(member.encoder)]
                elif len(rows):
                    records = take(batch.records, rows)
                    share = member.encoder.encode(replace(batch, records=records))
                else:
                    continue
                member.sink.account.unencodable += share.unencodable
                member.sink.account.clamped += share.clamped
                member.sink.send(share.data_sets, batch.clock, now_ns, batch.number)

    def _tick(self, now_ns: int) -> None:
        for group in self._groups:
            group.tick(now_ns)
        self._timer = self._loop.call_at(now_ns + TICK_NS, self._tick)


def _group(config: GroupConfig, members: Sequence[Member], former: Replicate | None) -> Replicate:
    if former is not None and all(mine is its for mine, its in zip(members, former.members)):
        return former
    return GROUPS[config.policy](config.name, members)
