"""The output of ``netobs listen``, from the network and from files, and its end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from netobs.base.log import printable
from netobs.base.standard_output import OutputError
from netobs.collector.decode import Decoded, Decoder
from netobs.collector.text_table import FlowTable


class Enough(Exception):
    """Raised when the requested number of flows is printed."""


class Printer:
    """Prints flows, and with ``options`` options records too; raises Enough after ``once`` flows (0 = never)."""

    def __init__(self, out: TextIO, as_json: bool = False, options: bool = False, once: int = 0) -> None:
        self.out = out
        self._as_json, self._options, self._left = as_json, options, once
        self._table = FlowTable()
        self.is_odd = False

    def problem(self, origin: object, text: str) -> None:
        """Prints nothing here: standard error has the line."""

    def end(self) -> None:
        """Nothing follows the flows."""

    def title(self) -> None:
        if not self._as_json:
            print(self._table.title(), file=self.out, flush=True)

    def show(self, decoded: Decoded, origin: object, keys: Mapping[str, Any]) -> None:
        """The records of one Message. ``origin`` says where it is from; ``keys`` do in JSON."""
        known = {**keys, "observationDomainId": decoded.observation_domain}
        lines = list(self._option_lines(decoded, origin, known)) if self._options else []
        flows = decoded.flows[: self._left] if self._left else decoded.flows
        if self._as_json:
            begin = json.dumps(known)[:-1]
            lines += [f"{begin}, {json.dumps(flow)[1:]}" for flow in flows]
        else:
            lines += map(printable, map(self._table.row, flows))
        if lines:
            self.out.write("\n".join(lines) + "\n")
        if self._left:
            self._left -= len(flows)
            if self._left == 0:
                raise Enough

    def _option_lines(self, decoded: Decoded, origin: object, known: Mapping[str, Any]) -> Iterator[str]:
        for template_id, record in zip(decoded.options_template_ids, decoded.options):
            if self._as_json:
                yield json.dumps({**known, "optionsTemplateId": template_id, **record})
            else:
                values = ", ".join(f"{name} {json.dumps(value)}" for name, value in record.items())
                where = f"{origin}, domain {decoded.observation_domain}, options template {template_id}"
                yield f"# {where}: {values}"


def account_of(decoder: Decoder, others: Mapping[str, int] | None = None) -> str:
    """The counts of ``decoder`` in a line; ``others``: more losses. Losses of 0 are left out."""
    stats = decoder.stats
    losses = {
        "NetFlow v9 Messages lost": stats.lost_messages,
        "surplus octets": stats.surplus_octets,
        "octets not read": stats.unread_octets,
        "times an Observation Domain forgotten": decoder.domains.given_up,
        **(others or {}),
    }
    return (
        f"{stats.flows} flows in {stats.messages} Messages, {stats.lost_records} records lost, "
        f"{stats.sets_without_template} Sets without a Template, {stats.malformed} Messages malformed"
        + "".join(f", {count} {what}" for what, count in losses.items() if count)
        + f", {stats.options} options records"
    )


@contextmanager
def ending_quietly(out: TextIO, account: Callable[[], str], end: Callable[[], None]) -> Iterator[None]:
    """Enough, SIGINT, SIGTERM and a broken pipe end the block; ``end``, then ``account`` on standard error, follow.

    :raises OutputError: nothing more can be written, after the account.
    """
    try:
        with suppress(KeyboardInterrupt, Enough):
            yield
        end()
        out.flush()
    except BrokenPipeError:
        pass
    except OutputError:
        _say(account())
        raise
    _say(account())


def _say(account: str) -> None:
    print(f"netobs listen: {account}", file=sys.stderr)


@contextmanager
def interruptible(wake_on: Callable[[int], None] | None = None) -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; SIGINT too, since a shell starts background jobs with it ignored.

    An exception that is raised in a callback of C code or of the garbage collector is lost: whoever loops calls what
    this yields, which raises it again.

    ``wake_on`` gets a descriptor that ends a wait that starts just after a signal, before the handler has run.
    """
    came: list[int] = []

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return

    def interrupt(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    if wake_on is not None:
        wake_on(read_end)
    wakeup_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(read_end)
        os.close(write_end)
