"""Kernels of the distribution, fetched as packages and unpacked, never installed. Cached in build/vm/."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "vm"
FETCH_TIMEOUT_S = 600


class KernelMissing(Exception):
    """No package of this kernel, here or at the registry."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: ``image`` to boot, and the ``modules`` that belong to it."""

    release: str  # what uname -r says in it
    root: Path

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.release}"

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


def kernel(series: str, flavour: str = "") -> Kernel:
    """The newest kernel of a ``series`` (``6.1``) that the registry has, in a ``flavour`` (``rt``, or none).

    Without a registry that answers, the newest in the cache.

    :raises KernelMissing: neither has one; says which, and what apt said.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    name = re.compile(rf"linux-image-({re.escape(series)}\.[\d.+a-z-]*?\d){f'-{flavour}' if flavour else ''}-amd64")
    known = [line.split()[0] for line in _run(["apt-cache", "search", "--names-only", "^linux-image-"]).splitlines()]
    newest = max(filter(name.fullmatch, known), key=_age, default="")
    problem = f"apt knows no package {name.pattern}" if not newest else ""
    if newest and not _cached(newest):
        problem = _download(newest)
    if problem:
        newest = max(filter(name.fullmatch, (_package(file) for file in CACHE.glob("*.deb"))), key=_age, default="")
    if not newest:
        raise KernelMissing(f"{problem} (is `apt-get update` needed?)")
    return _unpacked(newest)


def _age(package: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", package)]


def _package(file: Path) -> str:
    return file.name.split("_", 1)[0]


def _cached(package: str) -> Path | None:
    return next(iter(CACHE.glob(f"{package}_*.deb")), None)


def _download(package: str) -> str:
    """What went wrong, "" if nothing did."""
    done = subprocess.run(
        ["apt-get", "download", "-qq", package],
        cwd=CACHE,
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    return f"apt-get download {package}: {done.stderr.strip()}" if done.returncode else ""


def _unpacked(package: str) -> Kernel:
    release = package[len("linux-image-") :]
    result = Kernel(release, CACHE / release)
    if not result.root.exists():
        archive, fresh = _cached(package), CACHE / f"{release}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        _run(["dpkg-deb", "-x", str(archive), str(fresh)])
        _run(["depmod", "-b", str(fresh), release])  # the package leaves that to its installation
        fresh.rename(result.root)
    return result


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout
