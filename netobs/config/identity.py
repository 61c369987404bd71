"""What follows from the path of the configuration file: the default Observation Domain ID, and the control socket."""

from __future__ import annotations

import os
import re
import socket
import zlib
from pathlib import Path

from netobs import DEFAULT_CONF

MACHINE_ID_PATH = "/etc/machine-id"
CONTROL = "/run/netobs/control.sock"
INSTANCES = os.path.splitext(DEFAULT_CONF)[0]
"""The folder of the files of netobs@.service."""
_MAX_NAME = 48  # the path of a socket has 107 bytes (unix(7))


def control_socket(conf: str | os.PathLike[str] = DEFAULT_CONF) -> str:
    """The path of the control socket of the daemon that runs with the file ``conf``: ``control.sock`` for the packaged
    path, ``control-NAME.sock`` for an instance NAME of netobs@.service. Other files of the same name are told apart by
    a number.
    """
    path = os.path.abspath(conf)
    if path == DEFAULT_CONF:
        return CONTROL
    name, suffix = os.path.splitext(os.path.basename(path))
    if (os.path.dirname(path), suffix) != (INSTANCES, ".toml") or len(os.fsencode(name)) > _MAX_NAME:
        shown = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_MAX_NAME]
        name = f"{shown}-{zlib.crc32(os.fsencode(path)):08x}"
    return CONTROL.replace(".sock", f"-{name}.sock")


def machine_domain(
    machine_id_path: str = MACHINE_ID_PATH, host_name: str = "", conf: str | os.PathLike[str] = DEFAULT_CONF
) -> int:
    """A stable Observation Domain ID from 1 to 2**32 - 1 (0 has a meaning of its own: RFC 7011 section 3.1).

    It comes from the machine ID, and from the host name (default: this host's) where there is no machine ID.
    Instances on one host differ by the path of their configuration file, ``conf``: collectors keep sampling rates and
    Sequence Numbers by address and Observation Domain. The packaged path adds nothing.
    A CRC gives away at most 32 of the 128 bits of the machine ID, which is to be kept confidential (machine-id(5)).
    """
    try:
        identity = Path(machine_id_path).read_bytes().strip()
    except OSError:
        identity = b""
    if not re.fullmatch(b"[0-9a-f]{32}", identity):  # images hold an empty file, or the word "uninitialized"
        identity = (host_name or socket.gethostname()).encode(errors="replace")
    path = os.path.abspath(conf)
    instance = b"" if path == DEFAULT_CONF else b" " + os.fsencode(path)
    return zlib.crc32(b"netobs " + identity + instance) or 1
