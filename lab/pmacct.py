"""pmacct's collector, nfacctd, started in a namespace."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.namespaces import Lab
from lab.programs import WAIT_S, Program, wait_until

NFACCTD_COLUMNS = (
    *("src_host", "dst_host", "src_port", "dst_port", "proto", "tos", "tcpflags", "in_iface", "out_iface"),
    *("src_mac", "dst_mac", "vlan", "etype", "timestamp_start", "timestamp_end"),
)


class Nfacctd(Program):
    """pmacct's nfacctd (UDP: NetFlow v5, v9, IPFIX), which prints what it has every second. Reading ends it.

    ``columns`` are pmacct's primitives. ``elements`` are Information Elements that pmacct has no primitive for, as
    name: (id, octets); it prints them as text. ``settings`` are keys of its configuration.
    """

    def __init__(
        self,
        lab: Lab,
        ns: str,
        directory: Path,
        port: int = 4739,
        columns: Sequence[str] = NFACCTD_COLUMNS,
        elements: Mapping[str, tuple[int, int]] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(lab, ns, directory, f"nfacctd-{port}")
        self.port, self.settings = port, settings or {}
        self.output = self.directory / "flows.json"
        self._columns, self._elements = columns, elements or {}
        self._told = False

    def _start(self) -> None:
        primitives = self.directory / "primitives"
        lines = [f"name={name} field_type={number} len={octets} semantics=u_int\n"
                 for name, (number, octets) in self._elements.items()]  # fmt: skip
        primitives.write_text("".join(lines), encoding="ascii")
        settings: dict[str, object] = {
            "daemonize": "false",
            "nfacctd_ip": "127.0.0.1",
            "nfacctd_port": self.port,
            "plugins": "print",
            "print_output": "json",
            "print_output_file": self.output,
            "print_output_file_append": "true",
            "print_refresh_time": "1",
            "timestamps_since_epoch": "true",
            "aggregate_primitives": primitives,
            "aggregate": ", ".join((*self._columns, *self._elements)),
            **self.settings,
        }
        conf = self.directory / "nfacctd.conf"
        conf.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()), encoding="ascii")
        process = self._process = self._run(["nfacctd", "-f", str(conf)])
        # What comes before its plugin is ready is lost.
        ready = "setting object handlers"
        self._ready(process, lambda: ready in self.log and self._bound(process, self.port, "udp"))

    def wait_for(self, count: int) -> None:
        """Until it has printed ``count`` flows. Told to end before, it may print the last one twice as large."""
        wait_until(lambda: len(self._lines()) >= count, f"nfacctd prints {count} flows")

    def end(self) -> None:
        """Tell it to end, which takes it two seconds."""
        if not self._told:
            self.process.send_signal(signal.SIGINT)  # prints the rest
            self._told = True

    def flows(self, count: int) -> list[dict[str, Any]]:
        """All flows, with pmacct's names (``packets``, ``ip_src`` …), when ``count`` have come and it was ended."""
        self.wait_for(count)
        self.end()
        self.process.wait(WAIT_S)
        return [json.loads(line) for line in self._lines()]

    def warnings(self) -> list[str]:
        """What it complains about in its log."""
        return [line for line in self.log.splitlines() if re.match(r"(WARN|ERROR)", line)]

    def _lines(self) -> list[str]:
        return self.output.read_text(encoding="utf-8").split("\n")[:-1] if self.output.exists() else []
