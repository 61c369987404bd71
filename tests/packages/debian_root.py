"""Debian systems to boot: made by debootstrap from the mirror that this host's apt uses. Cached in build/packages/."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lab.namespaces import LabError, command
from lab.traffic import REPOSITORY

CACHE = REPOSITORY / "build" / "packages"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Beside what is essential. Not dbus: root's systemctl talks to systemd directly.
PACKAGES = ("systemd", "systemd-sysv", "iproute2", "procps")
LATER = ("rpm",)  # only some tests install these
FETCH_TIMEOUT_S = 900
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-qq")


class RootMissing(Exception):
    """No such system, here or at the mirror."""


def bare(suite: str, deb: Path) -> Path:
    """The least system of ``suite`` that boots. What ``deb`` needs is at hand there, and ``LATER``: apt works offline.

    :raises RootMissing: it is not here, and the mirror does not give it; says why.
    """
    root, wanted = CACHE / suite / "bare", _wanted(deb)
    if _stamp(root) == wanted:
        return root
    try:
        if not root.exists():
            _debootstrap(suite, root)
        _apt(root, "update")
        _apt(root, "install", "--download-only", str(deb), *LATER)
    except LabError as error:
        raise RootMissing(f"{suite}: {error}") from error
    _write_stamp(root, wanted)
    return root


def prepared(suite: str, deb: Path) -> Path:
    """As ``bare``, with everything installed that ``deb`` depends on.

    :raises RootMissing: see ``bare``.
    """
    root, source, wanted = CACHE / suite / "prepared", bare(suite, deb), _wanted(deb)
    if _stamp(root) != wanted:
        shutil.rmtree(root, ignore_errors=True)
        command(["cp", "-a", "--reflink=auto", str(source), str(root)], timeout=FETCH_TIMEOUT_S)
        _stamp_file(root).unlink(missing_ok=True)
        chroot = ["unshare", "--mount", "--pid", "--fork", "--net", "--mount-proc", f"--root={root}"]
        command([*chroot, *APT, "satisfy", _dependencies(deb)], timeout=FETCH_TIMEOUT_S)
        _write_stamp(root, wanted)
    return root


def _dependencies(deb: Path) -> str:
    return command(["dpkg-deb", "-f", str(deb), "Depends"]).stdout.strip()


def _wanted(deb: Path) -> str:
    """What a root is made for: with something else, it is made anew."""
    return ", ".join([_dependencies(deb), *LATER])


def _stamp_file(root: Path) -> Path:
    return root.with_suffix(".dependencies")


def _stamp(root: Path) -> str:
    file = _stamp_file(root)
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _write_stamp(root: Path, text: str) -> None:
    _stamp_file(root).write_text(text, encoding="utf-8")


def _debootstrap(suite: str, root: Path) -> None:
    fresh = root.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    mirror = _mirror()
    command(
        ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(fresh), mirror],
        timeout=FETCH_TIMEOUT_S,
    )
    source = f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
    (fresh / "etc/apt/sources.list").write_text(source, encoding="utf-8")
    fresh.rename(root)


def _mirror() -> str:
    """Where this host's apt gets Debian's own packages."""
    form = "$(REPO_URI) $(LABEL) $(CODENAME) $(COMPONENT)"
    targets = command(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).stdout
    found = re.search(r"^(\S+) Debian [a-z]+ main$", targets, re.MULTILINE)
    if not found:
        raise RootMissing("apt on this host has no Debian mirror in its sources")
    return found[1]


def _apt(root: Path, *arguments: str) -> None:
    """The host's apt, with its settings, for ``root``: so no resolver, proxy or certificate is needed inside."""
    command([*APT, "-o", f"Dir={root}", *arguments], timeout=FETCH_TIMEOUT_S)
