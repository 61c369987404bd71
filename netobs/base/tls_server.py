"""The side of TLS that listens: its certificates, which get renewed, and what clients did wrong, in words.

``ssl`` is imported when it is needed: a process without TLS does not pay for it with memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, NamedTuple

from netobs.base import tls
from netobs.base.errors import NetobsError

if TYPE_CHECKING:
    import ssl


class ServerFiles(NamedTuple):
    """PEM files: our certificate with its key and, unless empty, the authorities of the certificates that clients must
    show. ``table`` is that of the keys ``cert``, ``key`` and ``client_ca`` in the configuration."""

    table: str
    cert: str
    key: str
    client_ca: str = ""


class ServerTls:
    """A server's certificates. They are read again when the files have changed."""

    def __init__(self, files: ServerFiles) -> None:
        """Raises NetobsError that names the file that cannot be used."""
        self._files = files
        self._states = self._look()
        self._context = _server_context(files)

    def context(self, report: Callable[[NetobsError], None]) -> ssl.SSLContext:
        """For the next connection. What is wrong with files that have changed ``report`` gets once for a change; the
        earlier certificates stay."""
        states = self._look()
        if states != self._states:
            self._states = states
            try:
                self._context = _server_context(self._files)
            except NetobsError as error:
                report(error)
        return self._context

    def _look(self) -> list[tuple[int, ...]]:
        return [_state_of(path) for path in self._files[1:]]


def _state_of(path: str) -> tuple[int, ...]:
    """What tells that a file is another one now; () for one that is not there."""
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _server_context(files: ServerFiles) -> ssl.SSLContext:
    """TLS 1.2 or later; with ``client_ca``, clients must show a certificate that it has signed."""
    import ssl

    def unusable(key: str, path: str, reason: str) -> NetobsError:
        return NetobsError(f'{files.table}.{key} "{path}": {reason}', f"set {key} to a file that is right")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a write never waits for a read
    tls.load_own(context, files.cert, files.key, unusable)
    if files.client_ca:
        tls.load_authorities(context, "client_ca", files.client_ca, unusable)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def tls_reason(error: OSError) -> str:
    """Why a TLS connection to a client broke, for the log; an empty string if TLS was not the reason."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the client went away"
    if not isinstance(error, ssl.SSLError):
        return ""
    words, alert = tls.openssl_reason(error.reason or str(error))
    if words in ("wrong version number", "http request", "unknown protocol"):
        return "it does not speak TLS"
    return f"it refused (TLS alert: {alert})" if alert else f"TLS: {words}"
