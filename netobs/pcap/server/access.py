"""TLS with the certificates of [packet_capture], and those of clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from netobs.base import tls
from netobs.base.errors import NetobsError

if TYPE_CHECKING:
    import ssl

    from netobs.config.schema import PacketCaptureConfig


class ServerTls:
    """The certificates of [packet_capture]. They are read again when the files have changed, as they get renewed."""

    def __init__(self, config: PacketCaptureConfig) -> None:
        """Raises NetobsError that names the file that cannot be used."""
        self._config = config
        self._state = self._files()
        self.context = _server_context(config)
        """For the next connection."""

    def refresh(self) -> None:
        """Read what has changed since. Raises NetobsError, once for a change; the earlier certificates stay."""
        state = self._files()
        if state != self._state:
            self._state = state
            self.context = _server_context(self._config)

    def _files(self) -> list[tuple[int, ...]]:
        return [_state_of(path) for path in (self._config.cert, self._config.key, self._config.client_ca)]


def _state_of(path: str) -> tuple[int, ...]:
    """What tells that a file is another one now; () for one that is not there."""
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _server_context(config: PacketCaptureConfig) -> ssl.SSLContext:
    """TLS 1.2 or later; with ``client_ca``, clients must show a certificate that it has signed."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a write never waits for a read
    tls.load_own(context, config.cert, config.key, _unusable)
    if config.client_ca:
        tls.load_authorities(context, "client_ca", config.client_ca, _unusable)
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


def _unusable(key: str, path: str, reason: str) -> NetobsError:
    return NetobsError(f'packet_capture.{key} "{path}": {reason}', f"set {key} to a file that is right")
