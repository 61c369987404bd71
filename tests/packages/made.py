"""The packages of this tree."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.namespaces import command
from lab.traffic import REPOSITORY

MAKE_TIMEOUT_S = 600


@functools.cache
def made(target: str, tree: Path = REPOSITORY) -> tuple[Path, ...]:
    """The files that ``make TARGET`` says it made; it is called once in a run. ``target``: deb or rpm."""
    said = command(["make", "-C", str(tree), target], timeout=MAKE_TIMEOUT_S).stdout
    files = tuple(tree / name for name in re.findall(r"^package: (dist/\S+)$", said, re.MULTILINE))
    assert files
    return files


def package(target: str, name: str = "netobs", tree: Path = REPOSITORY) -> Path:
    """The binary package called ``name`` among those that ``make TARGET`` makes."""
    (found,) = [
        path for path in made(target, tree)
        if re.match(rf"{name}[-_]\d", path.name) and not path.name.endswith(".src.rpm")
    ]  # fmt: skip
    return found


def changed(folder: Path, changes: Mapping[str, Mapping[str, str]]) -> Path:
    """A copy of this tree in ``folder`` in which files, by name, have other words in the place of some; each has to be
    there once."""
    names = command(["git", "-C", str(REPOSITORY), "ls-files", "--cached"]).stdout.splitlines()
    for name in names:
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    for name, words in changes.items():
        text = (folder / name).read_text(encoding="utf-8")
        for before, after in words.items():
            assert text.count(before) == 1, f"{name}: {before}"
            text = text.replace(before, after)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def renumbered(package: Path, folder: Path, suffix: str) -> Path:
    """The deb ``package`` as it would be with a later version: its configuration file says something else, too."""
    tree = folder / "tree"
    command(["dpkg-deb", "--raw-extract", str(package), str(tree)])
    control = tree / "DEBIAN" / "control"
    version = command(["dpkg-deb", "-f", str(package), "Version"]).stdout.strip()
    text = control.read_text(encoding="utf-8").replace(f"\nVersion: {version}\n", f"\nVersion: {version}{suffix}\n")
    control.write_text(text, encoding="utf-8")
    (conf,) = tree.glob("etc/*.toml")
    with conf.open("a", encoding="utf-8") as file:
        file.write("# Of the next version.\n")
    newer = folder / f"{conf.stem}_{version}{suffix}.deb"
    command(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(newer)])
    return newer
