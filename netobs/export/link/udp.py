"""IPFIX over UDP (RFC 7011, section 10.3)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.export.link import udp_socket
from netobs.export.link.address import Address, is_numeric
from netobs.export.link.link import Failure, Link, Owner, Progress, State, log
from netobs.export.link.refusals import Refusals
from netobs.export.link.source_watch import LOCAL_ERRORS, SourceWatch
from netobs.export.sink import Event, Reach, Trouble
from netobs.export.stats import ExportStats
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

if TYPE_CHECKING:
    from netobs.config import CollectorConfig

RECOVERY_NS = NS_PER_S
"""A refusal returns within a round trip. If none does for this long after a send, the collector is back."""
SWITCH_NS = 10 * NS_PER_S
"""After this time of failures, a collector's name is resolved again, and its next address is tried."""
LONGEST_PAUSE_NS = 5 * NS_PER_S
"""Pause between two attempts to open a socket to an address, which involve only this host."""
MIN_MESSAGE_BYTES = 512
"""Messages never get shorter than this, whatever the path MTU (RFC 7011, section 10.3.3)."""

PACE_BYTES = 65_000
PACE_NS = 10_000_000
PACE_TOTAL_NS = 1_500_000_000
"""Most bytes in a burst; the longest pause between two; and the time within which everything that waits leaves.

A collector with the kernel's default receive buffer (212,992 bytes with bookkeeping, about 90 Messages) then receives
an eviction of any usual size, even on a busy host. At full speed it would lose most of it.
"""

_REASONS = {errno.ECONNREFUSED: "refused"}


class UdpLink(Link):
    """One connected socket, whose source port stays for life, because collectors identify an exporter by it.

    When the host's address changes, a new socket with the same port replaces it. That is a new Transport Session,
    because UDP has one for each pair of addresses and ports (RFC 7011, section 2): Templates first, sequence from 0.
    """

    def __init__(self, config: CollectorConfig, loop: EventLoop, owner: Owner, stats: ExportStats) -> None:
        super().__init__(config, loop, owner, stats)
        self.segmentation = True
        """Whether the kernel cuts a batch into datagrams (UDP_SEGMENT); found out when sending."""
        self._port = 0
        self._failing_since_ns = 0
        self._quiet = False  # no error since the send that armed the check
        self._check_timer: Timer | None = None
        self._pace_timer: Timer | None = None
        self._refusals = Refusals(stats)
        self._resume_ns = 0  # when the next burst is due
        self._burst_left = 0
        self._source_watch = SourceWatch(loop, self._choose, self.disconnect)

    def message_size(self) -> int:
        """``max_message_size``, or less if the path MTU that the kernel knows requires it: RFC 7011, section 10.3.3."""
        size = self.config.max_message_size
        if self._sock is not None:
            with contextlib.suppress(OSError):
                size = min(size, max(MIN_MESSAGE_BYTES, udp_socket.path_payload(self._sock)))
        return size

    def push(self, block: MessageBlock, index: int, waiting_bytes: int, now_ns: int) -> Progress:
        failures: list[Failure] = []
        self._note_pending_error(now_ns)
        if self._check_timer is None:
            self._quiet = True
        self._begin_burst(waiting_bytes, now_ns)
        keep_back = self._owner.holds(Reach.SUSPECT) and bool(block.flows.any())
        while index < len(block):
            if self._burst_left <= 0 or (keep_back and self.reach is Reach.SUSPECT):
                return Progress(index, State.BLOCKED, tuple(failures))
            stop = self._batch(block, index)
            tally = Tally.of_messages(block, index, stop)
            code = self._send(block, index, stop, tally, keep_back, now_ns)
            if code in udp_socket.NO_GSO and stop - index > 1:
                # Which of the two is at fault, the batch or its Messages? One Message alone tells.
                first, stop = code, index + 1
                tally = Tally.of_messages(block, index, stop)
                code = self._send(block, index, stop, tally, keep_back, now_ns)
                if code == 0 and first != errno.EMSGSIZE:
                    self._stop_segmentation(first)
            if code == errno.EAGAIN or (keep_back and self.reach is Reach.SUSPECT):
                return Progress(index, State.BLOCKED, tuple(failures))
            if code in LOCAL_ERRORS:
                return Progress(index, State.BROKEN, tuple(failures), os.strerror(code))
            if code == errno.EMSGSIZE:
                return Progress(index, State.TOO_LARGE, tuple(failures))
            if code == 0:
                self._attempts = 0
                self._refusals.sent(tally, now_ns)
            else:
                failures.append(Failure(index, stop, _REASONS.get(code) or errno.errorcode.get(code, str(code))))
                if self.kept is not None:  # the account must know of it before anything else is sent
                    return Progress(stop, State.FAILED if stop < len(block) else State.DONE, tuple(failures))
            self._spend(block.end(stop) - block.end(index), int(block.sizes[index]))
            index = stop
        if self.reach is Reach.SUSPECT and not failures and self._check_timer is None:
            self._check_timer = self._loop.call_at(now_ns + RECOVERY_NS, self._check)
        return Progress(index, State.DONE, tuple(failures))

    def _begin_burst(self, waiting_bytes: int, now_ns: int) -> None:
        in_haste = waiting_bytes > self.config.queue_max_bytes // 2
        if in_haste or self.reach is Reach.SUSPECT:  # templates and what they describe must not be torn apart then
            self._burst_left = sys.maxsize
        elif now_ns >= self._resume_ns:
            self._burst_left = PACE_BYTES
            bursts = max(1, waiting_bytes // PACE_BYTES)
            self._resume_ns = now_ns + min(PACE_NS, PACE_TOTAL_NS // bursts)

    def _spend(self, sent_bytes: int, message_bytes: int) -> None:
        """Room in a burst that is shorter than a Message is not worth a call."""
        left = self._burst_left - sent_bytes
        self._burst_left = left if left >= message_bytes else 0

    def wait_writable(self, wanted: bool, now_ns: int) -> None:
        """Waits with a timer for the next paced burst, or with the socket for a full buffer."""
        if self._pace_timer is not None:
            self._pace_timer.cancel()
            self._pace_timer = None
        if wanted and self._burst_left <= 0:
            super().wait_writable(False, now_ns)
            self._pace_timer = self._loop.call_at(self._resume_ns, self._owner.on_writable)
        else:
            super().wait_writable(wanted, now_ns)

    def probe(self, now_ns: int) -> None:
        """Probes with an empty datagram: if nobody listens, it is refused like any other."""
        self._note_pending_error(now_ns)
        if self._check_timer is None:
            self._quiet = True
            self._check_timer = self._loop.call_at(now_ns + RECOVERY_NS, self._check)
        code = udp_socket.send(self._sock, memoryview(b""), 0) if self._sock is not None else errno.ENOTCONN
        if code in LOCAL_ERRORS:
            self.disconnect(os.strerror(code), now_ns)
        elif code not in (0, errno.EAGAIN):
            self._note_error(code, now_ns)

    def disconnect(self, reason: str, now_ns: int) -> None:
        """This host can no longer send from the socket's address: the next socket gets the present address."""
        if self._sock is None:
            return
        log.warning("%s: no path from %s any more: %s; flows wait in %s", self, self._sock.getsockname()[0], reason,
                    self.waiting_room)  # fmt: skip
        self.last_error = Trouble(f"no path from {self._sock.getsockname()[0]} any more: {reason}", now_ns)
        self._owner.on_down(now_ns)
        self._drop_socket()
        self._said_ns = now_ns
        if self._attempts:  # nothing was sent since the last time
            self._unreachable(reason, now_ns)
        else:
            self._attempts = 1
            self._cancel_retry()
            self._retry_timer = self._loop.call_at(now_ns, self._reopen)

    def _reopen(self, now_ns: int) -> None:
        self._retry_timer = None
        assert self._address is not None
        self._use([self._address], now_ns)

    def _use(self, addresses: list[Address], now_ns: int) -> None:
        if self.reach.is_open:
            if addresses == [self._address]:
                return  # no other one to try
            self._owner.on_down(now_ns)
            self._drop_socket()
        # The address after the one that failed comes first.
        at = addresses.index(self._address) + 1 if self._address in addresses else 0
        reason = ""
        for address in addresses[at:] + addresses[:at]:
            try:
                self._sock = self._connect(address)
            except OSError as error:
                self._attempt_failed()
                reason = f"{address}: {error.strerror}"
                continue
            self._begin(self._sock, address, now_ns)
            return
        self._unreachable(reason, now_ns)

    def _begin(self, sock: socket.socket, address: Address, now_ns: int) -> None:
        self.stats.reconnects += self._port != 0
        self._address = address
        self._port = sock.getsockname()[1]
        self._said_ns = None
        self._note(Event.OPENED)
        self._loop.add_reader(sock.fileno(), self._on_readable)
        log.info("%s: sends from %s port %d", self, *sock.getsockname()[:2])
        self._source_watch.start(now_ns)
        self._owner.on_up(now_ns)

    def _drop_socket(self) -> None:
        if self._sock is not None and self._pending_error():
            self._refusals.answered(0)
        self._refusals.closed()
        super()._drop_socket()
        self._source_watch.stop()
        for timer in (self._check_timer, self._pace_timer):
            if timer is not None:
                timer.cancel()
        self._check_timer = self._pace_timer = None

    def _pause_ns(self) -> int:
        return min(LONGEST_PAUSE_NS, super()._pause_ns()) if is_numeric(self.config.host) else super()._pause_ns()

    def _choose(self) -> str:
        assert self._address is not None
        return str(self._ends(self._address)[0][0])

    def _ends(self, address: Address) -> tuple[Any, Any]:
        """The address that a new socket for ``address`` sends from, and that of its peer. Raises OSError."""
        with self._new_socket(address, socket.SOCK_DGRAM) as sock:
            sock.connect(address.sockaddr)
            return sock.getsockname(), sock.getpeername()

    @property
    def udp_socket(self) -> socket.socket | None:
        return self._sock

    def _connect(self, address: Address) -> socket.socket:
        sock = self._former_socket(address) or self._bound_socket(address)
        try:
            if not udp_socket.connect(sock, address):
                self.segmentation = False
        except OSError:
            sock.close()
            raise
        return sock

    def _bound_socket(self, address: Address) -> socket.socket:
        """A socket with the port that the collector knows us by, unless another socket has it now. Raises OSError."""
        port = self._port or (self.kept.port if self.kept is not None else 0)
        if self.config.source and not self._port:
            with contextlib.suppress(OSError):
                return self._new_socket(address, socket.SOCK_DGRAM, port)
            port = 0
        sock = self._new_socket(address, socket.SOCK_DGRAM, port)
        if port and not self.config.source:
            with contextlib.suppress(OSError):
                sock.bind(("", port))
        return sock

    def _former_socket(self, address: Address) -> socket.socket | None:
        """The socket of the former process, if this one would get the same: address, port, and peer."""
        sock = self.kept.former_socket() if self.kept is not None and not self._port else None
        if sock is None:
            return None
        with contextlib.suppress(OSError):
            own, peer = self._ends(address)
            if (sock.getsockname()[0], sock.getpeername()) == (own[0], peer):
                return sock
        sock.close()
        return None

    def _batch(self, block: MessageBlock, index: int) -> int:
        """The end of the Messages from ``index`` on that go in one call."""
        if not self.segmentation:
            return index + 1
        most = max(1, min(udp_socket.MAX_BATCH_BYTES, self._burst_left) // int(block.sizes[index]))
        return block.run(index, min(len(block), index + min(udp_socket.MAX_SEGMENTS, most)))

    def _send(self, block: MessageBlock, start: int, stop: int, tally: Tally, keep_back: bool, now_ns: int) -> int:
        """Send the Messages ``start`` to ``stop`` in one call; return 0 or the errno. All of them are sent or none."""
        code = self._send_once(block, start, stop, tally)
        if code not in (0, errno.EAGAIN):
            # The error may belong to an earlier datagram: the kernel reports an ICMP error instead of sending this one.
            if code == errno.ECONNREFUSED:
                self.stats.refused += 1
                self._note_error(code, now_ns, answer=True)
                if keep_back:
                    return code
            first, code = code, self._send_once(block, start, stop, tally)
            if first not in (code, errno.ECONNREFUSED, *udp_socket.NO_GSO):
                self._note_error(first, now_ns, answer=True)
        batch_at_fault = stop - start > 1 and code in udp_socket.NO_GSO
        if code not in (0, errno.EAGAIN, errno.EMSGSIZE, *LOCAL_ERRORS) and not batch_at_fault:
            self._note_error(code, now_ns)
        return code

    def _send_once(self, block: MessageBlock, start: int, stop: int, tally: Tally) -> int:
        """``tally``: what the Messages carry, for what outlives the process."""
        if self._sock is None:
            return errno.ENOTCONN
        if self.kept is not None:
            return self.kept.send(self._sock, block, start, stop, tally)
        return udp_socket.send(self._sock, block.span(start, stop), int(block.sizes[start]))

    def _stop_segmentation(self, code: int) -> None:
        self.segmentation = False
        log.info("%s: no UDP segmentation on this path (%s): one call per Message", self, os.strerror(code))

    def _on_readable(self, now_ns: int) -> None:
        """Handles a pending error, or datagrams from the collector, which are ignored."""
        self._note_pending_error(now_ns)
        try:
            for _ in range(16):
                if self._sock is not None:
                    self._sock.recv(1)
        except BlockingIOError:
            pass
        except OSError as error:
            self.stats.refused += error.errno == errno.ECONNREFUSED
            self._note_error(error.errno or errno.EIO, now_ns, answer=True)

    def _note_pending_error(self, now_ns: int) -> None:
        """The ICMP error of earlier datagrams, so that it is not attributed to a later send."""
        code = self._pending_error()
        if code:
            self._note_error(code, now_ns, answer=True)

    def _pending_error(self) -> int:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self._sock is not None else 0
        self.stats.refused += code == errno.ECONNREFUSED
        return 0 if code == errno.EMSGSIZE else code  # news about the path MTU: ``message_size`` asks for it

    def _note_error(self, code: int, now_ns: int, answer: bool = False) -> None:
        """``answer``: the error came by ICMP, and belongs to earlier Messages."""
        if answer:
            self._refusals.answered(now_ns)
        self._quiet = False
        what = "nothing listens there" if code == errno.ECONNREFUSED else f"cannot send: {os.strerror(code)}"
        self.last_error = Trouble(what, now_ns)
        if self.reach is Reach.UP:
            self._note(Event.REFUSED)
            self._failing_since_ns = now_ns
            holds = self._owner.holds(Reach.SUSPECT)
            fate = f"flows wait in {self.waiting_room}" if holds else "Messages are sent on and counted"
            log.warning("%s: %s; %s", self, what, fate)
            self._owner.on_suspect(now_ns)

    def _check(self, now_ns: int) -> None:
        self._check_timer = None
        if self._quiet:
            self._note(Event.CLEARED)
            self._refusals.cleared()
            log.info("%s: takes Messages again", self)
            self._owner.on_recovered(now_ns)
        elif now_ns - self._failing_since_ns >= SWITCH_NS and not is_numeric(self.config.host):
            self._failing_since_ns = now_ns
            self.open(now_ns)
