"""One run of the test, as a process of its own: ``main`` prints what came of it as JSON.

The daemon runs here as it runs on a host, its loop sends the traffic meanwhile, and the built-in collector listens on
loopback. Namespaces, links, programs and maps belong to this process only, and go with it, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from netobs.base import child, clock, log
from netobs.base.errors import NetobsError
from netobs.base.loop import Callback, EventLoop
from netobs.collector.receive import Collector
from netobs.collector.received import Record
from netobs.config import Config, from_tables
from netobs.daemon.daemon import Daemon
from netobs.datapath.ledger import LedgerReading
from netobs.selftest.cost import DIRECTIONS, Cost
from netobs.selftest.expected import Expected
from netobs.selftest.site import NEAR, Site
from netobs.selftest.traffic import Traffic
from netobs.selftest.verdict import Check, Outcome, judge

ROUNDS = 3
INTERVAL_NS = 100_000_000
ROUND_NS = 150_000_000
"""From one round to the next: an eviction lies between, so flows are merged in the flow cache."""
STEP_NS = 1_000_000
TCP_WITHIN_NS = ARRIVE_WITHIN_NS = 30 * clock.NS_PER_S
SURPLUS_NS = 20_000_000
"""When all packets were seen: what comes then is too much."""
HOST = "127.0.0.1"
_NAME, _MESSAGE_BYTES = "netobs-selftest", 4096


def configuration(table: str, attach: str, port: int) -> Config:
    """That of the daemon."""
    capture = {"interfaces": [NEAR.name], "flow_table": table, "max_flows": 4096, "attach": attach}
    capture["eviction_interval"] = f"{INTERVAL_NS // 1_000_000}ms"
    collector = {"host": HOST, "port": port, "observation_domain": 1}
    return from_tables({"capture": capture, "collector": [collector]}, "netobs selftest")


class Run:
    """``run`` -> ``checks``, ``records``, ``cost_ns``, ``method``."""

    def __init__(self, table: str, attach: str) -> None:
        """``attach``: auto, tcx or tc."""
        self._table, self._attach = table, attach
        self._expected = Expected()
        self._problems: list[str] = []
        self.checks: list[Check] = []
        self.records: list[Record] = []
        self.method, self.cost_ns = "", dict[str, int]()

    def run(self) -> None:
        """Makes everything, measures, and compares.

        :raises NetobsError: a right or a feature is missing.
        """
        with contextlib.ExitStack() as stack:
            site = Site()
            stack.callback(site.close)
            site.open()
            collector = stack.enter_context(contextlib.closing(Collector(HOST, 0)))
            traffic = stack.enter_context(contextlib.closing(Traffic(site, self._expected)))
            self._cost = stack.enter_context(contextlib.closing(Cost()))
            began_ns = clock.read_pair().realtime_ns
            ledger = self._measure(configuration(self._table, self._attach, collector.port), traffic)
            ended_ns = clock.read_pair().realtime_ns
            while received := [*collector.receive(0)]:
                self.records += [flow for _, decoded in received for flow in decoded.flows]
            outcome = Outcome(self.records, collector.decoder.stats, ledger, site.index, began_ns, ended_ns)
            self.checks = [
                *judge(self._expected, outcome),
                *(Check("traffic", differences=[each]) for each in self._problems),
            ]

    def _measure(self, config: Config, traffic: Traffic) -> LedgerReading:
        """The daemon, from its start to its end; the traffic once it is ready. Its ledger at the end."""
        with EventLoop() as loop, contextlib.closing(_Readiness(loop)) as readiness:
            daemon = Daemon(config, loop)
            steps = self._steps(traffic, daemon)

            def go_on(now_ns: int) -> None:
                pause_ns = next(steps, None)
                if pause_ns is None:
                    daemon.stop(now_ns)
                else:
                    loop.call_at(now_ns + pause_ns, go_on)

            readiness.then = go_on
            try:
                daemon.start()
                loop.run()
                return daemon.datapath.read_ledger()
            finally:
                daemon.close()

    def _steps(self, traffic: Traffic, daemon: Daemon) -> Iterator[int]:
        """Sends everything, then waits until it was seen; each time yields how long to wait, in ns."""
        self.method = daemon.points.method
        programs = {name: daemon.datapath.program_fd(f"netobs_{name}") for name in DIRECTIONS}
        try:
            self.cost_ns = self._cost.measure(programs, self._expected)
            yield ROUND_NS
            for _ in range(ROUNDS):
                for _ in traffic.send_round():
                    yield STEP_NS
                yield ROUND_NS
            is_over = clock.is_over_in(TCP_WITHIN_NS)
            for _ in traffic.converse():
                if is_over():
                    raise OSError(errno.ETIMEDOUT, "TCP: the connections do not come to an end")
                yield STEP_NS
        except OSError as error:
            self._problems.append(f"not all could be sent: {error.strerror}")
        is_over = clock.is_over_in(ARRIVE_WITHIN_NS)
        while daemon.datapath.read_ledger().seen.packets < self._expected.total.packets and not is_over():
            yield STEP_NS
        yield SURPLUS_NS


class _Readiness:
    """The daemon tells it that it is ready, as it tells a service manager (sd_notify(3)); that calls ``then``, once.

    Abstract addresses belong to the network namespace, so that nobody else has this one.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.then: Callback = lambda _now_ns: None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + _NAME)
        os.environ["NOTIFY_SOCKET"] = "@" + _NAME
        loop.add_reader(self._socket.fileno(), self._hear)

    def _hear(self, now_ns: int) -> None:
        if b"READY=1" in self._socket.recv(_MESSAGE_BYTES).split(b"\n"):
            then, self.then = self.then, lambda _now_ns: None
            then(now_ns)

    def close(self) -> None:
        """Gives the address up."""
        self._loop.remove(self._socket.fileno())
        self._socket.close()


def main() -> None:
    """``TABLE ATTACH``, as in [capture]: prints a JSON object, with "error" alone if the test cannot be done."""
    child.end_with_parent()
    child.set_name("netobs-selftest")
    log.set_up("error")
    table, attach = sys.argv[1:]
    run = Run(table, attach)
    result: dict[str, Any]
    try:
        run.run()
        result = {"table": table, "method": run.method, "cost_ns": run.cost_ns}
        result.update(checks=[check.as_json() for check in run.checks], flows=run.records)
    except NetobsError as error:
        result = {"error": str(error)}
    json.dump(result, sys.stdout)
