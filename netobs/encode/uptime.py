"""Flow times of NetFlow v5 and v9: milliseconds of sysUptime, the time since the exporter began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from netobs.encode.columns import COLUMNS, Column, Fill, Values
from netobs.records import FlowBatch

MS_PER_S = 1_000
MAX_U32 = 0xFFFFFFFF


class Uptime(NamedTuple):
    """sysUptime of an exporter that began at ``boot_s``, whole seconds since 1970.

    A collector takes the difference of a flow's time and the sysUptime in the header, and counts from the header's
    time of day. So both come from one clock, and the header is of a whole second, rounded up: no flow ends after it
    (pmacct and others take the difference without a sign). All are modulo 2**32 ms (49.7 days).
    """

    boot_s: int

    def header(self, export_time_s: int) -> tuple[int, int]:
        """Seconds since 1970 and sysUptime in ms of a header that is made in the second ``export_time_s``."""
        seconds = export_time_s + 1
        return seconds & MAX_U32, (seconds - self.boot_s) * MS_PER_S & MAX_U32

    def columns(self) -> Mapping[str, Column]:
        """``COLUMNS`` with flowStartSysUpTime and flowEndSysUpTime."""
        return {
            **COLUMNS,
            "flowStartSysUpTime": Column(self._since_boot("flowStartMilliseconds")),
            "flowEndSysUpTime": Column(self._since_boot("flowEndMilliseconds")),
        }

    def _since_boot(self, element: str) -> Fill:
        wall_ms = COLUMNS[element].values

        def values(batch: FlowBatch) -> Values:
            """A flow that began before the exporter (the clock was set) began with it."""
            since_ms: Values = np.maximum(wall_ms(batch) - self.boot_s * MS_PER_S, 0)
            return since_ms & MAX_U32

        return values
