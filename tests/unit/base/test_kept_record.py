"""Facts for the next process, whenever this one is killed."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from netobs.base.kept_record import KeptRecord


def again(fd: int) -> dict[str, Any] | None:
    """What another process would read."""
    return KeptRecord(fd).read()


def test_the_last_object_is_read() -> None:
    fd = os.memfd_create("test")
    record = KeptRecord(fd)
    assert record.read() is None
    for values in ({"a": 1}, {"b": [1, 2]}, {}, {"long": "x" * 100_000}, {"a": None}):
        record.write(values)
        assert again(fd) == record.read() == values
    record.close()
    assert again(fd) == {"a": None}
    assert os.stat(fd).st_blocks * 512 < 400_000
    os.close(fd)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\0" * 10_000, os.urandom(20_000)])
def test_what_is_no_record_is_none(content: bytes) -> None:
    fd = os.memfd_create("test")
    os.write(fd, content)
    assert again(fd) is None
    KeptRecord(fd).write({"now": True})
    assert again(fd) == {"now": True}
    os.close(fd)


def test_too_long_an_object_changes_nothing() -> None:
    fd = os.memfd_create("test")
    record = KeptRecord(fd)
    record.write({"a": 1})
    with pytest.raises(ValueError, match="does not fit"):
        record.write({"a": "x" * (5 << 20)})
    assert again(fd) == {"a": 1}
    os.close(fd)


def test_without_a_keeper_nothing_is_kept() -> None:
    record = KeptRecord(-1)
    record.write({"a": 1})
    assert record.read() is None
    record.close()


def test_a_writer_that_is_killed_leaves_a_whole_object() -> None:
    fd = os.memfd_create("test")
    for _ in range(30):
        KeptRecord(fd).write({"number": -1, "text": ""})
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            record, number = KeptRecord(fd), 0
            while True:
                number += 1
                record.write({"number": number, "text": str(number) * 5000})
                if number == 3:
                    os.write(told, b"x")
        os.close(told)
        os.read(ready, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        found = again(fd)
        assert found is not None
        assert found["number"] >= 3
        assert found["text"] == str(found["number"]) * 5000
    os.close(fd)
