"""Loading the object: what is said when it fails, and what is left when it ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from ctypes import c_uint32
from pathlib import Path

import pytest

from netobs.capture import libbpf
from netobs.capture.object import OBJECT, PROGRAMS, BpfObject
from netobs.errors import CaptureError
from tests.kernel import frames as f
from tests.kernel.programs import Programs, kernel_id

pytestmark = pytest.mark.kernel

MAPS = ("ledgers", "flow_hash_0", "flow_hash_1", "ring", ".rodata", ".bss")
ROOT = Path(__file__).parents[2]
NOBODY = 65534
DEADLINE_S = 10


def one_line(error: pytest.ExceptionInfo[CaptureError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_missing_object(tmp_path: Path) -> None:
    with pytest.raises(CaptureError) as error:
        BpfObject(tmp_path / "none.o")
    assert (
        one_line(error)
        == f"{tmp_path}/none.o: no such BPF object; reinstall netobs, or run 'make bpf' in a source tree"
    )


@pytest.mark.parametrize("content", [b"", b"not an ELF file at all\n" * 100, b"\x7fELF" + bytes(200)])
def test_file_that_is_no_object(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.o"
    path.write_bytes(content)
    with pytest.raises(CaptureError) as error:
        BpfObject(path)
    assert one_line(error).startswith(f"{path}: not a usable BPF object (")


def test_object_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "short.o"
    path.write_bytes(OBJECT.read_bytes()[:5000])
    with pytest.raises(CaptureError) as error:
        BpfObject(path)
    assert str(path) in one_line(error)


def test_unknown_map_and_program() -> None:
    with BpfObject() as obj:
        for use in (obj.map_fd, obj.program_fd):
            with pytest.raises(CaptureError) as error:
                use("flows_of_yesterday")
            assert "the object is of another version" in one_line(error)


def test_table_that_no_host_holds() -> None:
    with pytest.raises(CaptureError) as error:
        Programs(max_flows=2**31)
    assert one_line(error).startswith("capture.max_flows = 2147483648 needs ")


def test_memory_is_said_before_it_is_taken() -> None:
    with Programs(max_flows=65536) as programs:
        taken = sum(_memory(programs.map_fd(name)) for name in MAPS)
        assert taken == pytest.approx(programs.capture.kernel_bytes(), rel=0.05)


def _memory(map_fd: int) -> int:
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{map_fd}").read_text().splitlines())
    return int(fields["memlock"])


def test_map_that_no_kernel_makes(caplog: pytest.LogCaptureFixture) -> None:
    with BpfObject() as obj:
        obj.set_max_entries("flow_hash_0", 2**31)
        with pytest.raises(CaptureError) as error:
            obj.load()
    text = one_line(error)
    assert text.startswith("netobs.bpf.o: the kernel refused it: ")
    assert "lower capture.max_flows" in text
    assert any("flow_hash_0" in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)


def test_log_of_libbpf_is_ours(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    with BpfObject():
        pass
    assert any(record.name == "netobs.libbpf" for record in caplog.records)
    assert capfd.readouterr() == ("", "")


UNPRIVILEGED = f"""
import os
from netobs.capture.capture import Capture
from netobs.config import CaptureConfig
from netobs.errors import CaptureError
capture = Capture(CaptureConfig(max_flows=64))
capture.load()  # all modules are in: nobody may be kept from reading those of the interpreter
capture.close()
capture = Capture(CaptureConfig(max_flows=64))
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
try:
    capture.load()
except CaptureError as error:
    print(error)
finally:
    capture.close()
"""


def test_without_privileges_one_line_names_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count("\n") == 1
    for word in ("not permitted", "root", "CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"):
        assert word in done.stdout


def test_nothing_is_left_after_close() -> None:
    programs = Programs(max_flows=64)
    try:
        programs.send(f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp())))
        obj = programs.capture._object
        assert obj is not None
        ids = [("prog", kernel_id(obj.program_fd(name))) for name in PROGRAMS] + [
            ("map", kernel_id(obj.map_fd(m))) for m in MAPS
        ]
        assert all(_exists(kind, number) for kind, number in ids)
    finally:
        programs.close()
    programs.close()  # twice is once
    deadline = time.monotonic() + DEADLINE_S  # the kernel frees programs and their maps a little later
    while any(_exists(kind, number) for kind, number in ids):
        assert time.monotonic() < deadline, "programs or maps are still there"
        time.sleep(0.01)


def _exists(kind: str, number: int) -> bool:
    fd: int = getattr(libbpf.library(), f"bpf_{kind}_get_fd_by_id")(c_uint32(number))
    if fd < 0:
        return False
    os.close(fd)
    return True
