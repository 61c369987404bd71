"""Loading the object: what is said when it fails, and what is left when it ends."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lab import frames as f
from lab.prog_run import Programs, exists, kernel_id, wait_until_gone
from netobs.base.errors import CaptureError
from netobs.datapath.layout import FLOW_TABLES
from netobs.datapath.percpu_array import PercpuArray
from netobs.datapath.percpu_hash import PercpuHash
from netobs.kernel.libbpf_log import LOG_TAIL_BYTES
from netobs.kernel.object import OBJECT, PROGRAMS, BpfObject
from tests.kernel.foreign import compile_bpf

pytestmark = pytest.mark.kernel

MAPS_OF_ALL = ("ledgers", "ring", ".rodata", ".bss")
ROOT = Path(__file__).parents[2]
NOBODY = 65534


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


@pytest.mark.parametrize("max_flows", [4096, 65536])
@pytest.mark.parametrize("flow_table", FLOW_TABLES)
def test_memory_is_said_before_it_is_taken(flow_table: str, max_flows: int) -> None:
    with Programs(max_flows=max_flows, flow_table=flow_table) as programs:
        taken = sum(_memory(programs.map_fd(name)) for name in (*MAPS_OF_ALL, *programs.table.MAPS))
        assert taken == pytest.approx(programs.datapath.kernel_bytes(), rel=0.05)


@pytest.mark.parametrize("flow_table", FLOW_TABLES)
def test_maps_of_other_tables_are_not_made(flow_table: str) -> None:
    with Programs(max_flows=64, flow_table=flow_table) as programs:
        for name in {*PercpuArray.MAPS, *PercpuHash.MAPS}.difference(programs.table.MAPS):
            with pytest.raises(OSError, match=name):
                programs.map_fd(name)


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


@pytest.mark.kernel(tools=("clang",))
def test_reason_of_a_refusal_is_said_however_long_the_verifiers_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refused = compile_bpf(Path(__file__).with_name("refused.bpf.c"), tmp_path)
    with BpfObject(refused) as obj, pytest.raises(CaptureError) as error:
        obj.load()
    assert "the lines above are what libbpf and the kernel's verifier said" in one_line(error)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert any("invalid access to packet" in line for line in said)
    everything = [record.getMessage() for record in caplog.records if record.name == "netobs.libbpf"]
    assert sum(map(len, everything)) > LOG_TAIL_BYTES // 2


def test_log_of_libbpf_is_ours(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    with BpfObject():
        pass
    assert any(record.name == "netobs.libbpf" for record in caplog.records)
    assert capfd.readouterr() == ("", "")


UNPRIVILEGED = f"""
import os
from netobs.datapath.capture import Capture
from netobs.config import CaptureConfig
from netobs.base.errors import CaptureError
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


@pytest.mark.parametrize("flow_table", FLOW_TABLES)
def test_nothing_is_left_after_close(flow_table: str) -> None:
    programs = Programs(max_flows=64, flow_table=flow_table)
    try:
        programs.send(f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp())))
        programs.evict()
        names = (*MAPS_OF_ALL, *programs.table.MAPS)
        objects = [("prog", kernel_id(programs.program_fd(name))) for name in PROGRAMS]
        objects += [("map", kernel_id(programs.map_fd(name))) for name in names]
        assert all(exists(*one) for one in objects)
    finally:
        programs.close()
    programs.close()  # twice is once
    wait_until_gone(*objects)
