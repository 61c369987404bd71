"""What a support ticket needs, in one file: ``netobs doctor --bundle FILE``. No key and no packet is in it."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import json
import os
import platform
import re
import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netobs import __version__
from netobs.base import clock
from netobs.base.clock import NS_PER_S
from netobs.base.errors import CaptureError, NetobsError
from netobs.base.files import read_file
from netobs.doctor.host import output
from netobs.doctor.mask import Masker, hosts_in
from netobs.doctor.report import Report
from netobs.doctor.running import State
from netobs.kernel import host, inventory, libbpf

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BYTES = 4 << 20
"""Of a member; JSON that is longer leaves out what it has most of."""
JOURNAL_LINES = 2000
_MODULES = ("click", "construct", "numpy", "tomli")
_CONFIG_MIB = 1
_KERNEL_OPTION = re.compile(
    r"CONFIG_(?:BPF|HAVE_EBPF|NET_SCH_INGRESS|NET_CLS_BPF|NET_CLS_ACT|NET_XGRESS|XDP|CGROUP_BPF|DEBUG_INFO_BTF|HZ|NO_HZ|"
    r"PREEMPT|NUMA|SECURITY_LOCKDOWN|LSM|OPENVSWITCH|MEMCG)\w*[= ]"
)
_ABOUT = """What netobs doctor saw of a host, for a support ticket.
{addresses}
doctor.json         the findings, and the programs on each interface
status.json         what the daemon says of itself; only if one answered
configuration.json  the configuration
versions.json       software and kernel
bpf.json            the programs and maps of netobs in the kernel
journal.txt         the last lines of the daemon in the journal
kernel-config.txt   options of the kernel that matter
softnet_stat.txt    /proc/net/softnet_stat
"""
_MASKED = "Addresses and names of hosts are pseudonyms, the same in all files."
_KEPT = "Addresses and names of hosts are those of the host."


def write(path: Path, report: Report, state: State | None, with_addresses: bool) -> int:
    """Makes the file, readable for its owner only, in one step; returns its size in bytes.

    :raises NetobsError: there is such a file, or it cannot be written.
    """
    tables = _configuration(report.conf)
    hosts = {*hosts_in(tables), socket.gethostname(), socket.gethostname().partition(".")[0]}
    masker = None if with_addresses else Masker(hosts)
    data = _archive(_members(report, state, tables, masker))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.link(beside, path)  # fails where something is, and never leaves a part of the file
        finally:
            os.unlink(beside)
    except FileExistsError:
        raise NetobsError(f"{path}: there is a file of this name", "name another") from None
    except OSError as error:
        raise NetobsError(f"{path}: cannot be written: {error.strerror}", "name a file in a writable folder") from None
    return len(data)


def _archive(members: Iterator[tuple[str, str]]) -> bytes:
    """``members``: (name, text)."""
    now_s = clock.read_pair().realtime_ns // NS_PER_S
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in members:
            data = text.encode("utf-8", "backslashreplace")[:MOST_BYTES]
            member = tarfile.TarInfo(f"netobs-doctor/{name}")
            member.size, member.mtime, member.mode = len(data), now_s, 0o600
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), mtime=now_s)


def _members(report: Report, state: State | None, tables: object, masker: Masker | None) -> Iterator[tuple[str, str]]:
    def masked(text: str) -> str:
        return masker.text(text) if masker else text

    def tree(value: Any) -> str:
        text = json.dumps(masker.tree(value) if masker else value, indent=1, default=str)
        if len(text) > MOST_BYTES and isinstance(value, dict):
            longest = max(value, key=lambda name: len(json.dumps(value[name], default=str)))
            return tree({**value, longest: f"left out: more than {MOST_BYTES} bytes"})
        return text

    yield "README.txt", _ABOUT.format(addresses=_MASKED if masker else _KEPT)
    yield "doctor.json", tree(report.as_json())
    if state is not None:
        yield "status.json", tree(dict(state))
    yield "configuration.json", tree(tables)
    yield "versions.json", tree(_versions())
    yield "bpf.json", tree(_bpf())
    yield "journal.txt", masked(journal(report.unit or "netobs.service"))
    yield "kernel-config.txt", _kernel_config()
    yield "softnet_stat.txt", host.read_if_there("/proc/net/softnet_stat")


def _configuration(path: str) -> object:
    """The tables of the file as a TOML parser reads them: without comments, which may have anything."""
    try:
        return tomllib.loads(read_file(path, _CONFIG_MIB).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        return {"unreadable": type(error).__name__}


def _versions() -> dict[str, Any]:
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', host.read_if_there("/etc/os-release"), re.MULTILINE)
    try:
        library = libbpf.version()
    except CaptureError as error:
        library = str(error)
    return {
        "netobs": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _MODULES},
        "libbpf": library,
        "kernel": " ".join(os.uname()[2:]),
        "system": release[1] if release else None,
    }


def _version(module: str) -> str | None:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return None


def _bpf() -> dict[str, Any]:
    """Programs of netobs, by name, and the maps that they use; as ``bpftool prog`` and ``bpftool map`` show them."""
    try:
        programs = [each for each in inventory.programs() if each.name.startswith(("netobs_", "packets_"))]
        maps = [inventory.map_of(number) for number in sorted({number for each in programs for number in each.maps})]
    except NetobsError as error:
        return {"not_seen": str(error)}
    except OSError as error:
        return {"not_seen": error.strerror}
    return {
        "programs": [each._asdict() for each in programs],
        "maps": [each._asdict() for each in maps if each is not None],
    }


def journal(unit: str) -> str:
    """The last lines of the unit; empty where there is no journal, or this user may not read it."""
    argv = ["journalctl", "--unit", unit, "--lines", str(JOURNAL_LINES), "--output", "short-iso", "--no-hostname",
            "--no-pager", "--quiet"]  # fmt: skip
    return output(argv, MOST_BYTES)


def _kernel_config() -> str:
    """The lines about BPF, traffic control and the kernel's kind."""
    text = ""
    try:
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode("ascii", "replace")
    except (OSError, EOFError):
        text = host.read_if_there(f"/boot/config-{os.uname().release}")
    return "".join(f"{line}\n" for line in text.splitlines() if _KERNEL_OPTION.match(line.lstrip("# ")))
