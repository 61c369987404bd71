"""Files in, a line for each out: sent, measured, compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lab.namespaces import LabError
from lab.pcap import packets
from lab.replay.compare import differences
from lab.replay.flows import ETHERNET, IP, Flow, Key, Reckoning
from lab.replay.link_types import NotSendable, sendable
from lab.replay.reckoning import of_frame, of_payload
from lab.replay.site import Lane, Measured, Site

LANES = 16
BATCH_FRAMES = 20_000
TAKE_EVERY = 4096


@dataclass
class Outcome:
    """The result of one file. ``filled``: frames whose end is missing in the file; ``notes``: what is to be
    said beside the counts."""

    path: Path
    reckoning: Reckoning = field(default_factory=Reckoning)
    sent: int = 0
    filled: int = 0
    not_sendable: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        line = counts(self.sent, self.filled, self.not_sendable, len(self.reckoning.flows), len(self.differences))
        return "; ".join([f"{self.path}: {line}", *self.notes])


def counts(sent: int, filled: int, not_sendable: Counter[str], flows: int, found: int) -> str:
    """The middle of a line, for a file and for all of them."""
    parts = [f"{sent} frames sent"]
    if filled:
        parts.append(f"{filled} of them filled up with zeros")
    if not_sendable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(not_sendable.items()))
        parts.append(f"{sum(not_sendable.values())} not sendable ({reasons})")
    return ", ".join([*parts, f"{flows} flows compared, {found} differences"])


def replay(site: Site, paths: Sequence[Path], most: int) -> Iterator[Outcome]:
    """Replay each file, at most ``most`` packets of it. Files share a round where they are small."""
    batch: list[Outcome] = []
    for path in paths:
        batch.append(_send(site, site.lanes[len(batch)], path, most))
        if len(batch) == len(site.lanes) or sum(outcome.sent for outcome in batch) >= BATCH_FRAMES:
            yield from _judge(site, batch, most)
            batch = []
    yield from _judge(site, batch, most)


def _send(site: Site, lane: Lane, path: Path, most: int) -> Outcome:
    outcome = Outcome(path)
    try:
        for number, packet in enumerate(packets(path), start=1):
            if number > most:
                outcome.notes.append(f"only the first {most} packets")
                break
            try:
                one = sendable(packet)
                lane.send(one)
            except NotSendable as error:
                outcome.not_sendable[str(error)] += 1
                continue
            outcome.sent += 1
            outcome.filled += one.filled > 0
            if one.ethertype < 0:
                outcome.reckoning.count(number, ETHERNET, partial(of_frame, one.octets))
            else:
                outcome.reckoning.count(number, IP, partial(of_payload, one.ethertype, one.octets))
            if number % TAKE_EVERY == 0:
                site.take()
    except LabError as error:
        outcome.notes.append(str(error).replace(f"{path}: ", "", 1))
    return outcome


def _judge(site: Site, batch: Sequence[Outcome], most: int) -> Iterator[Outcome]:
    """Compare the files of a round. The ledger is that of all of them: where it differs, each is sent alone."""
    if not batch:
        return
    measured = site.settle(sum(outcome.sent for outcome in batch))
    ledger: Counter[str] = Counter()
    for outcome in batch:
        ledger.update({reason: frames.count for reason, frames in outcome.reckoning.ledger.items()})
    if len(batch) > 1 and ledger != +measured.ledger:
        for outcome in batch:
            yield from _judge(site, [_send(site, site.lanes[0], outcome.path, most)], most)
        return
    for lane, outcome in zip(site.lanes, batch):
        _compare(lane, outcome, measured, alone=len(batch) == 1)
        yield outcome


def _compare(lane: Lane, outcome: Outcome, measured: Measured, alone: bool) -> None:
    flows: dict[Key, Flow] = {}
    for link in lane.media:
        flows.update(measured.flows.get(link.ifindex, {}))
        outcome.differences += measured.odd.get(link.ifindex, [])
    expected = Counter({reason: frames.count for reason, frames in outcome.reckoning.ledger.items()})
    outcome.differences += differences(outcome.reckoning, flows, measured.ledger if alone else expected)
    if alone and measured.seen != outcome.sent:
        outcome.differences.append(f"{outcome.sent} frames were sent, {measured.seen} seen")
    if not measured.balanced:
        outcome.differences.append("what was seen is not what was exported and what is in the ledger")
