"""The metrics, for Prometheus by HTTP, and for node_exporter in a file. Imported only where one is configured."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, TypeVar

from netobs.base import background, http
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import Timer
from netobs.base.serving import Connection, Limits, Server, Service
from netobs.config import MetricsConfig, loader
from netobs.daemon import textfile
from netobs.daemon.compared import compared
from netobs.daemon.flow_rates import FlowRates
from netobs.daemon.interface_metrics import InterfaceMetrics
from netobs.daemon.openmetrics import (
    OPENMETRICS_TYPE,
    PROCESS,
    SINGLES,
    TEXT_TYPE,
    families,
    text,
)
from netobs.daemon.state import Listing, Snapshot
from netobs.daemon.textfile import Textfile
from netobs.kernel import listening

if TYPE_CHECKING:
    from netobs.daemon.daemon import Daemon

log = logging.getLogger("netobs")
Rendered = TypeVar("Rendered")

KEY = "metrics.listen"
PATH = "/metrics"
LIMITS = Limits(connections=8, request_bytes=8192, answer_bytes=8 << 20, idle_ns=120 * NS_PER_S)
"""Prometheus keeps its connection from one scrape to the next."""
RETRY_NS = 30 * NS_PER_S
"""How long it waits before it tries again to listen at an address that another program has."""
FILE_FRESH_NS = 10 * NS_PER_S
"""How long it is believed whether the configuration file has changed."""


def problems(config: MetricsConfig, present: MetricsConfig | None = None) -> Iterator[str]:
    """What keeps ``config`` from taking effect: at the next start, or now, where ``present`` is in force. May block."""
    try:
        if config.listen.host and present is None:
            listening.check(KEY, config.listen)
        elif present is not None and config.listen not in (present.listen, MetricsConfig.listen):
            for sock in listening.listening_sockets(KEY, config.listen):
                sock.close()
    except NetobsError as error:
        yield str(error)
    try:
        if config.textfile:
            textfile.check(config.textfile)
    except NetobsError as error:
        yield str(error)


def understood(data: bytes) -> http.Request | bytes:
    """The request in ``data``, if it is one for the metrics, else the response that ends the connection."""
    try:
        request = http.parse(data)
    except http.BadRequest as error:
        return http.refusal(error.status, str(error))
    if request.path != PATH:
        return http.refusal(404, f"the metrics are at {PATH}")
    return request if request.method in ("GET", "HEAD") else http.refusal(405, "use GET")


def response(request: http.Request, page: Callable[[bool], str]) -> bytes:
    """The answer to ``request``. ``page``: the metrics, as OpenMetrics if it is given true."""
    openmetrics = http.accepts(request.fields.get("accept", ""), "application/openmetrics-text")
    body, kind = page(openmetrics).encode(), OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
    return http.response(200, body, kind, request.keeps, request.method == "HEAD")


class Metrics:
    """``apply`` a configuration -> serves from the loop, writes the file -> ``close``. ``count`` gets each batch of
    flows that is exported."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._loop = daemon, daemon.loop
        self._config = MetricsConfig()
        self._rates, self._interfaces, self._listing = FlowRates(), InterfaceMetrics(), Listing()
        self.count = self._rates.add
        self._server: Server | None = None
        self._retry: Timer | None = None
        self._file: Textfile | None = None
        self._is_newer: bool | None = None
        self._ask_from_ns = 0

    def apply(self, config: MetricsConfig, now_ns: int) -> None:
        """Puts ``config`` into force. What keeps it from that is logged, and tried again."""
        before, self._config = self._config, config
        if config.listen != before.listen:
            self._stop_listening()
            self._listen(now_ns)
        if config.textfile != before.textfile:
            self._stop_writing()
            if config.textfile:
                self._file = Textfile(config.textfile, self._make_file, self._interval_ns, self._loop, now_ns)

    def close(self) -> None:
        """Ends all connections. The file stays."""
        self._stop_listening()
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _stop_listening(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._server is not None:
            self._server.close()
        self._retry = self._server = None

    def _listen(self, now_ns: int) -> None:
        if not self._config.listen.host:
            return
        try:
            sockets = listening.listening_sockets(KEY, self._config.listen)
        except NetobsError as error:
            if self._retry is None:
                log.error("%s; there are no metrics until then, and flows are measured without them", error)
            self._retry = self._loop.call_at(now_ns + RETRY_NS, self._listen)
            return
        log.info("metrics: listening on %s", self._config.listen)
        self._retry = None
        busy, too_long = http.refusal(503, "too many connections"), http.refusal(431, "the request is too long")
        self._server = Server(self._loop, sockets, Service("metrics", http.cut, self._answer, busy, too_long), LIMITS)

    def _answer(self, connection: Connection, data: bytes, now_ns: int) -> None:
        request = understood(data)
        if isinstance(request, bytes):
            connection.answer(request, now_ns, close=True)
            return

        def prepare(later_ns: int) -> Callable[[], bytes]:
            return self._with_page(lambda page: response(request, page), later_ns)

        def done(said: bytes | NetobsError, later_ns: int) -> None:
            if isinstance(said, bytes) and len(said) <= LIMITS.answer_bytes:
                connection.answer(said, later_ns, close=not request.keeps)
                return
            why = f"the metrics have {len(said)} bytes, which is too much" if isinstance(said, bytes) else str(said)
            connection.answer(http.refusal(503, why), later_ns, close=True)

        self._daemon.control.in_turn.run(prepare, done, now_ns)

    def _with_page(
        self, render: Callable[[Callable[[bool], str]], Rendered], now_ns: int, process: bool = True
    ) -> Callable[[], Rendered]:
        """What ``render`` makes of the page of all metrics of now, for a thread by ``Control.in_turn``. ``process``:
        with those that each program has."""
        self._look_at_configuration(now_ns)
        if self._daemon.config.packet_capture.enabled:
            self._daemon.packets.ask_state()  # for the next time
        is_newer, rates = self._is_newer, [*self._rates.families()]
        singles = SINGLES + PROCESS if process else SINGLES

        def of(taken: Snapshot) -> Rendered:
            tree = {**taken.tree, "configuration": {**taken.tree["configuration"], "is_newer": is_newer}}
            hooks = self._listing.hooks(taken)

            def page(openmetrics: bool) -> str:
                of_interfaces = self._interfaces.families(hooks, compared(taken.comparison))
                return text([*families(tree, of_interfaces, singles), *rates], openmetrics)

            return render(page)

        return self._daemon.control.with_snapshot(of)

    def _make_file(self, then: Callable[[bytes | NetobsError, int], None], now_ns: int) -> None:
        def prepare(later_ns: int) -> Callable[[], bytes]:
            return self._with_page(lambda page: page(False).encode(), later_ns, process=False)

        self._daemon.control.in_turn.run(prepare, then, now_ns)

    def _interval_ns(self) -> int:
        return self._daemon.config.capture.eviction_interval_ns

    def _look_at_configuration(self, now_ns: int) -> None:
        """Finds out for the next scrapes whether the file has changed; a slow disk holds up none."""
        if now_ns < self._ask_from_ns:
            return
        self._ask_from_ns = now_ns + FILE_FRESH_NS
        path, known = self._daemon.config.path, self._daemon.config.checksum

        def ask() -> bool | None:
            try:
                return loader.checksum(path) != known
            except (OSError, ValueError):
                return None

        background.run(self._loop, "metrics", ask, self._on_configuration)

    def _on_configuration(self, result: bool | NetobsError | None, _now_ns: int) -> None:
        self._is_newer = None if isinstance(result, NetobsError) else result
