"""What `netobs top` shows, as lines of text: the same for a terminal and for a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from netobs.base.log import printable
from netobs.cli.units import counted, short

BARS, ASCII_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
UNKNOWN = "-"
RATES = {
    "bits": ("bits/s", "bits_per_s"),
    "packets": ("packets/s", "packets_per_s"),
    "flows": ("new/s", "new_flows_per_s"),
}
"""By the word that sorts by it: the title of the column, and the key in a row."""
TITLES = {
    "proto": "proto", "src": "source", "sport": "port", "dst": "destination", "dport": "port", "srcnet": "source",
    "dstnet": "destination", "if": "interface", "dir": "dir", "vlan": "VLAN",
}  # fmt: skip
_DIRECTIONS = {"ingress": "in", "egress": "out"}
_MORE = (("flows", "flows"), ("octets", "octets"))
"""Columns that stand behind the rates where there is room: title and key."""
SHORTEST = 4
"""The least width to which a column is cut."""


class Page(NamedTuple):
    """``head``: lines of totals and of what is shown; ``problem``: "" if all is well; ``title`` and ``rows`` of the
    table."""

    head: list[str]
    problem: str
    title: str
    rows: list[str]

    def lines(self) -> list[str]:
        """All of it."""
        return [*self.head, *filter(None, [self.problem]), "", self.title, *self.rows]


def page(frame: dict[str, Any], history: Sequence[float], width: int = 0, bars: str = BARS) -> Page:
    """The page of ``frame`` (netobs.live.frame). ``history``: bits per second of the last minute. ``width``: of the
    terminal; 0: as wide as it gets."""
    title, rows = _table(frame, width)
    head = [_totals(frame, history, bars), _shown(frame), _condition(frame["condition"])]
    problem = f"incomplete: {frame['incomplete']}" if frame["incomplete"] else ""
    lines = [printable(line)[: width or None] for line in head if line]
    return Page(lines, printable(problem)[: width or None], title, rows)


def _rate(number: float | None, unit: str = "") -> str:
    return UNKNOWN if number is None else short(number, unit)


def _totals(frame: dict[str, Any], history: Sequence[float], bars: str) -> str:
    totals = frame["totals"]
    time = datetime.fromtimestamp(frame["time_s"], timezone.utc).astimezone().strftime("%H:%M:%S")
    parts = [
        time,
        f"{_rate(totals['bits_per_s'], 'bit')}/s",
        f"{_rate(totals['packets_per_s'])} packets/s",
        f"{_rate(totals['new_flows_per_s'])} new flows/s",
    ]
    return f"{'  '.join(parts)}  {sparkline(history, bars)}".rstrip()


def sparkline(history: Sequence[float], bars: str = BARS) -> str:
    """One character for each number, as high as the number in relation to the greatest."""
    greatest = max(history, default=0)
    if not greatest:
        return ""
    return "".join(bars[-(-int(number * (len(bars) - 1)) // int(greatest)) if number else 0] for number in history)


def _shown(frame: dict[str, Any]) -> str:
    by = ", ".join(frame["by"]) or "nothing: all in one"
    flows, groups = counted(frame["totals"]["flows"]), counted(frame["groups"])
    chosen = f"  filter: {frame['filter']}" if frame["filter"] else ""
    return f"{groups} groups of {flows} flows  by {by}{chosen}"


def _condition(condition: dict[str, Any] | None) -> str:
    if condition is None:
        return ""
    collectors = f"{condition['up']} of {condition['collectors']} collectors up; " if "up" in condition else "alone; "
    lost = [f"{counted(condition['lost_packets'])} before a flow"]
    if "not_sent_packets" in condition:
        lost.append(f"{counted(condition['not_sent_packets'])} not sent")
    interfaces = condition["interfaces"]
    plural = "" if interfaces == 1 else "s"
    return f"{interfaces} interface{plural}; {collectors}packets lost: {', '.join(lost)}"


def has_loss(frame: dict[str, Any]) -> bool:
    """Whether the line with losses needs a look."""
    condition = frame["condition"] or {}
    lost = condition.get("lost_packets", 0) + condition.get("not_sent_packets", 0)
    return bool(lost or condition.get("up", 0) < condition.get("collectors", 0))


def _cells(frame: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of what flows are grouped by; an address and its port are one column."""
    by, titles = list(frame["by"]), []
    columns: list[list[str]] = []
    for word in by:
        cells = [_DIRECTIONS.get(str(row[word]), printable(str(row[word]))) for row in frame["rows"]]
        end = {"sport": "src", "dport": "dst"}.get(word)
        if end in by:
            columns[-1] = [_joined(address, port) for address, port in zip(columns[-1], cells)]
        else:
            titles.append(
                TITLES[word] if word not in ("sport", "dport") else f"{TITLES[end + 'net'] if end else ''} port"
            )
            columns.append(cells)
    return titles, columns


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _table(frame: dict[str, Any], width: int) -> tuple[str, list[str]]:
    titles, columns = _cells(frame)
    numbers = [(title, [_rate(row[key]) for row in frame["rows"]]) for title, key in RATES.values()]
    more = [(title, [_rate(row[key]) for row in frame["rows"]]) for title, key in _MORE]
    widths = [max(map(len, [title, *cells])) for title, cells in zip(titles, columns)]
    right = [(title, cells, max(9, *map(len, [title, *cells]))) for title, cells in (*numbers, *more)]
    if width:
        # The rates that do not sort, and what stands behind them, give way to names that would be cut.
        sorting = RATES[frame["sort"]][0]
        while len(right) > 1 and sum(widths) + len(widths) + sum(each[2] + 1 for each in right) > width + 1:
            right.remove(next(each for each in reversed(right) if each[0] != sorting))
        room = width - sum(each[2] + 1 for each in right)
        while widths and sum(widths) + len(widths) - 1 > room and max(widths) > SHORTEST:
            widths[widths.index(max(widths))] -= 1
    lines = []
    for cells in ([*titles, *(title for title, _, _ in right)], *zip(*columns, *(cells for _, cells, _ in right))):
        left = [_cut(cell, size).ljust(size) for cell, size in zip(cells, widths)]
        lines.append(
            " ".join([*left, *(cell.rjust(each[2]) for cell, each in zip(cells[len(widths) :], right))])[
                : width or None
            ]
        )
    return lines[0], lines[1:]


def _cut(cell: str, size: int) -> str:
    return cell if len(cell) <= size else f"{cell[: size - 1]}~"
