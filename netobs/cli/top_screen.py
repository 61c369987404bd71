"""The screen of `netobs top`, by curses."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import select
import signal
import sys
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any

from netobs.base.errors import NetobsError
from netobs.cli.top_page import ASCII_BARS, BARS, has_loss, page
from netobs.live.query import DEFAULT_BY, MOST_ROWS, Query, parse

if TYPE_CHECKING:
    from netobs.cli.top import Frames

STANDARD_OUTPUT = 1
HISTORY = 60
FRAME_LINES = 5  # above the rows, unless something is incomplete
LEAST_LINES, LEAST_COLUMNS = 10, 40
TURN_S = 0.2
"""How long a key or a new size of the terminal may wait."""
ESCAPE_MS = 50
TOGGLES = {"a": "src", "d": "dst", "o": "sport", "t": "dport", "r": "proto", "i": "if", "w": "dir", "v": "vlan"}
SORTS = {"b": "bits", "p": "packets", "f": "flows"}
HELP = """\
Sort by     b bits/s      p packets/s    f new flows/s
Group by    a source      o its port     d destination   t its port
            r protocol    i interface    w direction     v VLAN
            n networks instead of addresses              c each flow
Show        / filter, for instance: host 192.0.2.1 and port 443
            + more lines  - fewer lines  space pause
            ? help        q quit

A packet that is forwarded is measured where it comes in and where it
goes out: group by interface or direction, or filter by in, if eth0."""


def run(source: Frames, asked: Query) -> None:
    """Shows frames until the user ends it.

    :raises NetobsError: the terminal is unusable, or there are no more frames.
    """
    with contextlib.suppress(locale.Error):  # the terminal's settings name one that this host does not have
        locale.setlocale(locale.LC_ALL, "")
    curses.set_escdelay(ESCAPE_MS)
    sys.__stdout__ = sys.stdout  # type: ignore[assignment,misc]  # whose descriptor curses.initscr uses
    try:
        curses.wrapper(lambda window: Screen(window, source, asked).run())
    except curses.error as error:
        term = os.environ.get("TERM", "")
        raise NetobsError(f'the terminal "{term}" cannot show it: {error}', "set TERM, or use --once") from error


def grouped(by: tuple[str, ...], key: str) -> tuple[str, ...]:
    """What to group by after ``key`` was pressed."""
    chosen = set(by)
    if key == "c":
        return DEFAULT_BY
    if key == "n":
        nets = {"src": "srcnet", "dst": "dstnet"}
        swaps = nets if chosen & {*nets} else {net: address for address, net in nets.items()}
        return tuple({swaps.get(word, word) for word in by} if chosen & {*swaps} else chosen | {*swaps})
    word = TOGGLES[key]
    net = f"{word}net"
    if net in chosen:
        chosen.remove(net)
    else:
        chosen ^= {word}
    return tuple(chosen)


class Screen:
    """Draws frames, and follows keys, until one of them ends it."""

    def __init__(self, window: Any, source: Frames, asked: Query) -> None:
        self._window, self._source, self._asked = window, source, asked
        self._frame: dict[str, Any] | None = None
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._lines_wanted = 0  # 0: as many as there is room for
        self._typed: str | None = None  # a filter that is being typed
        self._said = ""
        self._paused = self._helps = self._ends = self._awaits = False
        self._bars = BARS if "UTF" in locale.nl_langinfo(locale.CODESET).upper() else ASCII_BARS
        self._size = (0, 0)
        window.nodelay(True)
        with contextlib.suppress(curses.error):  # a terminal that cannot hide its cursor
            curses.curs_set(0)
        if curses.has_colors():
            curses.use_default_colors()
            curses.init_pair(1, curses.COLOR_RED, -1)

    def run(self) -> None:
        """Until the user ends it."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._on_signal)
        while not self._ends:
            self._fit()
            ready, _, _ = select.select([0, self._source.fileno()], [], [], TURN_S)
            if self._source.fileno() in ready:
                self._take()
            while (key := self._key()) and not self._ends:
                self._follow(key)
                self._draw()

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self._ends = True

    def _key(self) -> str:
        try:
            key = self._window.get_wch()
        except curses.error:
            return ""
        return key if isinstance(key, str) else curses.keyname(key).decode()

    def _fit(self) -> None:
        """Follows the size of the terminal."""
        columns, lines = os.get_terminal_size(STANDARD_OUTPUT)
        if (columns, lines) != self._size:
            self._size = (columns, lines)
            curses.resizeterm(lines, columns)
            self._ask()
            self._draw()

    @property
    def _room(self) -> int:
        """For lines of the table."""
        return min(max(1, self._size[1] - FRAME_LINES), MOST_ROWS)

    def _ask(self, **changes: Any) -> None:
        """Asks for as many rows as there is room for, and what has changed."""
        rows = min(self._lines_wanted or self._room, self._room)
        try:
            self._asked = parse({**changes, "rows": rows}, self._asked)
        except NetobsError as error:
            self._said = str(error)
            return
        self._source.ask(**self._asked._asdict())
        self._awaits = True

    def _take(self) -> None:
        for frame in self._source.read():
            if not frame.get("ok"):
                if self._frame is None:
                    raise NetobsError(str(frame.get("error")))
                self._said = str(frame.get("error"))
                continue
            is_new = self._frame is None or frame["time_s"] - self._frame["time_s"] > 0
            if not self._paused or self._awaits:
                self._frame, self._awaits = frame, False
            if frame["interval_s"] and is_new:
                self._history.append(frame["totals"]["bits_per_s"])
        self._draw()

    # Keys.

    def _follow(self, key: str) -> None:
        if self._typed is not None:
            self._type(key)
            return
        self._said = ""
        if self._helps:
            self._helps = False
        elif key in ("q", "\x03"):
            self._ends = True
        elif key in SORTS:
            self._ask(sort=SORTS[key])
        elif key in TOGGLES or key in ("n", "c"):
            self._ask(by=grouped(self._asked.by, key))
        elif key == "/":
            self._typed = self._asked.filter
        elif key == " ":
            self._paused = not self._paused
        elif key in "+-":
            rows = (self._lines_wanted or self._room) + (1 if key == "+" else -1)
            self._lines_wanted = 0 if rows >= self._room else max(1, rows)
            self._ask()
        elif key == "?":
            self._helps = True

    def _type(self, key: str) -> None:
        """A key of a filter that is being typed."""
        assert self._typed is not None
        if key in ("\n", "\r", "KEY_ENTER"):
            self._ask(filter=self._typed)
            self._typed = None
        elif key == "\x1b":
            self._typed = None
        elif key in ("\x7f", "\b", "KEY_BACKSPACE"):
            self._typed = self._typed[:-1]
        elif key == "\x15":
            self._typed = ""
        elif len(key) == 1 and key.isprintable():
            self._typed += key

    # Drawing.

    def _draw(self) -> None:
        columns, lines = self._size
        self._window.erase()
        if columns < LEAST_COLUMNS or lines < LEAST_LINES:
            self._put(0, f"too small: {LEAST_COLUMNS}x{LEAST_LINES} at least")
        elif self._helps:
            for number, text in enumerate(HELP.splitlines()[:lines]):
                self._put(number, text)
        elif self._frame is None:
            self._put(0, "netobs top: waiting for the first look")
        else:
            self._draw_page(self._frame)
        self._window.refresh()

    def _draw_page(self, frame: dict[str, Any]) -> None:
        shown = page(frame, self._history, self._size[0], self._bars)
        alarm = curses.color_pair(1) | curses.A_BOLD
        at = 0
        for number, text in enumerate(shown.head):
            self._put(at, text, alarm if number == 2 and has_loss(frame) else curses.A_BOLD if number == 0 else 0)
            at += 1
        if shown.problem:
            self._put(at, shown.problem, alarm)
            at += 1
        self._put(at, self._prompt(), alarm if self._said else 0)
        self._put(at + 1, shown.title.ljust(self._size[0]), curses.A_REVERSE)
        for number, text in enumerate(shown.rows[: self._size[1] - at - 2]):
            self._put(at + 2 + number, text)

    def _prompt(self) -> str:
        if self._typed is not None:
            return f"filter: {self._typed}_"
        if self._said:
            return self._said
        if self._paused:
            return "paused; space goes on"
        if self._frame is not None and self._frame["interval_s"] is None:
            return "measuring: rates come with the next look"
        return f"sorted by {self._asked.sort}; ? help"

    def _put(self, line: int, text: str, style: int = 0) -> None:
        columns, lines = self._size
        if line < lines:
            try:
                self._window.addnstr(line, 0, text, columns, style)
            except curses.error:  # the last cell of the screen: written, but the cursor has no place behind it
                return
