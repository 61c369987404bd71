"""Maps that outlive a process by pins, and memory beside them."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from lab.prog_run import kernel_id
from netobs.base.errors import CaptureError
from netobs.kernel import libbpf
from netobs.kernel.pins import Pins

pytestmark = pytest.mark.kernel


def test_maps_and_memory_are_found_by_the_next_process_until_they_are_dropped(bpf_fs: Path, tmp_path: Path) -> None:
    fd = libbpf.create_map(libbpf.MAP_TYPE_ARRAY, "netobs_test")
    libbpf.update_u32(fd, 0, 77)
    number = kernel_id(fd)
    with contextlib.closing(Pins(bpf_fs / "netobs", tmp_path)) as pins:
        assert (pins.keeps, pins.names()) == (True, frozenset())
        pins.keep("m-ledgers", fd)
        pins.keep("m-ledgers", fd)
        pins.keep("m-ring", fd)
        os.write(pins.memory("journal"), b"first")
        os.write(pins.memory("journal"), b"again")
    os.close(fd)
    with contextlib.closing(Pins(bpf_fs / "netobs", tmp_path)) as pins:
        assert pins.names() == {"m-ledgers", "m-ring", "journal"}
        kept, memory = pins.former("m-ledgers"), pins.former("journal")
        assert kept is not None
        assert memory is not None
        assert kernel_id(kept) == number
        assert os.read(memory, 99) == b"again"
        for name in ("m-ring", "m-ledgers", "journal", "never"):
            pins.drop(name)
        assert pins.former("m-ring") is None
    with contextlib.closing(Pins(bpf_fs / "netobs", tmp_path)) as pins:
        assert pins.names() == frozenset()


def test_a_socket_cannot_be_pinned(bpf_fs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(Pins(bpf_fs / "netobs", tmp_path)) as pins, socket.socket() as sock:
        pins.keep("u-1", sock.fileno())
    assert caplog.text == ""
    with contextlib.closing(Pins(bpf_fs / "netobs", tmp_path)) as pins:
        assert pins.names() == frozenset()


def test_another_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no BPF file system there"):
        Pins(tmp_path / "pins", tmp_path / "memory")


def test_a_folder_that_cannot_be_made_is_named(bpf_fs: Path, tmp_path: Path) -> None:
    folder = bpf_fs / "a.b"  # the kernel keeps names with a dot for itself (kernel/bpf/inode.c)
    with pytest.raises(CaptureError, match=f'capture.pin "{folder}": {folder}: Operation not permitted; make the'):
        Pins(folder, tmp_path / "memory")
