"""The common part of UDP and TCP: resolving the collector, retries, and the interface to the session."""

from __future__ import annotations

import enum
import logging
import os
import socket
from typing import TYPE_CHECKING, NamedTuple, Protocol

from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop, Timer
from netobs.export.keeping import KeptSocket
from netobs.export.link.address import Address, resolve_for_loop, source_address
from netobs.export.sink import Event, Reach, Trouble
from netobs.export.stats import ExportStats
from netobs.flow.records import MessageBlock

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

log = logging.getLogger("netobs.export")

FIRST_RETRY_NS = NS_PER_S
"""The first pause after a failed attempt; each further one doubles it, up to ``reconnect_max_ns``.

RFC 7011, section 10.4.4 allows at most one connection per minute by default. We deliberately retry sooner in the first
minute: a collector that restarts is back within seconds, and flows that overflow the queue until then are lost.
"""

AGAIN_NS = 60 * NS_PER_S
"""An unreachable collector is logged again after this time."""


class State(enum.Enum):
    """Why a ``push`` ended."""

    DONE = enum.auto()  # the whole block is processed
    BLOCKED = enum.auto()  # the socket accepts no more now; ``on_writable`` follows
    TOO_LARGE = enum.auto()  # the next Message exceeds the path MTU
    BROKEN = enum.auto()  # the connection is lost
    FAILED = enum.auto()  # some Messages could not be sent: the rest may follow at once


class Failure(NamedTuple):
    """The Messages ``start`` to ``stop`` of a block could not be sent."""

    start: int
    stop: int
    reason: str


class Progress(NamedTuple):
    """The Messages before ``done`` are processed: all sent except ``failures``."""

    done: int
    state: State
    failures: tuple[Failure, ...] = ()
    reason: str = ""


class Owner(Protocol):
    """A link's calls to its Transport Session."""

    def holds(self, reach: Reach) -> bool:
        """Whether Data Records are held back while the collector has this reach."""

    def on_up(self, now_ns: int) -> None:
        """A new Transport Session exists: nothing was sent in it yet."""

    def on_down(self, now_ns: int) -> None:
        """The Transport Session is over. Partly sent Messages go into the next one."""

    def on_writable(self, now_ns: int) -> None:
        """A blocked socket accepts Messages again."""

    def on_suspect(self, now_ns: int) -> None:
        """The collector seems to refuse Messages. May be called within ``push``."""

    def on_recovered(self, now_ns: int) -> None:
        """A collector that refused Messages accepts them again."""

    def on_unreachable(self, now_ns: int) -> None:
        """No address works now; the link retries later."""


class Link:
    """The path to one collector. Subclasses define a connection."""

    def __init__(self, config: CollectorConfig, loop: EventLoop, owner: Owner, stats: ExportStats) -> None:
        self.config = config
        self.stats = stats
        self.kept: KeptSocket | None = None
        """What outlives the process, if anything does; set before ``open``."""
        self.last_error: Trouble | None = None
        self.reach_since_ns = loop.read_clock()
        self._reach = Reach.CONNECTING
        self._loop = loop
        self._owner = owner
        self._address: Address | None = None
        self._sock: socket.socket | None = None
        self._writing = False
        self._attempts = 0
        self._retry_timer: Timer | None = None
        self._resolving = False
        self._said_ns: int | None = None  # time of the last log line that the collector is unreachable
        self._closed = False

    def __str__(self) -> str:
        where = self.where or f"{self.config.host} port {self.config.port}"
        return f'collector "{self.config.name}" ({self.config.transport} {where})'

    @property
    def where(self) -> str | None:
        """The address in use, or tried last; None before the name is resolved."""
        return str(self._address) if self._address else None

    @property
    def reach(self) -> Reach:
        """Whether the collector can be reached, as far as we know."""
        return self._reach

    @property
    def reliable(self) -> bool:
        """Whether the collector's host acknowledges data."""
        return False

    @property
    def udp_socket(self) -> socket.socket | None:
        """The socket, if it has no connection that would end with the process."""
        return None

    def acknowledged(self) -> int:
        """Number of acknowledged Messages of the present Transport Session, or of the last one."""
        return 0

    @property
    def waiting_room(self) -> str:
        """Where flows wait while the collector is down, for the log."""
        return (
            f"the spool {self.config.spool}" if self.config.spool else f"a queue of {self.config.queue_max_bytes} bytes"
        )

    def message_size(self) -> int:
        """The longest Message that this link accepts, in bytes."""
        raise NotImplementedError

    def push(self, block: MessageBlock, index: int, waiting_bytes: int, now_ns: int) -> Progress:
        """Send ``block`` from Message ``index`` on, as much as the socket accepts. Never blocks.

        ``waiting_bytes``: size of the queue for this collector, with ``block``.
        """
        raise NotImplementedError

    def disconnect(self, reason: str, now_ns: int) -> None:
        """The Transport Session broke for ``reason``."""
        raise NotImplementedError

    def open(self, now_ns: int) -> None:
        """Start looking for the collector."""
        self._cancel_retry()
        if not self._resolving:
            self._resolving = True
            resolve_for_loop(self.config, self._loop, self._on_resolved, now_ns)

    def hurry(self, now_ns: int) -> None:
        """The daemon is about to end: retry now instead of after the pause."""
        if self._retry_timer is not None:
            self.open(now_ns)

    def probe(self, now_ns: int) -> None:
        """Find out whether a suspect collector is back, for protocols without Templates to probe with."""

    def wait_writable(self, wanted: bool, now_ns: int) -> None:
        """Sets whether ``on_writable`` is called when the socket accepts Messages."""
        if self._sock is None or wanted == self._writing:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self._sock.fileno(), self._owner.on_writable)
        else:
            self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """Free everything. The kernel still delivers the data that it has accepted."""
        self._closed = True
        self._cancel_retry()
        self._drop_socket()

    def _use(self, addresses: list[Address], now_ns: int) -> None:
        """Try ``addresses``, in order."""
        raise NotImplementedError

    def _on_resolved(self, result: list[Address] | NetobsError, now_ns: int) -> None:
        self._resolving = False
        if self._closed:
            return
        self.stats.attempts += 1
        if isinstance(result, NetobsError):
            self._attempt_failed()
            self._unreachable(str(result), now_ns)
        else:
            self._use(result, now_ns)

    def _note(self, event: Event) -> None:
        before, self._reach = self._reach, self._reach.after(event)
        if before is not self._reach:
            self.reach_since_ns = self._loop.read_clock()

    def _attempt_failed(self) -> None:
        self.stats.failed_attempts += 1
        self._note(Event.FAILED)

    def _unreachable(self, reason: str, now_ns: int) -> None:
        """No address worked: pause, then start again with the name."""
        pause_ns = self._pause_ns()
        self._attempts += 1
        self.last_error = Trouble(reason, now_ns)
        if self._said_ns is None or now_ns - self._said_ns >= AGAIN_NS:
            self._said_ns = now_ns
            log.warning("%s: not reachable: %s; flows wait in %s", self, reason, self.waiting_room)
        self._cancel_retry()
        self._retry_timer = self._loop.call_at(now_ns + pause_ns, self.open)
        self._owner.on_unreachable(now_ns)

    def _pause_ns(self) -> int:
        # Jitter (half to all of the pause), so that the hosts of a site do not return to a collector at the same time.
        longest = min(self.config.reconnect_max_ns, FIRST_RETRY_NS << min(self._attempts, 32))
        return longest * (256 + os.urandom(1)[0]) // 512

    def _new_socket(self, address: Address, kind: int, port: int = 0) -> socket.socket:
        """A non-blocking socket, bound to ``source`` if one is set. Raises OSError."""
        sock = socket.socket(address.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if self.config.source:
                sock.bind(source_address(self.config, port).sockaddr)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f'source "{self.config.source}": {error.strerror}') from error
        return sock

    def _drop_socket(self) -> None:
        if self._sock is not None:
            self._loop.remove(self._sock.fileno())
            self._sock.close()
            self._sock = None
            self._writing = False
            self._note(Event.LOST)

    def _cancel_retry(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
