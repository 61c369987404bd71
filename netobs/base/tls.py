"""The common parts of TLS clients and servers: certificate files, and OpenSSL's reasons in words.

``ssl`` is imported when it is needed: a daemon without TLS does not pay for it with memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from netobs.base.errors import NetobsError
from netobs.base.files import read_file

if TYPE_CHECKING:
    import ssl

Unusable = Callable[[str, str, str], NetobsError]
"""Makes the error for an unusable file, from its key, its path and the reason."""

RECORD_BYTES = 16_384
"""The most that a TLS record carries (RFC 8446, section 5.1)."""

_MAX_MIB = 8  # all authorities of a system take less than half a MiB


def load_authorities(context: ssl.SSLContext, key: str, path: str, unusable: Unusable) -> None:
    """Trust the certificates of the file ``path``. Raises what ``unusable`` makes."""
    import ssl

    _check_readable(key, path, unusable)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise unusable(key, path, "not a PEM file with certificates") from error


def load_own(context: ssl.SSLContext, cert: str, key: str, unusable: Unusable) -> None:
    """Show the certificate of the file ``cert``, with its private key. Raises what ``unusable`` makes."""
    import ssl

    asked = []

    def password() -> str:  # without it, OpenSSL would ask on the terminal
        asked.append(True)
        return ""

    _check_readable("cert", cert, unusable)
    _check_readable("key", key, unusable)
    try:
        context.load_cert_chain(cert, key, password)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            raise unusable("key", key, "is encrypted, and netobs cannot ask for its password") from error
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise unusable("key", key, f'does not belong to cert "{cert}"') from error
        raise unusable("cert", cert, f'it or key "{key}" is not a PEM file of its kind') from error


def who_else_reads(path: str) -> str:
    """Which other users may read the private key in the file ``path``, in words; an empty string if none may.

    A group is trusted if this process is in it, or is root, who then has given the file to that group. A file in a
    folder that keeps others out is not read by them.
    """
    try:
        real = Path(os.path.realpath(path))
        state, above = os.stat(real), [os.stat(folder).st_mode for folder in real.parents]
    except OSError:
        return ""  # loading the key reports the error
    if state.st_mode & (stat.S_IROTH | stat.S_IWOTH) and all(mode & stat.S_IXOTH for mode in above):
        return "every user of this host"
    trusted = {os.getegid(), *os.getgroups()}
    if os.geteuid() and state.st_mode & (stat.S_IRGRP | stat.S_IWGRP) and state.st_gid not in trusted:
        return f"the group {_group(state.st_gid)}"
    return ""


def close_notify(sock: ssl.SSLSocket | ssl.SSLObject) -> None:
    """Tells the peer that nothing was cut off. Does not wait for the answer: without blocking that is an error."""
    import ssl

    with contextlib.suppress(ssl.SSLError, OSError, ValueError):
        sock.unwrap()


def openssl_reason(reason: str) -> tuple[str, str]:
    """OpenSSL's reason, such as TLSV1_ALERT_UNKNOWN_CA, in words; and its alert, if the peer sent one."""
    text = reason.replace("_", " ").lower()
    return text, text.partition(" alert ")[2]


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _check_readable(key: str, path: str, unusable: Unusable) -> None:
    try:
        read_file(path, _MAX_MIB)  # OpenSSL would wait for the writer of a FIFO, and read a device for ever
    except OSError as error:
        raise unusable(key, path, error.strerror or str(error)) from error
