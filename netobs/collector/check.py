"""``netobs listen --check``: a line for everything odd in the data of exporters, and a summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TextIO

from netobs.base.log import printable
from netobs.collector.decode import Decoded
from netobs.collector.output import Enough
from netobs.encode.layout_netflow import NETFLOW5_VERSION

_MAX_OFFSET_S = 60
_MAX_SOURCES = 1024
_MAX_COUNTS = 8192
"""The most sources, and cases of them, that are told apart: invented exporters must not fill the memory."""
_SAMPLING = frozenset(
    ("samplingInterval", "samplerRandomInterval", "samplingPacketInterval", "samplingPopulation", "samplingProbability")
)
"""Any of these tells the sampling rate: in the flows, or in options records. NetFlow v5 has it in its header."""
_TIMES = tuple(
    (f"flowStart{unit}", f"flowEnd{unit}") for unit in ("Milliseconds", "Microseconds", "Nanoseconds", "Seconds")
)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, as the decoder writes it
_ISO_S = len("2026-01-01T00:00:00")


class _Source(NamedTuple):
    origin: str
    domain: int | None


class Checker:
    """Prints everything odd: the first case of a kind from each source, the 10th, the 100th; at the end the sums.

    ``now_s``: the time of day; without it, Export Time is not checked. ``once``: raises Enough after this many flows.
    ``is_odd``: whether anything was odd.
    """

    def __init__(
        self, out: TextIO, as_json: bool = False, once: int = 0, now_s: Callable[[], int] | None = None
    ) -> None:
        self.out, self._as_json, self._left, self._now_s = out, as_json, once, now_s
        self._counts: Counter[tuple[_Source, str]] = Counter()
        self._totals: Counter[str] = Counter()
        self._sampling: dict[_Source, bool] = {}

    @property
    def is_odd(self) -> bool:
        return bool(self._totals)

    def title(self) -> None:
        """There is none."""

    def show(self, decoded: Decoded, origin: object, keys: Mapping[str, Any]) -> None:
        """Report everything odd in a Message. Withdrawals are odd only over UDP (RFC 7011, 8.4)."""
        source = _Source(str(origin), decoded.observation_domain)
        is_udp = getattr(origin, "transport", "") == "udp"
        for kind, (times, text) in decoded.notes.found.items():
            if kind != "withdrawal":
                self._odd(kind, source, text, times)
            elif is_udp:
                self._odd(kind, source, f"{text}, over UDP, which is not allowed", times)
        if self._now_s is not None:
            ahead_s = decoded.export_time_s - self._now_s()
            if abs(ahead_s) > _MAX_OFFSET_S:
                word = "ahead of" if ahead_s > 0 else "behind"
                self._odd("export-time", source, f"Export Time is {abs(ahead_s)} s {word} the clock of this host")
        self._check_times(source, decoded)
        self._note_sampling(source, decoded)
        if self._left:
            self._left -= min(self._left, len(decoded.flows))
            if self._left == 0:
                raise Enough

    def problem(self, origin: object, text: str) -> None:
        """A Message was damaged, or a connection had to end."""
        self._odd("closed" if "connections" in text else "malformed", _Source(str(origin), None), text)

    def end(self) -> None:
        """Prints the sums, and what only the end can show."""
        for source, is_said in self._sampling.items():
            if not is_said:
                text = "flows, but no sampling rate: a collector cannot know that it has to multiply them by 1"
                self._odd("no-sampling", source, text)
        for kind, times in sorted(self._totals.items()):
            sources = sum(each == kind for _, each in self._counts)
            if self._as_json:
                print(json.dumps({"odd": kind, "times": times, "sources": sources}), file=self.out)
            else:
                print(f"in all: {kind}: {_times(times)}, {sources} source{'s' * (sources != 1)}", file=self.out)
        if not self._totals and not self._as_json:
            print("nothing odd", file=self.out)

    def _odd(self, kind: str, source: _Source, text: str, times: int = 1) -> None:
        self._totals[kind] += times
        key = (source, kind)
        before = self._counts[key]
        if before == 0 and len(self._counts) > _MAX_COUNTS:
            del self._counts[key]
            return
        self._counts[key] = after = before + times
        if before and len(str(before)) == len(str(after)):
            return
        if self._as_json:
            where = {"exporter": source.origin, "observationDomainId": source.domain}
            print(json.dumps({**where, "odd": kind, "times": after, "text": text}), file=self.out)
        else:
            where_text = source.origin if source.domain is None else f"{source.origin}, domain {source.domain}"
            often = f" ({_times(after)} so far)" if after > 1 else ""
            print(printable(f"{where_text}: {kind}: {text}{often}"), file=self.out)

    def _check_times(self, source: _Source, decoded: Decoded) -> None:
        """Compares times as text, which sorts alike in one form. A flow may end in the second of its export."""
        latest = (_EPOCH + timedelta(seconds=decoded.export_time_s + 1)).isoformat()
        for flow in decoded.flows:
            for first, last in _TIMES:
                start, end = flow.get(first), flow.get(last)
                if not isinstance(start, str) or not isinstance(end, str):
                    continue
                if start > end:
                    self._odd("start-after-end", source, f"{first} {start}, {last} {end}")
                if end[:_ISO_S] > latest and end[-1:] == "Z":
                    self._odd("end-after-export", source, f"{last} {end}, Export Time {latest} at the latest")

    def _note_sampling(self, source: _Source, decoded: Decoded) -> None:
        is_said = any(not _SAMPLING.isdisjoint(record) for record in (*decoded.options, *decoded.flows[:1]))
        is_said |= decoded.version == NETFLOW5_VERSION or self._sampling.get(source, False)
        if (decoded.flows or is_said) and (source in self._sampling or len(self._sampling) < _MAX_SOURCES):
            self._sampling[source] = is_said


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
