"""Lines in the log about room that runs out before anything is lost: in the spool of a collector, in the flow table."""

from __future__ import annotations

import logging
from collections import deque

from netobs.base.clock import NS_PER_S

log = logging.getLogger("netobs")

HIGH, LOW = 0.8, 0.6
"""A spool fills up from ``HIGH`` of its size on; when it has been emptier than ``LOW``, that is news again."""
OFTEN, OFTEN_NS = 10, 60 * NS_PER_S
"""So many evictions because the table was full, in this time, are worth a line."""
TABLE_AGAIN_NS = 3600 * NS_PER_S
_MIB = 1 << 20


class SpoolWarning:
    """Watches the spool of one collector."""

    def __init__(self) -> None:
        self._said = False

    def see(self, name: str, used_bytes: int | None, most_bytes: int) -> None:
        """Reads the size of its files; None: there is no spool. ``name``: of the collector."""
        part = (used_bytes or 0) / most_bytes
        if part >= HIGH and not self._said:
            self._said = True
            log.warning('collector "%s": the spool fills up: %d of %d MiB; when it is full, its oldest flows are lost: '
                        "check the collector, or raise spool_max", name, (used_bytes or 0) // _MIB,
                        most_bytes // _MIB)  # fmt: skip
        elif part < LOW and self._said:
            self._said = False
            log.info('collector "%s": the spool has room again', name)


class TableWarning:
    """Watches how often the flow table is full before its time."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque(maxlen=OFTEN)
        self._quiet_until_ns = 0

    def full(self, now_ns: int) -> None:
        """It is full once more."""
        self._times_ns.append(now_ns)
        if len(self._times_ns) == OFTEN and now_ns - self._times_ns[0] < OFTEN_NS and now_ns >= self._quiet_until_ns:
            self._quiet_until_ns = now_ns + TABLE_AGAIN_NS
            log.warning("the flow table was full %d times within a minute: this costs CPU time, and loses nothing yet; "
                        "raise capture.max_flows, or shorten eviction_interval", OFTEN)  # fmt: skip
