"""Kernels of the distribution, fetched as packages and unpacked, never installed. Cached in build/vm/."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "vm"
FETCH_TIMEOUT_S = 600
# Series, flavour, and the Debian release that has it, if it is not that of the host.
KERNELS = {
    "5.10": ("5.10", "", "bullseye"),
    "6.1": ("6.1",),
    "6.1-rt": ("6.1", "rt"),
    "6.12": ("6.12",),
    "newest-rt": ("", "rt", "forky"),  # Linux 6.18 and later: bottom halves of one CPU preempt each other
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # has the keys of older releases too


class KernelMissing(Exception):
    """No package of this kernel, here or at the registry."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: ``image`` to boot, and the ``modules`` that belong to it."""

    release: str  # what uname -r says in it
    root: Path

    @property
    def image(self) -> Path:
        beside_modules = self.modules / "vmlinuz"  # from Debian 14 on
        return beside_modules if beside_modules.exists() else self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules" / self.release

    def with_dependencies(self, *names: str) -> list[Path]:
        """The files of the modules ``names``, each after what it depends on; those built into the kernel left out."""
        files: dict[Path, None] = {}
        for name in names:
            said = _run(["modprobe", "-d", str(self.root), "-S", self.release, "--show-depends", name])
            files.update({Path(line.split()[1]): None for line in said.splitlines() if line.startswith("insmod ")})
        return list(files)


def kernel(series: str, flavour: str = "", release: str = "") -> Kernel:
    """The newest kernel of a ``series`` (``6.1``, or "" for any) that the archive has, in a ``flavour`` (``rt``).

    ``release``: the Debian release (``bullseye``) that has it, if this host's has it not. Without an archive that
    answers, the newest in the cache.

    :raises KernelMissing: neither has one; says which, and what apt said.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    numbers = rf"{re.escape(series)}\." if series else r"\d+\."
    name = re.compile(rf"linux-image-({numbers}[\d.+a-z-]*?\d){f'-{flavour}' if flavour else ''}-amd64")
    options = _of_release(release) if release else []
    listed = _run(["apt-cache", *options, "search", "--names-only", "^linux-image-"])
    newest = max(filter(name.fullmatch, (line.split()[0] for line in listed.splitlines())), key=_age, default="")
    problem = f"apt knows no package {name.pattern}" if not newest else ""
    if newest:
        problem = _download(newest, options)
    if problem:
        newest = max(filter(name.fullmatch, (_package(file) for file in CACHE.glob("*.deb"))), key=_age, default="")
    if not newest:
        raise KernelMissing(f"{problem} (is `apt-get update` needed?)")
    return _unpacked(newest)


def _of_release(release: str) -> list[str]:
    """Options by which apt looks at another Debian ``release`` in the archives that this host uses.

    Lists and cache are its own, in build/vm/: nothing of the host's apt changes.
    """
    home = CACHE / f"apt-{release}"
    for folder in ("lists/partial", "cache/archives/partial"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    own = _run(["sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"']).strip()
    listed = _run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"])
    targets = {tuple(line.split()) for line in listed.splitlines() if len(line.split()) == 3}
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    sources = home / "sources.list"
    sources.write_text(
        "".join(
            f"deb {signed}{uri} {codename.replace(own, release)} main\n"
            for origin, codename, uri in sorted(targets)
            if origin == "Debian" and codename in (own, f"{own}-security")
        ),
        encoding="utf-8",
    )
    options = [f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-", f"Dir::State::lists={home / 'lists'}"]
    options = [word for option in (*options, f"Dir::Cache={home / 'cache'}") for word in ("-o", option)]
    # What cannot be fetched leaves the lists of the last time, or none: the search says so.
    subprocess.run(["apt-get", *options, "update", "-qq"], capture_output=True, timeout=FETCH_TIMEOUT_S, check=False)
    return options


def _age(package: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", package)]


def _package(file: Path) -> str:
    return file.name.split("_", 1)[0]


def _cached(package: str) -> Path | None:
    return next(iter(CACHE.glob(f"{package}_*.deb")), None)


def _download(package: str, options: Sequence[str]) -> str:
    """Fetches what the cache lacks of the kernel; what went wrong, "" if nothing did."""
    return _fetch(package, options) or next(filter(None, (_fetch(part, options) for part in _parts(package))), "")


def _fetch(package: str, options: Sequence[str]) -> str:
    if _cached(package):
        return ""
    argv = ["apt-get", *options, "download", "-qq", package]
    done = subprocess.run(argv, cwd=CACHE, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    return f"apt-get download {package}: {done.stderr.strip()}" if done.returncode else ""


def _parts(package: str) -> list[str]:
    """The packages of the same kernel that a cached ``package`` needs: from Debian 14 on it has no files itself."""
    depends = _run(["dpkg-deb", "-f", str(_cached(package)), "Depends"])
    return re.findall(rf"\blinux-\w+-{re.escape(package[len('linux-image-') :])}(?= |,|$)", depends)


def _unpacked(package: str) -> Kernel:
    release = package[len("linux-image-") :]
    result = Kernel(release, CACHE / release)
    if not result.root.exists():
        fresh = CACHE / f"{release}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        for name in (package, *_parts(package)):
            _run(["dpkg-deb", "-x", str(_cached(name)), str(fresh)])
        if not (fresh / "lib").exists():
            (fresh / "lib").symlink_to("usr/lib")
        _run(["depmod", "-b", str(fresh), release])  # the package leaves that to its installation
        fresh.rename(result.root)
    return result


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout
