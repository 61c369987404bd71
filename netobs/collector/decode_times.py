"""Relative times of flows: relative to sysUpTime (NetFlow, IPFIX with IE 160) or to Export Time (IE 158, 159)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from netobs.collector.readable import reader
from netobs.collector.work import Notes

Record = dict[str, Any]

INIT_TIME = "systemInitTimeMilliseconds"
_UPTIMES = {"flowStartSysUpTime": "flowStartMilliseconds", "flowEndSysUpTime": "flowEndMilliseconds"}
_DELTAS = {"flowStartDeltaMicroseconds": "flowStartMilliseconds", "flowEndDeltaMicroseconds": "flowEndMilliseconds"}
_MAX_U32, _HALF = 0xFFFFFFFF, 1 << 31
_US_PER_MS, _MS_PER_S = 1_000, 1_000


@lru_cache(maxsize=64)
def milliseconds(text: str) -> int | None:
    """Decoded ISO 8601 in ms since 1970; None for other text, which comes from a field of impossible length."""
    try:
        moment = datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return round(moment.timestamp() * _MS_PER_S)


def init_time(record: Mapping[str, Any]) -> int | None:
    """When sysUpTime was 0 according to ``record``, in ms since 1970."""
    value = record.get(INIT_TIME)
    return milliseconds(value) if isinstance(value, str) else None


def add_times(records: Iterable[Record], export_ms: int, init_ms: int | None, notes: Notes) -> None:
    """Add absolute times to the ``records`` that have none.

    ``export_ms``: the time of the Message; ``init_ms``: when sysUpTime was 0, in ms since 1970. A record's own value
    takes precedence. sysUpTime is modulo 2**32 ms: a flow lies within 2**31 ms of its Message.
    """
    read = reader("dateTimeMilliseconds", True)
    assert read is not None
    for record in records:
        own_ms = init_time(record)
        since_ms = init_ms if own_ms is None else own_ms
        for relative, wall in _UPTIMES.items():
            value = record.get(relative)
            if not isinstance(value, int) or wall in record:
                continue
            if since_ms is None:
                notes.add("no-init-time", f"{relative} without {INIT_TIME}: the times of the flows are unknown")
                continue
            ago_ms = (export_ms - since_ms - value) & _MAX_U32
            record[wall] = read(export_ms - (ago_ms if ago_ms < _HALF else ago_ms - (_MAX_U32 + 1)))
        for relative, wall in _DELTAS.items():
            value = record.get(relative)
            if isinstance(value, int) and wall not in record:
                record[wall] = read(export_ms - value // _US_PER_MS)
