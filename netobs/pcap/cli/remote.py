"""Packets from a running daemon: the client of its packet capture agent."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netobs.base.errors import CaptureError
from netobs.base.tls import load_authorities, load_own, openssl_reason
from netobs.config import Endpoint
from netobs.pcap.server.request import END_LINE

if TYPE_CHECKING:
    import ssl

CONNECT_S = 5.0
FIRST_BYTE_S = 20.0
"""The daemon needs up to 10 s for a filter with host names, and may be busy with other things."""
POLL_S = 0.25
"""How often the caller gets control if nothing arrives."""

END_S = 3.0
"""The longest silence after a request to end."""

_RECEIVE_BYTES = 1 << 20
_X509_PARTIAL_CHAIN = 0x80000  # openssl/x509_vfy.h; ssl has a name for it from Python 3.10 on


@dataclass(frozen=True)
class Tls:
    """PEM files for a daemon with TLS: its authorities, and our certificate and key; empty = none.

    ``pinned``: ``ca`` is the daemon's own certificate, whatever host it names.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    pinned: bool = False


def connect(endpoint: Endpoint) -> socket.socket | None:
    """A connection to the daemon at ``endpoint``; None if nobody listens there.

    :raises CaptureError: it is unreachable for another reason.
    """
    try:
        if not endpoint.is_path:
            return socket.create_connection(endpoint, timeout=CONNECT_S)
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(CONNECT_S)
            sock.connect(endpoint.host)
            undo.pop_all()
        return sock
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except PermissionError as error:
        hint = "run as root, or as a member of the group that the socket belongs to: usermod -aG netobs USER"
        raise CaptureError(f"{endpoint}: {error.strerror}", hint if endpoint.is_path else "") from error
    except OSError as error:
        raise CaptureError(f"{endpoint}: cannot connect: {error.strerror or error}") from error


def encrypt(sock: socket.socket, tls: Tls, endpoint: Endpoint) -> ssl.SSLSocket:
    """The connection over TLS. The daemon's certificate must name the host, or be the pinned one.

    :raises CaptureError: a file is unusable, or one side does not trust the other.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.pinned:
        context.check_hostname = False
        context.verify_flags |= _X509_PARTIAL_CHAIN
    if tls.ca:
        load_authorities(context, "ca", tls.ca, _unusable)
    else:
        context.load_default_certs()
    if tls.cert:
        load_own(context, tls.cert, tls.key, _unusable)
    try:
        return context.wrap_socket(sock, server_hostname=endpoint.host)
    except OSError as error:
        raise _tls_error(endpoint, error) from error


def _tls_error(endpoint: Endpoint, error: OSError) -> CaptureError:
    import ssl

    reason, hint = error.strerror or str(error), ""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason, hint = error.verify_message, "name the authority of the daemon's certificate with --ca"
    elif isinstance(error, ssl.SSLError):
        reason, alert = openssl_reason(error.reason or str(error))
        reason = f"the daemon refused: {alert}" if alert else reason
        if error.reason == "WRONG_VERSION_NUMBER":
            hint = "the daemon there does not speak TLS: connect without --tls, --ca and --cert"
    return CaptureError(f"{endpoint}: TLS: {reason}", hint)


def _unusable(option: str, path: str, reason: str) -> CaptureError:
    return CaptureError(f'--{option} "{path}": {reason}', "name a PEM file that is right")


def receive(
    sock: socket.socket, request: dict[str, object], endpoint: Endpoint, stopping: Callable[[], bool]
) -> Generator[bytes, None, None]:
    """Sends ``request`` and yields the stream to its end, with an empty piece each POLL_S without data.

    It also ends when ``stopping`` says so: it asks the daemon to end the stream, with statistics at the end.

    :raises CaptureError: the daemon does not answer, or the connection broke.
    """
    began = False
    with contextlib.closing(sock):
        try:
            sock.sendall(json.dumps(request).encode() + b"\n")
            for data in _pieces(sock, endpoint):
                began = began or bool(data)
                yield data
                if stopping():
                    sock.sendall(END_LINE)
                    yield from _rest(sock)
                    return
        except OSError as error:
            hint = "" if began else _hint_without_answer(sock)
            raise CaptureError(f"{endpoint}: the connection broke: {error.strerror or error}", hint) from error


def _hint_without_answer(sock: socket.socket) -> str:
    import ssl

    # With TLS 1.3 the handshake is over for us before the daemon has missed our certificate.
    if isinstance(sock, ssl.SSLSocket):
        return "if it asks for a certificate, --cert and --key name one"
    return "if it talks TLS, so do with --tls"


def _rest(sock: socket.socket) -> Iterator[bytes]:
    """Yields the rest of the stream. It gives up on a daemon that does not end it in time."""
    sock.settimeout(END_S)
    with contextlib.suppress(socket.timeout):
        while data := sock.recv(_RECEIVE_BYTES):
            yield data


def _pieces(sock: socket.socket, endpoint: Endpoint) -> Iterator[bytes]:
    """Yields the stream to its end; an empty piece if nothing arrives for a moment."""
    sock.settimeout(POLL_S)
    waited_s = 0.0
    while waited_s <= FIRST_BYTE_S:
        try:
            data = sock.recv(_RECEIVE_BYTES)
            waited_s = float("-inf")
        except socket.timeout:
            waited_s += POLL_S
            yield b""
            continue
        if not data:
            return
        yield data
    raise CaptureError(f"{endpoint}: no answer", "is it a netobs daemon?")
