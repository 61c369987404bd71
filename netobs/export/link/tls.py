"""IPFIX over TLS (RFC 7011, sections 10.4 and 11): TLS on the connection of tcp.py, both sides verified.

``ssl`` is imported when it is needed: a daemon without a TLS collector does not pay for it with memory.
"""

from __future__ import annotations

import contextlib
import errno
import functools
from typing import TYPE_CHECKING

from netobs.base import background, tls
from netobs.base.clock import NS_PER_S
from netobs.base.errors import ExportError, NetobsError
from netobs.base.loop import EventLoop
from netobs.export.link.link import Owner
from netobs.export.link.tcp import TcpLink
from netobs.export.stats import ExportStats
from netobs.flow.records import MessageBlock

if TYPE_CHECKING:
    import ssl

    from netobs.config import CollectorConfig

CONFIRM_NS = NS_PER_S
"""How long a collector has to refuse after the handshake.

With TLS 1.3 the handshake is over for us before the collector has checked our certificate. If it refuses, data sent
until then would be lost (RFC 8446, section 4.4.2.4 and appendix A.1). The first session ticket confirms acceptance; a
collector that sends none gets this time.
"""

_MOST_UNSENT_BYTES = 4 * tls.RECORD_BYTES
"""The most encrypted bytes that wait for the kernel: a record with its Message, and answers to key updates."""
_CERTIFICATE_ALERTS = ("certificate", "unknown ca", "access denied", "handshake failure")


class TlsLink(TcpLink):
    """A TLS connection that reconnects. A flow counts as sent when the kernel has all of its encrypted Message.

    OpenSSL gets the collector's data in pieces, and never the socket. With the socket, it would read on as long as
    session tickets come (SSL_MODE_AUTO_RETRY, which Python sets), and a collector that floods us with them would hold
    the loop.
    """

    _reads = 2

    def __init__(self, config: CollectorConfig, loop: EventLoop, owner: Owner, stats: ExportStats) -> None:
        super().__init__(config, loop, owner, stats)
        self._tls: ssl.SSLObject | None = None
        self._forget_stream()

    def _drop_socket(self) -> None:
        super()._drop_socket()
        self._tls = None
        self._forget_stream()

    def _forget_stream(self) -> None:
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._unsent = b""  # encrypted, and not accepted by the kernel
        self._encrypted = 0  # bytes of the present block that are in it

    def _on_connected(self, now_ns: int) -> None:
        """Each connection reads the files again, because certificates get renewed. A thread does this: the authorities
        of a system take 0.2 s, and a disk may hang."""
        if self._sock is None:
            return
        sock = self._sock
        self._loop.remove(sock.fileno())

        def ready(context: ssl.SSLContext | NetobsError, later_ns: int) -> None:
            if self._sock is not sock:
                return  # the connection is gone meanwhile
            if isinstance(context, NetobsError):
                self._fail(str(context), later_ns)
            else:
                self._begin_tls(context, later_ns)

        background.run(self._loop, "tls", functools.partial(client_context, self.config), ready)

    def _begin_tls(self, context: ssl.SSLContext, now_ns: int) -> None:
        import ssl

        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name(self.config))
        except (OSError, ValueError) as error:
            self._fail(str(error), now_ns)
            return
        self._handshake(now_ns)

    def _handshake(self, now_ns: int) -> None:
        """One step; the loop calls again when the next one is possible."""
        import ssl

        if self._sock is None or self._tls is None:
            return
        fd, done = self._sock.fileno(), False
        self._loop.remove(fd)
        try:
            with contextlib.suppress(BlockingIOError):
                self._receive()
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                done = True
            self._flush()
        except BlockingIOError:
            self._loop.add_writer(fd, self._handshake)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._flush()  # the alert
            self._fail(self._reason(error), now_ns)
        else:
            if done:
                self._on_handshake(now_ns)
            else:
                self._loop.add_reader(fd, self._handshake)

    def _on_handshake(self, now_ns: int) -> None:
        if self._sock is None or self._tls is None:
            return
        if self._tls.version() != "TLSv1.3":  # earlier: the collector verifies us before the handshake ends
            self._begin_session(now_ns)
            return
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        self._connect_timer = self._loop.call_at(now_ns + CONFIRM_NS, self._begin_session)
        self._loop.add_reader(self._sock.fileno(), self._on_answer)
        self._on_answer(now_ns)

    def _on_answer(self, now_ns: int) -> None:
        """The collector's verdict on our certificate may have come."""
        reason = self._read_all()
        if reason:
            self._fail(f"{reason}, after the TLS handshake", now_ns)
        elif self._tls is not None and self._tls.session is not None and self._tls.session.has_ticket:
            self._begin_session(now_ns)

    def _on_connect_timeout(self, now_ns: int) -> None:
        self._fail("no answer" if self._tls is None else "no answer in the TLS handshake", now_ns)

    def _stop(self, block: MessageBlock) -> int:
        # A record each, so that push repeats a blocked write with the same data; and no record has parts of two
        # Messages: a Message has arrived when the record with its end has.
        end = int(block.ends[block.ends.searchsorted(self._offset, side="right")])
        return min(end, self._offset + tls.RECORD_BYTES)

    def _write(self, data: memoryview) -> int:
        assert self._tls is not None
        if not self._encrypted:  # else a write has blocked, and push comes with the same data
            self._encrypted = self._tls.write(data)
        self._flush()
        written, self._encrypted = self._encrypted, 0
        return written

    def _read(self) -> bytes:
        import ssl

        assert self._tls is not None
        data = self._receive()
        try:
            while self._tls.read(tls.RECORD_BYTES):  # as far as ``data`` goes
                pass
        except ssl.SSLWantReadError:
            with contextlib.suppress(BlockingIOError):
                self._flush()  # answers to key updates
            return data
        except ssl.SSLEOFError:
            pass
        return b""

    def _receive(self) -> bytes:
        """Give OpenSSL the received data, at most a record's length. Raises like ``_write``."""
        assert self._sock is not None
        assert self._incoming is not None
        if len(self._unsent) > _MOST_UNSENT_BYTES:
            raise OSError(errno.ENOBUFS, "it sends, and does not read the answers")
        data = self._sock.recv(tls.RECORD_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return data

    def _flush(self) -> None:
        """Send encrypted data. Raises like ``_write``."""
        assert self._sock is not None
        assert self._outgoing is not None
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _end_stream(self) -> None:
        if self._tls is not None and not self._encrypted:  # else a Message that waits again would arrive after all
            self._flush()
            tls.close_notify(self._tls)
            self._flush()
        super()._end_stream()

    def _reason(self, error: OSError) -> str:
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {error.verify_message.rstrip('.')}; check ca and server_name"
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return "closed by the collector without a word of TLS"
        if isinstance(error, ssl.SSLError):
            return _words(error.reason or str(error))
        return super()._reason(error)


def client_context(config: CollectorConfig) -> ssl.SSLContext:
    """TLS 1.2 or later, the collector verified by name, with the certificates of ``config``.

    Raises ExportError that names the file that cannot be used.
    """
    import ssl

    unusable = functools.partial(_unusable, config)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a write never waits for a read
    if config.ca:
        tls.load_authorities(context, "ca", config.ca, unusable)
    else:
        context.load_default_certs()
    if config.cert:
        tls.load_own(context, config.cert, config.key, unusable)
    return context


def server_name(config: CollectorConfig) -> str:
    """The name that the collector's certificate must have: a host name or an IP address."""
    return (config.server_name or config.host.partition("%")[0]).rstrip(".")


def _unusable(config: CollectorConfig, key: str, path: str, reason: str) -> ExportError:
    return ExportError(f'collector "{config.name}": {key} "{path}": {reason}', f"set {key} to a file that is right")


def _words(reason: str) -> str:
    """OpenSSL's reason, such as TLSV1_ALERT_UNKNOWN_CA, in words."""
    words, alert = tls.openssl_reason(reason)
    if words == "wrong version number":
        return "it does not speak TLS"
    if not alert:
        return f"TLS: {words}"
    hint = "; check cert and key" if any(word in alert for word in _CERTIFICATE_ALERTS) else ""
    return f"refused by the collector (TLS alert: {alert}){hint}"
