"""Scrapes of the metrics while evictions and reloads run: how long they take, and how late they make the evictions."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench.text import table
from lab.daemon import Daemon, configuration
from lab.namespaces import Lab, in_namespace
from lab.taps import make_taps
from lab.traffic import Traffic

TITLE = "scrapes of the metrics while evictions and reloads run (ms)"
PORT, COLLECTOR_PORT = 9469, 4739
INTERVAL_S = 0.2
PAUSE_S = 0.02
RATE, FLOWS, LONGEST_S = 20_000, 2_000, 3600
SCRAPES_FOR_A_RELOAD = 100
MANY = 2_000
"""Twice as many as have samples of their own."""
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}


class Arrivals:
    """A UDP collector that notes when Messages come: each eviction sends some at once."""

    def __init__(self, ns: str) -> None:
        with in_namespace(ns):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._sock.bind(("127.0.0.1", COLLECTOR_PORT))
        self._sock.settimeout(INTERVAL_S)
        self._times_s: list[float] = []
        self._ends = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._ends:
            with contextlib.suppress(TimeoutError, socket.timeout):
                self._sock.recv(65536)
                now_s = time.perf_counter()
                # What follows within half an interval belongs to the same eviction.
                if not self._times_s or now_s - self._times_s[-1] > INTERVAL_S / 2:
                    self._times_s.append(now_s)

    def lateness_s(self, from_s: float, to_s: float) -> list[float]:
        """By how much each eviction of that time came later than an interval after the one before."""
        times_s = [at_s for at_s in self._times_s if from_s <= at_s <= to_s]
        return [max(0.0, after - before - INTERVAL_S) for before, after in zip(times_s, times_s[1:])]

    def close(self) -> None:
        self._ends = True
        self._thread.join()
        self._sock.close()


class Scraper:
    """One client, whose connection goes on, as that of Prometheus."""

    def __init__(self, ns: str) -> None:
        with in_namespace(ns):
            sock = socket.create_connection(("127.0.0.1", PORT))
        self._connection = HTTPConnection("127.0.0.1", PORT)
        self._connection.sock = sock
        self.bytes = 0

    def scrape_s(self) -> float:
        """How long one takes."""
        begin_s = time.perf_counter()
        self._connection.request("GET", "/metrics", headers=OPENMETRICS)
        self.bytes = len(self._connection.getresponse().read())
        return time.perf_counter() - begin_s

    def close(self) -> None:
        self._connection.close()


def run(quick: bool) -> list[dict[str, Any]]:
    """A row for each number of interfaces, without scrapes and with them."""
    scrapes = 100 if quick else 1000
    return [row for interfaces in ((1,) if quick else (1, MANY)) for row in _measure(interfaces, scrapes)]


def _measure(interfaces: int, scrapes: int) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        lab, folder = stack.enter_context(Lab()), stack.enter_context(tempfile.TemporaryDirectory())
        near, far = lab.pair()
        make_taps(far.ns, (f"tap{number}" for number in range(interfaces - 1)))
        arrivals = Arrivals(far.ns)
        stack.callback(arrivals.close)
        config = configuration(
            {"interfaces": ["*"], "attach": "tc", "eviction_interval": f"{round(INTERVAL_S * 1000)}ms"},
            {"active_timeout": "0s"},
            metrics={"listen": f"127.0.0.1:{PORT}"},
        )
        daemon = stack.enter_context(Daemon(lab, far.ns, Path(folder), config))
        seconds = scrapes * (PAUSE_S + 0.02)
        traffic = Traffic(flows=FLOWS, packets=RATE * LONGEST_S)
        running = traffic.start(lab, near, rate=RATE)
        stack.callback(running.stop)
        time.sleep(2)
        begin_s = time.perf_counter()
        time.sleep(seconds)
        rows = [{"interfaces": interfaces, "scrapes": 0, "late_s": arrivals.lateness_s(begin_s, time.perf_counter())}]
        scraper = Scraper(far.ns)
        begin_s, took_s = time.perf_counter(), []
        for number in range(scrapes):
            if number % SCRAPES_FOR_A_RELOAD == SCRAPES_FOR_A_RELOAD - 1:
                daemon.process.send_signal(signal.SIGHUP)
            took_s.append(scraper.scrape_s())
            time.sleep(PAUSE_S)
        late_s = arrivals.lateness_s(begin_s, time.perf_counter())
        rows.append({"interfaces": interfaces, "scrapes": scrapes, "bytes": scraper.bytes, "late_s": late_s,
                     "scrape_s": took_s, "reloads": daemon.log.count("reload: done")})  # fmt: skip
        scraper.close()
    return rows


def _ms(values: list[float], part: float) -> str:
    return f"{1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))]:.1f}" if values else "-"


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    head = ("interfaces", "scrapes", "bytes", "reloads", "scrape p50", "p99", "max", "evictions", "late p99", "max")
    return table(
        head,
        [
            (str(row["interfaces"]), str(row["scrapes"]), str(row.get("bytes", "-")), str(row.get("reloads", "-")),
             *(_ms(row.get("scrape_s", []), part) for part in (0.5, 0.99, 1)), str(len(row["late_s"])),
             *(_ms(row["late_s"], part) for part in (0.99, 1)))
            for row in rows
        ],
    )  # fmt: skip
