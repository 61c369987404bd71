"""The systemd unit of the daemon: whether it runs, and what it lets the daemon do (systemctl show)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from netobs.doctor.finding import Finding
from netobs.doctor.host import output
from netobs.kernel.privileges import NEEDED

_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts", "User",
               "AmbientCapabilities", "CapabilityBoundingSet", "FileDescriptorStoreMax",
               "NFileDescriptorStore")  # fmt: skip
_FILE, _INSTANCE_FILE = "/etc/netobs.toml", re.compile(r"/etc/netobs/([^/]+)\.toml")
_MANY_RESTARTS = 3
_BOOTED = Path("/run/systemd/system")


def of_file(conf: str) -> str:
    """The unit that runs with this configuration file, as packages have it; "" for other files."""
    instance = _INSTANCE_FILE.fullmatch(conf)
    return f"netobs@{instance[1]}.service" if instance else "netobs.service" if conf == _FILE else ""


def properties(name: str) -> dict[str, str]:
    """What systemd knows of the unit; empty where there is no systemd, or no such unit."""
    if not name or not _BOOTED.is_dir():
        return {}
    text = output(["systemctl", "show", name, f"--property={','.join(_PROPERTIES)}"])
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return found if found.get("LoadState") == "loaded" else {}


def findings(name: str, found: Mapping[str, str]) -> Iterator[Finding]:
    """``found``: as ``properties`` gives it."""
    if not found:
        return
    where, state = (name,), f"{found.get('ActiveState')} ({found.get('SubState')})"
    if found.get("ActiveState") == "failed":
        what = f"the unit has failed: {found.get('Result')}, exit status {found.get('ExecMainStatus')}"
        yield Finding("unit-failed", "problem", what, where, "nothing is measured", f"journalctl -u {name}")
    elif _number(found, "NRestarts") >= _MANY_RESTARTS:
        what = f"systemd has restarted the daemon {found['NRestarts']} times after failures; it is {state}"
        yield Finding(
            "unit-restarts", "warning", what, where, "the daemon goes on with what it kept", f"journalctl -u {name}"
        )
    else:
        yield Finding("unit", "ok", f"the unit is {state}", where)
    missing = _missing(found)
    if missing:
        yield Finding(
            "unit-capability-missing", "problem", f"the unit does not give the daemon {', '.join(missing)}", where,
            "the daemon does not start", f"systemctl edit {name}: AmbientCapabilities=, CapabilityBoundingSet=",
        )  # fmt: skip
    most, used = _number(found, "FileDescriptorStoreMax"), _number(found, "NFileDescriptorStore")
    if most and used >= most:
        yield Finding(
            "fd-store-full", "warning", f"systemd keeps {used} descriptors of the unit, the most that it may", where,
            "a restart will miss packets on some interfaces",
            "raise FileDescriptorStoreMax= and the variable FDSTORE of the unit",
        )  # fmt: skip


def _missing(found: Mapping[str, str]) -> list[str]:
    """Root has all that its bounding set allows; other users have the ambient ones."""
    sets = ["CapabilityBoundingSet"]
    if found.get("User") not in ("", "root", "0", None):
        sets.append("AmbientCapabilities")
    given = [found[each].upper().split() for each in sets if each in found]
    return [name for name in NEEDED if any(name not in each for each in given)]


def _number(found: Mapping[str, str], name: str) -> int:
    text = found.get(name, "")
    return int(text) if text.isdecimal() else 0
