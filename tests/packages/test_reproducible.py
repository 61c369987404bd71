"""Whoever builds a release anywhere and on any day gets the same packages, byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.traffic import REPOSITORY
from tests.packages.made import made

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", ".hypothesis", ".*_cache", "__pycache__", "*.egg-info", "*.bpf.o", "build", "dist", "results"
)
BUILD_TIMEOUT_S = 600


class Machine(NamedTuple):
    """Where, when and how somebody builds."""

    folder: str
    clock: str
    umask: int
    environment: dict[str, str]


MACHINES = (
    Machine("a", "2026-12-24 10:00:00", 0o022, {}),
    Machine("another/and/deeper", "2027-02-03 23:30:00", 0o077, {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "OUT": "x"}),
)


def build(target: str, machine: Machine, directory: Path) -> Path:
    """The tree that ``make TARGET`` was called in: a copy of the sources, without git."""
    tree = directory / machine.folder / "tree"
    shutil.copytree(REPOSITORY, tree, symlinks=True, ignore=NOT_SOURCES)
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~machine.umask)
    done = subprocess.run(
        ["faketime", "-f", f"@{machine.clock}", "make", target],
        cwd=tree,
        env={**os.environ, **machine.environment},
        umask=machine.umask,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def digests(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("deb", marks=pytest.mark.packages(tools=("faketime", "dpkg-buildpackage", "dh", "clang"))),
        pytest.param("rpm", marks=pytest.mark.packages(tools=("faketime", "rpmbuild", "clang"))),
    ],
)
def test_the_same_package_wherever_and_whenever_it_is_built(target: str, tmp_path: Path) -> None:
    names = tuple(path.name for path in made(target))
    here = digests(REPOSITORY / "dist", names)
    for machine in MACHINES:
        tree = build(target, machine, tmp_path)
        assert sorted(path.name for path in (tree / "dist").iterdir()) == sorted(names)
        assert digests(tree / "dist", names) == here
        if target == "deb":  # the clock was really another
            (info,) = (tree / "build" / "deb").glob("*.buildinfo")
            day = {"2026-12-24": "24 Dec 2026", "2027-02-03": "03 Feb 2027"}[machine.clock.split()[0]]
            assert day in info.read_text(encoding="utf-8")


@pytest.mark.packages(tools=("dpkg-buildpackage", "dpkg-parsechangelog"))
@pytest.mark.parametrize("target", ["deb", "rpm"])
def test_a_release_without_an_entry_in_the_changelog_is_not_built(target: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(REPOSITORY, tree, symlinks=True, ignore=NOT_SOURCES)
    (tree / "netobs" / "__init__.py").write_text('"""netobs."""\n\n__version__ = "9.8.7"\n', encoding="utf-8")
    done = subprocess.run(["make", target], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "netobs/__init__.py has 9.8.7: add an entry" in done.stderr
    assert not (tree / "dist").exists()
