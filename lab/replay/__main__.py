"""``make replay PCAP=PATH``: capture files through the daemon, and its flows beside an independent reckoning."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lab.machine import kernel_problem
from lab.namespaces import LabError
from lab.pcap import is_capture
from lab.replay.run import LANES, counts, replay
from lab.replay.site import Site

MOST_PACKETS = 200_000
MOST_LINES = 50  # of differences of one file


def main(arguments: Sequence[str] | None = None) -> int:
    """0: no difference; 1: there are some; 2: nothing could be replayed."""
    parser = argparse.ArgumentParser(prog="make replay", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a capture file, or a folder of them")
    parser.add_argument("--packets", type=int, default=MOST_PACKETS, help="of each file at most (default %(default)s)")
    parser.add_argument("--egress", action="store_true", help="measure where frames leave, not where they arrive")
    options = parser.parse_args(arguments)
    problem = kernel_problem()
    if problem:
        return _fail(problem)
    try:
        files, others = _files(options.paths)
        if not files:
            return _fail("no pcap or pcapng file in " + ", ".join(map(str, options.paths)))
        return _replay(files, others, options.packets, options.egress)
    except (LabError, OSError) as error:
        return _fail(str(error))


def _fail(reason: str) -> int:
    print(f"replay: {reason}", file=sys.stderr)
    return 2


def _files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """The capture files at ``paths``, and how many other files there are in the folders."""
    files: list[Path] = []
    others = 0
    for path in paths:
        if path.is_file():
            files.append(path)
            continue
        if not path.is_dir():
            raise LabError(f"{path}: no such file or folder")
        inside = sorted(found for found in path.rglob("*") if found.is_file())
        captures = [found for found in inside if is_capture(found)]
        files += captures
        others += len(inside) - len(captures)
    return files, others


def _replay(files: Sequence[Path], others: int, most: int, egress: bool) -> int:
    sent = filled = flows = found = 0
    not_sendable: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder), min(LANES, len(files)), egress) as site:
        for outcome in replay(site, files, most):
            print(outcome)
            for difference in outcome.differences[:MOST_LINES]:
                print(f"  {outcome.path}: {difference}")
            if len(outcome.differences) > MOST_LINES:
                print(f"  {outcome.path}: and {len(outcome.differences) - MOST_LINES} more")
            sys.stdout.flush()
            sent, filled = sent + outcome.sent, filled + outcome.filled
            flows, found = flows + len(outcome.reckoning.flows), found + len(outcome.differences)
            not_sendable += outcome.not_sendable
    rest = f"; {others} other files" if others else ""
    print(f"{len(files)} files: {counts(sent, filled, not_sendable, flows, found)}{rest}")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
