"""Objects of several versions of clang: the kernel's verifier takes what each of them makes of bpf/."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.programs import WAIT_S
from netobs.kernel.object import OBJECT, BpfObject
from tests.unit.btf import HEADERS

pytestmark = pytest.mark.kernel(tools=("make", "clang"))

VERSIONS = (14, 16, 19)  # 14 is the oldest that works, and Debian 12's
OBJECTS = [file.name for file in sorted(OBJECT.parent.glob("*.bpf.o"))]


def build(folder: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    argv = ["make", "--silent", "-C", str(HEADERS), f"OUT={folder}", *variables]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20 * WAIT_S, check=False)


@pytest.mark.kernel(tools=tuple(f"{tool}-{version}" for version in VERSIONS for tool in ("clang", "llvm-strip")))
@pytest.mark.parametrize("version", VERSIONS)
def test_kernel_takes_what_clang_makes(tmp_path: Path, version: int) -> None:
    done = build(tmp_path, f"CLANG=clang-{version}", f"LLVM_STRIP=llvm-strip-{version}")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in sorted(tmp_path.iterdir())] == OBJECTS
    for name in OBJECTS:
        with BpfObject(tmp_path / name) as obj:
            obj.load()


def test_compiler_that_is_too_old_is_named(tmp_path: Path) -> None:
    """Whatever clang is here, it is older than the one that is asked for."""
    done = build(tmp_path, "LEAST_CLANG=1000")
    assert done.returncode != 0
    assert "bpf: clang is clang " in done.stderr
    assert ", and clang 1000 or newer is needed: set CLANG=" in done.stderr
    assert list(tmp_path.iterdir()) == []
