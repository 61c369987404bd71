"""What ``netobs listen`` prints, from the network and from files, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from netobs.encode.decode import Decoded, DecodeStats
from netobs.encode.flow_table import FlowTable


class Enough(Exception):
    """As many flows are printed as were asked for."""


class Printer:
    """Prints flows, and with ``options`` options records too; raises Enough after ``once`` flows (0 = never)."""

    def __init__(self, out: TextIO, as_json: bool = False, options: bool = False, once: int = 0) -> None:
        self.out = out
        self._as_json, self._options, self._left = as_json, options, once
        self._table = FlowTable()

    def title(self) -> None:
        if not self._as_json:
            print(self._table.title(), file=self.out, flush=True)

    def show(self, decoded: Decoded, origin: str, keys: Mapping[str, Any]) -> None:
        """The records of one Message. ``origin`` says where it is from; ``keys`` do in JSON."""
        known = {**keys, "observationDomainId": decoded.observation_domain}
        if self._options:
            for template_id, record in zip(decoded.options_template_ids, decoded.options):
                if self._as_json:
                    line = json.dumps({**known, "optionsTemplateId": template_id, **record})
                else:
                    values = ", ".join(f"{name} {json.dumps(value)}" for name, value in record.items())
                    where = f"{origin}, domain {decoded.observation_domain}, options template {template_id}"
                    line = f"# {where}: {values}"
                print(line, file=self.out)
        for flow in decoded.flows:
            print(json.dumps({**known, **flow}) if self._as_json else self._table.row(flow), file=self.out)
            self._left -= 1
            if self._left == 0:
                raise Enough


@contextmanager
def ending_quietly(out: TextIO, stats: DecodeStats) -> Iterator[None]:
    """Enough, SIGINT, SIGTERM and a broken pipe end the block; the account of ``stats`` follows on standard error."""
    try:
        with suppress(KeyboardInterrupt, Enough):
            yield
        out.flush()
    except BrokenPipeError:
        _discard(out)
    print(
        f"netobs listen: {stats.flows} flows in {stats.messages} Messages, {stats.lost_records} records lost, "
        f"{stats.sets_without_template} Sets without a Template, {stats.malformed} Messages malformed"
        + (f", {stats.lost_messages} NetFlow v9 Messages lost" if stats.lost_messages else "")
        + f", {stats.options} options records",
        file=sys.stderr,
    )


@contextmanager
def interruptible(wake_on: Callable[[int], None] | None = None) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; SIGINT too, since a shell starts background jobs with it ignored.

    ``wake_on`` gets a descriptor that ends a wait which begins just after the signal has come, when its handler has
    not yet run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    if wake_on is not None:
        wake_on(read_end)
    wakeup_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(read_end)
        os.close(write_end)


def _discard(out: TextIO) -> None:
    """Point ``out`` at the null device: the interpreter's flush at exit must not fail on a broken pipe."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)
