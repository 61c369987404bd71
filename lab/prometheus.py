"""Prometheus in a namespace: it scrapes what the test names, evaluates rules, and answers queries."""

from __future__ import annotations

import json
import socket
import urllib.parse
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from lab.namespaces import Lab, LabError, in_namespace
from lab.programs import Program

Series = list[tuple[dict[str, str], list[tuple[float, float]]]]
"""Labels of each, and its times with values."""


class Prometheus(Program):
    """Scrapes ``targets`` (addresses by job) each ``interval``, in ``ns``."""

    def __init__(
        self,
        lab: Lab,
        ns: str,
        directory: Path,
        targets: Mapping[str, Sequence[str]],
        rules: Sequence[Path] = (),
        interval: str = "1s",
        port: int = 9090,
    ) -> None:
        super().__init__(lab, ns, directory, "prometheus")
        jobs = [{"job_name": job, "static_configs": [{"targets": [*each]}]} for job, each in targets.items()]
        timing = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
        # What JSON writes, YAML reads the same way.
        config = {"global": timing, "rule_files": [str(path) for path in rules], "scrape_configs": jobs}
        self._config = self.directory / "prometheus.yml"
        self._config.write_text(json.dumps(config), encoding="utf-8")
        self._port = port

    def _start(self) -> None:
        argv = ["prometheus", f"--config.file={self._config}", f"--storage.tsdb.path={self.directory / 'data'}"]
        process = self._process = self._run([*argv, f"--web.listen-address=127.0.0.1:{self._port}"])
        self._ready(process, self._is_ready)

    def _is_ready(self) -> bool:
        return "Server is ready to receive web requests" in self.log

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API. ``LabError`` with its reason for any other."""
        with in_namespace(self.ns):
            sock = socket.create_connection(("127.0.0.1", self._port), 10)
        connection = HTTPConnection("127.0.0.1", self._port)
        connection.sock = sock
        with sock:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
            said = json.loads(connection.getresponse().read())
        if said["status"] != "success":
            raise LabError(f"{path} {parameters}: {said.get('error')}")
        return said["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values now."""
        found = self.ask("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def value(self, expression: str) -> float:
        """The only value now."""
        ((_, value),) = self.query(expression)
        return value

    def query_range(self, expression: str, start_s: float, end_s: float, step_s: float) -> Series:
        """The course of ``expression``."""
        found = self.ask(
            "query_range", query=expression, start=f"{start_s:.3f}", end=f"{end_s:.3f}", step=f"{step_s:g}"
        )
        return [
            (each["metric"], [(float(at), float(value)) for at, value in each["values"]]) for each in found["result"]
        ]

    def problems(self) -> list[str]:
        """What it says of scrapes that failed, and of rules that it could not evaluate."""
        targets = self.ask("targets")["activeTargets"]
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return [each["lastError"] for each in (*targets, *rules) if each.get("lastError")]

    def firing(self) -> list[str]:
        """The names of the alerts that fire or are about to."""
        return sorted({each["labels"]["alertname"] for each in self.ask("alerts")["alerts"]})
