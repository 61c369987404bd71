"""Pieces of a buffer, written by the kernel as they lie there."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from netobs.base.vectors import MOST, Numbers, Vectors, write

BUFFER = bytearray(os.urandom(1 << 20))


def pieces_at(first: Numbers, last: Numbers) -> Vectors:
    made = Vectors(len(first))
    made.put(slice(None), BUFFER, first, last)
    return made


def pieces(count: int, octets: int, gap: int) -> tuple[Vectors, bytes]:
    """``count`` pieces of BUFFER of that length, and what they are, back to back."""
    first = np.arange(count, dtype=np.int64) * (octets + gap)
    return pieces_at(first, first + octets), b"".join(BUFFER[begin : begin + octets] for begin in first.tolist())


@pytest.mark.parametrize("count", [1, 2, MOST - 1, MOST, MOST + 1, 3 * MOST])
def test_all_pieces_in_order(pair: tuple[socket.socket, socket.socket], count: int) -> None:
    made, octets = pieces(count, 20, 13)
    assert write(pair[0].fileno(), made) == len(octets)
    assert pair[1].recv(1 << 20, socket.MSG_WAITALL) == octets


def test_pieces_without_octets(pair: tuple[socket.socket, socket.socket]) -> None:
    assert write(pair[0].fileno(), pieces_at(np.array([3, 5, 9]), np.array([3, 8, 9]))) == 3
    assert pair[1].recv(100) == BUFFER[5:8]
    assert write(pair[0].fileno(), Vectors(0)) == 0


def test_pieces_of_two_buffers(pair: tuple[socket.socket, socket.socket]) -> None:
    made, at = Vectors(4), np.array([10, 20])
    made.put(slice(0, None, 2), BUFFER, at, at + 3)
    made.put(slice(1, None, 2), bytearray(b"0123456789"), at // 10, at // 10 + 2)  # which nobody else keeps
    assert write(pair[0].fileno(), made) == 10
    assert pair[1].recv(100) == BUFFER[10:13] + b"12" + BUFFER[20:23] + b"23"


def test_what_is_not_taken_is_known() -> None:
    """A pipe takes whole pages, and then nothing."""
    made, octets = pieces(2 * MOST, 301, 7)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        taken = write(writer, made)
        assert 0 < taken < len(octets)
        with pytest.raises(BlockingIOError):
            write(writer, made)
        assert os.read(reader, len(octets)) == octets[:taken]
    finally:
        os.close(reader)
        os.close(writer)


def test_nobody_is_there(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        write(pair[0].fileno(), pieces(3, 20, 0)[0])


def test_memory_that_is_not_there(pair: tuple[socket.socket, socket.socket]) -> None:
    nowhere = Vectors(1)
    nowhere.table[0] = (8, 8)
    with pytest.raises(OSError, match="Bad address"):
        write(pair[0].fileno(), nowhere)
