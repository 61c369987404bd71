"""Each way in which a host's libbpf can be of no use ends in one sentence, of the daemon and of ``--dry-run``."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from lab.daemon import configuration, netobs
from lab.libraries import hidden
from lab.namespaces import Lab, command
from netobs.kernel import libbpf_types
from netobs.kernel.libbpf_file import OLD_SONAME, SONAME

pytestmark = pytest.mark.e2e(tools=("gcc", "mount", "ldconfig"))

FUNCTIONS = sorted(libbpf_types.PROTOTYPES)
HAVE_IT = "libbpf 1.0 or newer: Debian 12, Ubuntu 24.04, EL 9 and Fedora have it (package libbpf1 or libbpf)"
MACHINE_AT, AARCH64 = 18, b"\xb7\x00"
CLASS_AT, CLASS_32 = 4, b"\x01"


@pytest.fixture(params=["--dry-run", ""], ids=["dry run", "daemon"])
def option(request: pytest.FixtureRequest) -> list[str]:
    return str(request.param).split()


def said(lab: Lab, tmp_path: Path, option: list[str], steps: Iterable[str] = (), stubs: Path | None = None) -> str:
    """The line that ``netobs`` gives up with, after ``steps`` and with the libraries in ``stubs`` in front."""
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration(), encoding="utf-8")
    environment = [f"export LD_LIBRARY_PATH={shlex.quote(str(stubs))}"] if stubs else []
    prefix = ("sh", "-euc", "\n".join([*steps, *environment, 'exec "$@"']), "sh")
    done = netobs(lab, lab.namespace(), "--conf", str(conf), *option, prefix=prefix)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    if option:
        assert done.stderr == ""
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    else:
        (line,) = done.stderr.splitlines()
    return line.partition(": ")[2]


def stub(folder: Path, soname: str, functions: Iterable[str]) -> Path:
    """A shared object of this name that has these functions, and no more."""
    folder.mkdir(exist_ok=True)
    source = folder / "stub.c"
    source.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in functions), encoding="ascii")
    made = folder / soname
    command(["gcc", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{soname}", "-o", str(made), str(source)])
    return made


def test_it_is_not_installed(lab: Lab, tmp_path: Path, option: list[str]) -> None:
    assert said(lab, tmp_path, option, hidden(tmp_path, "libbpf")) == f"{SONAME} is not installed; install {HAVE_IT}"


def test_only_the_old_one_is_installed(lab: Lab, tmp_path: Path, option: list[str]) -> None:
    old = stub(tmp_path / "lib", OLD_SONAME, FUNCTIONS)
    assert said(lab, tmp_path, option, hidden(tmp_path, "libbpf"), old.parent) == (
        f"only {OLD_SONAME} is here: libbpf 0.x, as in Ubuntu 22.04 and EL 8, is too old; netobs needs {HAVE_IT}"
    )


@pytest.mark.parametrize("lacking", ["bpf_map__set_autocreate", "bpf_tc_attach"])
def test_it_lacks_a_function(lab: Lab, tmp_path: Path, option: list[str], lacking: str) -> None:
    mine = stub(tmp_path / "lib", SONAME, [name for name in FUNCTIONS if name != lacking])
    assert said(lab, tmp_path, option, stubs=mine.parent) == (
        f"{mine} has no function {lacking}, which libbpf 1.0 has; install {HAVE_IT}"
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the stub is made foreign to x86-64")
@pytest.mark.parametrize(
    ("at", "octets", "name"), [(MACHINE_AT, AARCH64, "aarch64"), (CLASS_AT, CLASS_32, "x86_64, 32 bits")]
)
def test_it_is_for_another_architecture(
    lab: Lab, tmp_path: Path, option: list[str], at: int, octets: bytes, name: str
) -> None:
    foreign = stub(tmp_path / "lib", SONAME, FUNCTIONS)
    image = bytearray(foreign.read_bytes())
    image[at : at + len(octets)] = octets
    foreign.write_bytes(image)
    assert said(lab, tmp_path, option, hidden(tmp_path, "libbpf"), foreign.parent) == (
        f"{foreign} is for another architecture ({name}; this Python is x86_64); install {HAVE_IT}"
    )


def test_it_is_no_library(lab: Lab, tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / SONAME).write_bytes(b"not a library at all" * 100)
    assert said(lab, tmp_path, option, stubs=tmp_path / "lib") == (
        f"{SONAME} cannot be loaded ({tmp_path}/lib/{SONAME}: invalid ELF header); "
        "reinstall it (package libbpf1 or libbpf)"
    )


def test_it_lacks_a_library_itself(lab: Lab, tmp_path: Path, option: list[str]) -> None:
    other = stub(tmp_path / "lib", "libnetobs-test.so.7", ["netobs_test"])
    needy = ["-Wl,-soname," + SONAME, "-Wl,--no-as-needed", "-o", str(tmp_path / "lib" / SONAME)]
    command(["gcc", "-shared", "-fPIC", "-nostdlib", *needy, str(tmp_path / "lib" / "stub.c"), str(other)])
    other.unlink()
    assert said(lab, tmp_path, option, stubs=tmp_path / "lib") == (
        f"{SONAME} cannot be loaded (libnetobs-test.so.7: cannot open shared object file: No such file or directory); "
        "reinstall it (package libbpf1 or libbpf)"
    )
