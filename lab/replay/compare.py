"""The reckoning of a file beside what the daemon exported of it: one line for each difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from lab.replay.flows import First, Flow, Frames, Key, Reckoning


def differences(reckoning: Reckoning, flows: Mapping[Key, Flow], ledger: Mapping[str, int]) -> Iterator[str]:
    """``flows``: what came out; ``ledger``: packets by reason. Nothing comes where both agree in everything."""
    for key, expected in reckoning.flows.items():
        where = f"{key} ({reckoning.frames[key]})"
        if key not in flows:
            yield f"{where}: expected {expected.packets} packets, {expected.octets} octets, not exported"
        else:
            starts = reckoning.restarts.get(key, set())
            yield from (f"{where}: {text}" for text in _fields(expected, flows[key], starts))
    for key, flow in flows.items():
        if key not in reckoning.flows:
            yield f"{key}: exported with {flow.packets} packets, {flow.octets} octets, not expected"
    for reason in sorted(set(reckoning.ledger) | set(ledger)):
        frames = reckoning.ledger.get(reason, Frames())
        if frames.count != ledger.get(reason, 0):
            yield f"ledger, {reason}: expected {frames.count} ({frames}), got {ledger.get(reason, 0)}"


def _fields(expected: Flow, got: Flow, restarts: set[First]) -> Iterator[str]:
    for name in (field.name for field in dataclasses.fields(Flow) if field.name != "first"):
        values = getattr(expected, name), getattr(got, name)
        if values[0] != values[1]:
            yield f"{name}: expected {values[0]}, got {values[1]}"
    if got.first in restarts:
        return
    for name, *pair in zip(First._fields, expected.first, got.first):
        if pair[0] != pair[1]:
            texts = [value.hex(":") if isinstance(value, bytes) else str(value) for value in pair]
            yield f"{name}: expected {texts[0]}, got {texts[1]}"
