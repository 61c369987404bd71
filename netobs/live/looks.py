"""Looks at the flow table for all clients: when one is due, and what each of them gets to see."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Callable

from netobs.base import clock
from netobs.base.loop import POLL_NS, EventLoop, Timer
from netobs.datapath.view import TableView
from netobs.flow.interface_names import NO_INTERFACES
from netobs.flow.records import Records
from netobs.live.client import Client, encoded
from netobs.live.flows import Flows, Mark, rows_of
from netobs.live.frame import frame

MOST_CLIENTS = 8
TOGETHER_NS = clock.NS_PER_S // 10
"""Clients that are due within this time see the same look."""


class Looks:
    """``view`` is set, evictions are reported by ``evicted``, clients come by ``add``; all else follows."""

    def __init__(self, loop: EventLoop, drain: Callable[[], bool] = lambda: False) -> None:
        """``drain`` takes in the evictions that have come. Whether there were any."""
        self._loop, self._drain = loop, drain
        self.view: TableView | None = None
        self.flows = Flows()
        self.names = NO_INTERFACES
        self.condition: dict[str, Any] | None = None
        """What the daemon says of itself."""
        self.missed = 0
        """How many evictions' rows did not come."""
        self.table = ""
        self.clients: list[Client] = []
        self.on_idle: Callable[[], None] = lambda: None
        """Called when the last client has gone."""
        self._timer: Timer | None = None
        self._looked_s = 0.0

    def evicted(self, rows: Records, active_half: int, missed: int = 0) -> None:
        """``rows`` (of ``flows.ROW``) have been taken out, and packets go to ``active_half`` now. ``missed``: how many
        evictions before that were not reported, all in all."""
        self.flows.add(rows)
        self.follow(active_half, missed)

    def follow(self, active_half: int, missed: int) -> bool:
        """Whatever was taken out so far, but for ``missed`` evictions, has been reported. Whether the half is another
        one than before."""
        self.missed = max(self.missed, missed)
        return self.view is not None and self.view.follow(active_half)

    def add(self, sock: socket.socket, query: dict[str, Any], now_ns: int) -> None:
        """A client, with what it wants to see first."""
        if len(self.clients) >= MOST_CLIENTS:
            with sock, contextlib.suppress(OSError):  # it may have gone
                sock.setblocking(False)
                sock.send(encoded(ok=False, error=f"netobs top runs {MOST_CLIENTS} times, which is the most; end one"))
            return
        client = Client(sock, self._loop, self._show, self._on_end, now_ns)
        self.clients.append(client)
        client.ask(query, now_ns)
        self._schedule(now_ns)

    def _on_end(self, client: Client) -> None:
        self.clients.remove(client)
        if client.mark in self.flows.marks:
            self.flows.marks.remove(client.mark)
        if not self.clients:
            self.flows = Flows()  # all of it was for clients that have gone
            self.on_idle()

    def _schedule(self, now_ns: int, again_ns: int = 0) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.clients:
            due_ns = again_ns or min(client.due_ns for client in self.clients)
            self._timer = self._loop.call_at(max(due_ns, now_ns), self._on_due)

    def _on_due(self, now_ns: int) -> None:
        self._timer = None
        if not self._look():
            self._schedule(now_ns, now_ns + POLL_NS)
            return
        now_ns = clock.monotonic_ns()
        for client in [each for each in self.clients if each.due_ns <= now_ns + TOGETHER_NS]:
            if client.mark is None:
                client.mark = Mark(self.flows, now_ns)
                self.flows.marks.append(client.mark)
            else:
                client.mark.see(self.flows, now_ns)
            client.wait(now_ns)
            self._show(client, now_ns)
        self._schedule(now_ns)

    def _look(self) -> bool:
        """Whether all that was counted so far is known now. It is not while an eviction's rows are under way."""
        self._drain()
        rows = None if self.view is None else self.view.read(clock.monotonic_ns())
        if rows is None or self._drain():  # an eviction flipped the halves meanwhile
            return False
        self.flows.set_live(rows_of(rows))
        self._looked_s = clock.read_pair().realtime_ns / clock.NS_PER_S
        return True

    def _show(self, client: Client, _now_ns: int) -> None:
        """What it wants to see of the last look."""
        assert client.mark is not None
        shown = frame(self.flows, client.mark, client.query, self.names)
        more = {"incomplete": self._incomplete() or None, "condition": self.condition}
        client.send(encoded(ok=True, time_s=self._looked_s, **shown, **more))

    def _incomplete(self) -> str:
        """What the numbers lack, in words."""
        lacks = []
        if self.table == "ringbuf":
            lacks.append("there is no flow table (ringbuf): packets show up at evictions")
        if self.view is not None and self.view.is_partial:
            lacks.append("flows of the overflow show up at evictions: the kernel lets only CAP_BPF read them")
        if self.missed:
            lacks.append(f"{self.missed} evictions are missing")
        if self.flows.forgotten:
            lacks.append(f"{self.flows.forgotten} idle flows are not remembered")
        return "; ".join(lacks)
