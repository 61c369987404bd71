"""Another program, which makes an interface every 20 ms in its own namespace, and how long each "ip link add" took.

A process of its own: what the laboratory does meanwhile must not delay it.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.namespaces import command, stop
from lab.traffic import REPOSITORY


def at(values: Sequence[float], share: int) -> float:
    """The percentile ``share``."""
    ranked = sorted(values) or [0.0]
    return ranked[min(len(ranked) - 1, len(ranked) * share // 100)]


def percentiles(values: Sequence[float], unit: str) -> str:
    found = (f"p{share} {at(values, share):.1f}" for share in (50, 90, 99))
    return f"{', '.join(found)}, max {max(values, default=0.0):.1f} {unit} of {len(values)}"


@dataclass
class Timed:
    """One kind of work: from when to when (s), each time."""

    what: str
    spans: list[tuple[float, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.spans.append((began, time.monotonic()))

    @property
    def took_s(self) -> float:
        return statistics.median(ended - began for began, ended in self.spans)


class Others:
    """The program, from the start of this context manager to its end."""

    def __init__(self, ns: str, directory: Path) -> None:
        self._argv = [sys.executable, "-m", "lab.others", ns]
        self._file = directory / "others"

    def __enter__(self) -> Others:
        with self._file.open("wb") as output:
            self._process = subprocess.Popen(self._argv, cwd=REPOSITORY, stdout=output)
        return self

    def __exit__(self, *exc: object) -> None:
        stop(self._process)

    def took_ms(self, timed: Timed) -> list[float]:
        """How long each "ip link add" took that began during that work."""
        *lines, _ = self._file.read_text(encoding="ascii").split("\n")
        samples = [(float(began), float(ms)) for began, ms in map(str.split, lines)]
        return [ms for when, ms in samples if any(began <= when < ended for began, ended in timed.spans)]

    def compared(self, timed: Timed, than: Timed) -> str:
        """A line about that work."""
        mine, usual = self.took_ms(timed), self.took_ms(than)
        ratios = [at(mine, share) / (at(usual, share) or 1.0) for share in (50, 90)]
        return (
            f"{timed.what}: {timed.took_s:.2f} s; ip link add of others: {percentiles(mine, 'ms')}: "
            f"{ratios[0]:.2f} and {ratios[1]:.2f} times the p50 and p90 of {than.what!r}"
        )


def main() -> None:
    """Makes interfaces until it is ended."""
    made = 0
    while True:
        made += 1
        began = time.monotonic()
        command(["ip", "-n", sys.argv[1], "link", "add", f"other{made}", "type", "bridge"])
        print(f"{began:.6f} {(time.monotonic() - began) * 1000:.3f}", flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
