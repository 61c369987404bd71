"""Flow times of NetFlow v5 and v9: milliseconds of sysUptime, the time since the start of the exporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.encode.columns import COLUMNS, Column, Values
from netobs.flow.records import FlowBatch

if TYPE_CHECKING:
    import numpy.typing as npt

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
MAX_U32 = 0xFFFFFFFF


class Uptime(NamedTuple):
    """sysUptime of an exporter that started at ``boot_ns`` of CLOCK_MONOTONIC, which nobody can set.

    A collector subtracts a flow's time from the sysUptime in the header, and the difference from the header's time of
    day. Steps of the wall clock do not change the differences, and the time of day follows the wall clock. The header
    has a whole second, rounded up, so that no flow ends after it (pmacct and others ignore the difference's sign). All
    times are modulo 2**32 ms (49.7 days).
    """

    boot_ns: int

    def header(self, export_time_s: int, clock_offset_ns: int) -> tuple[int, int]:
        """Seconds since 1970 and sysUptime in ms of a header that is made in the second ``export_time_s``.

        ``clock_offset_ns``: CLOCK_REALTIME minus CLOCK_MONOTONIC. It is rounded, because two readings always differ.
        """
        seconds = export_time_s + 1
        since_ns = seconds * NS_PER_S - clock_offset_ns - self.boot_ns
        return seconds & MAX_U32, (since_ns + NS_PER_MS // 2) // NS_PER_MS & MAX_U32

    def columns(self) -> Mapping[str, Column]:
        """``COLUMNS`` with flowStartSysUpTime and flowEndSysUpTime."""

        def start(batch: FlowBatch) -> Values:
            return self._since_boot(np.minimum(batch.records["first_ns"], batch.records["last_ns"]), batch)

        def end(batch: FlowBatch) -> Values:
            return self._since_boot(batch.records["last_ns"], batch)

        return {**COLUMNS, "flowStartSysUpTime": Column(start), "flowEndSysUpTime": Column(end)}

    def _since_boot(self, monotonic_ns: npt.NDArray[np.uint64], batch: FlowBatch) -> Values:
        """Never later than the clock pair of ``batch``. A flow from before the exporter's start starts with it."""
        until_now = np.minimum(monotonic_ns.astype(np.int64), batch.clock.monotonic_ns)
        since_ms: Values = np.maximum((until_now - self.boot_ns) // NS_PER_MS, 0)
        return since_ms & MAX_U32
