"""Which cgroups limit this process. Their files are looked at in real ones in tests/e2e/test_dry_run.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from netobs.datapath import memory


def mountinfo(top: Path, kind: str, root: str = "/") -> str:
    options = "rw,memory" if kind == "cgroup" else "rw"
    other = f"31 23 0:28 / {top}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    return f"{other}35 31 0:32 {root} {top} rw,nosuid shared:9 - {kind} {kind} {options}\n"


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
@pytest.mark.parametrize(
    ("root", "path", "inside"),
    [
        ("/", "/", "."),
        ("/", "/system.slice/netobs.service", "system.slice/netobs.service"),
        ("/docker/ab", "/docker/ab", "."),  # a container with the host's cgroup namespace
        ("/docker/ab", "/docker/ab/child", "child"),
        ("/docker/ab", "/docker/abc", "."),  # not in what is mounted
        ("/..", "/", "."),
        ("/", "/../sibling", "."),
    ],
)
def test_folders(tmp_path: Path, kind: str, root: str, path: str, inside: str) -> None:
    (tmp_path / "system.slice/netobs.service").mkdir(parents=True)
    (tmp_path / "child").mkdir()
    own = f"4:memory:{path}\n1:cpu:/\n0::/elsewhere\n" if kind == "cgroup" else f"1:cpu:/\n0::{path}\n"
    found = list(memory.memory_folders(own, mountinfo(tmp_path, kind, root)))
    assert found == [(kind, tmp_path / inside, tmp_path)]


@pytest.mark.parametrize("own", ["", "1:cpu:/\n", "0::/\n"])
def test_what_is_not_mounted_or_not_there(tmp_path: Path, own: str) -> None:
    assert list(memory.memory_folders(own, mountinfo(tmp_path, "cgroup"))) == []
    assert list(memory.memory_folders(own, "")) == []


def put(folder: Path, **files: object) -> Path:
    folder.mkdir()
    for name, value in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{value}\n", encoding="ascii")
    return folder


def left(folder: Path, kind: str) -> int | None:
    return memory._left_bytes(folder, *memory._LIMITS[kind])


def test_what_a_cgroup_may_still_take(tmp_path: Path) -> None:
    stat = "anon 50\nactive_file 7\ninactive_file 30\nslab_reclaimable 3\nfile 40"
    whole = put(tmp_path / "whole", memory_max=1000, memory_high="max", memory_current=100, memory_stat=stat)
    assert left(whole, "cgroup2") == 940
    high = put(tmp_path / "high", memory_max=1000, memory_high=600, memory_current=100, memory_stat="")
    assert left(high, "cgroup2") == 500
    over = put(tmp_path / "over", memory_max=100, memory_high="max", memory_current=200, memory_stat="")
    assert left(over, "cgroup2") == 0
    free = put(tmp_path / "free", memory_max="max", memory_high="max", memory_current=200)
    assert left(free, "cgroup2") is None
    assert left(tmp_path, "cgroup2") is None
    old = tmp_path / "old"
    old.mkdir()
    for name, text in (
        ("memory.limit_in_bytes", "1000"),
        ("memory.usage_in_bytes", "100"),
        ("memory.stat", "inactive_file 30\ntotal_inactive_file 40\ntotal_active_file 5\n"),
    ):
        (old / name).write_text(text, encoding="ascii")
    assert left(old, "cgroup") == 945
    (old / "memory.limit_in_bytes").write_text("9223372036854771712\n", encoding="ascii")
    assert left(old, "cgroup") is None
