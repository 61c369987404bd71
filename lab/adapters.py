"""Decoders of PyPI and npm as child processes, and the built-in collector: each prints JSON lines, read at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import pytest

from lab.namespaces import Lab, LabError
from lab.programs import WAIT_S, Program, sockets_at, wait_until
from lab.traffic import REPOSITORY

FOLDER = Path(__file__).parent / "decoders"
INTEROP = REPOSITORY / "build" / "interop"
"""Where ``make interop`` puts them."""
NODE = "node"
"""node-netflowv9, which is no Python."""


def is_installed(decoder: str) -> bool:
    """Whether ``make interop`` has installed it: netflume, for one, needs Python 3.11."""
    place = "node_modules/node-netflowv9" if decoder == NODE else f"lib/python3*/site-packages/{decoder}"
    return any(INTEROP.glob(place))


def missing(item: pytest.Item) -> str:
    """The programs and the decoders that the markers of a test name and this machine does not have; "" if none."""
    tools, decoders = _needed(item, "tools", shutil.which), _needed(item, "decoders", is_installed)
    said = [f"missing programs: {', '.join(tools)}"] if tools else []
    return "; ".join([*said, *([f"make interop has not installed: {', '.join(decoders)}"] if decoders else [])])


def _needed(item: pytest.Item, kind: str, has: Callable[[str], object]) -> list[str]:
    return sorted({tool for mark in item.iter_markers() for tool in mark.kwargs.get(kind, ()) if not has(tool)})


class Adapter(Program):
    """The decoder ``name`` at ``places`` ("udp:PORT", "tcp:PORT"). Reading ends it."""

    def __init__(self, lab: Lab, ns: str, directory: Path, name: str, places: Sequence[str]) -> None:
        super().__init__(lab, ns, directory, name)
        self.name, self.places = name, [(place[:3], int(place[4:])) for place in places]
        self.output = self.directory / "output"

    def _start(self) -> None:
        places = [f"{transport}:{port}" for transport, port in self.places]
        if self.name == NODE:
            argv = ["env", f"NODE_PATH={INTEROP / 'node_modules'}", "node", str(FOLDER / "receive.js"), *places]
        else:
            argv = [str(INTEROP / "bin" / "python"), str(FOLDER / "receive.py"), self.name, *places]
        with self.output.open("wb") as output:
            process = self._process = self._run(argv, stdin=subprocess.PIPE, stdout=output)
        self._ready(process, lambda: all(self._bound(process, port, transport) for transport, port in self.places))

    def lines(self) -> dict[int, list[dict[str, Any]]]:
        """What it printed, by port, after it has read all that has arrived."""
        process = self.process
        if process.stdin and not process.stdin.closed:
            wait_until(self._has_read_all, f"{self.name} reads its sockets empty")
            process.stdin.close()
        if process.wait(WAIT_S):
            raise LabError(f"{self.name} ended with {process.returncode}: {self.log.strip()}")
        found: dict[int, list[dict[str, Any]]] = {port: [] for _, port in self.places}
        for line in self.output.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            found[said.pop("port")].append(said)
        return found

    def _has_read_all(self) -> bool:
        states = [state for transport, port in self.places for state in sockets_at(self.ns, port, transport)]
        return not any(state.waiting_bytes for state in states)


class Listen(Program):
    """``netobs listen --json`` at ``port``, UDP and TCP."""

    def __init__(self, lab: Lab, ns: str, directory: Path, port: int) -> None:
        super().__init__(lab, ns, directory, "listen")
        self.port = port
        self.output = self.directory / "output"

    def _start(self) -> None:
        argv = [sys.executable, "-m", "netobs", "listen", "--json", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.output.open("wb") as output:
            process = self._process = self._run(argv, stdout=output, cwd=REPOSITORY)
        self._ready(process, lambda: self._bound(process, self.port, "tcp"))

    def flows(self, count: int) -> list[dict[str, Any]]:
        """The flows, with IANA's names, when ``count`` have come."""
        wait_until(lambda: len(self._lines()) >= count, f"netobs listen prints {count} flows")
        return [json.loads(line) for line in self._lines()]

    def _lines(self) -> list[str]:
        return self.output.read_text(encoding="utf-8").split("\n")[:-1]
