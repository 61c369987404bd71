"""A Unix socket takes the place of one that nobody listens at, and of no other."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from netobs.kernel.listening import unix_socket


def test_who_listens_is_left_alone_however_busy_it_is(tmp_path: Path) -> None:
    """Its queue is full: a client would have to wait."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        second = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with second, pytest.raises(BlockingIOError):
            second.connect(path)
        with pytest.raises(OSError, match="in use") as refused:
            unix_socket(path)
        assert refused.value.errno == errno.EADDRINUSE


def test_a_socket_that_is_left_over_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "socket"
    with unix_socket(str(path)):
        pass
    assert path.is_socket()
    with unix_socket(str(path)) as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listening.accept()[0].close()
