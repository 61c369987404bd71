"""What is said of a kernel that lacks something. The poorer kernels themselves are in tests/e2e and tests/vm."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from netobs.kernel import privileges, requirements


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-50-amd64", (6, 1)), ("5.10.0", (5, 10)), ("6.12.107+deb12-rt-amd64", (6, 12)), ("odd", (0, 0))],
)
def test_version(release: str, version: tuple[int, int]) -> None:
    assert requirements.kernel_version(release) == version


def test_no_system_call_without_a_filter_that_hides_it() -> None:
    if privileges.status("Seccomp") == privileges.SECCOMP_FILTER:
        pytest.skip("this process runs under a seccomp filter")
    assert requirements.explanation(errno.ENOSYS) == (
        "this kernel was built without the bpf system call: CONFIG_BPF_SYSCALL is needed"
    )


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.E2BIG])
def test_what_is_too_large_is_not_a_matter_of_the_kernel(number: int) -> None:
    assert requirements.explanation(number) == ""


def files_of_modules(folder: Path, dep: str, builtin: str) -> Path:
    of_kernel = folder / os.uname().release
    of_kernel.mkdir()
    (of_kernel / "modules.dep").write_text(dep, encoding="utf-8")
    (of_kernel / "modules.builtin").write_text(builtin, encoding="utf-8")
    return folder


def test_modules_that_are_there(tmp_path: Path) -> None:
    folder = files_of_modules(tmp_path, "kernel/net/sched/cls_bpf.ko.xz:\n", "kernel/net/sched/sch_ingress.ko\n")
    assert requirements.modules_that_cannot_load(folder) == []


def test_modules_that_are_not_there(tmp_path: Path) -> None:
    folder = files_of_modules(tmp_path, "kernel/net/sched/sch_fq.ko: kernel/lib/x.ko\n", "")
    loaded = [name for name in requirements.CONFIG_OPTIONS if Path("/sys/module", name).exists()]
    assert requirements.modules_that_cannot_load(folder) == [
        requirements.missing_module(name) for name in requirements.CONFIG_OPTIONS if name not in loaded
    ]
    assert all("CONFIG_NET_" in requirements.missing_module(name) for name in requirements.CONFIG_OPTIONS)


def test_where_modules_are_is_not_known(tmp_path: Path) -> None:
    assert requirements.modules_that_cannot_load(tmp_path) == []
