"""The metrics in a file: whole at any time, readable for everybody, and a failing disk is one warning."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from netobs.base.clock import NS_PER_S
from netobs.base.errors import ExportError, NetobsError
from netobs.base.loop import EventLoop
from netobs.daemon.textfile import LEAST_INTERVAL_NS, Textfile, check, write


class Writing:
    """A textfile on a loop whose time the test moves. ``texts``: when each of its texts was asked for."""

    def __init__(self, path: Path, interval_ns: int = 0) -> None:
        self.now_ns = 0
        self.texts: list[int] = []
        self.loop = EventLoop(lambda: self.now_ns)
        self.file = Textfile(str(path), self.text, lambda: interval_ns, self.loop, 0)
        self.finished = 0

    def text(self, then: Callable[[bytes | NetobsError, int], None], now_ns: int) -> None:
        self.texts.append(now_ns)
        then(f"text {len(self.texts)}\n".encode(), now_ns)

    def run(self, now_ns: int) -> None:
        """Until what is due at ``now_ns`` is written."""
        self.now_ns, before = now_ns, len(self.texts)
        self.loop.run_once(0)
        if len(self.texts) > before:
            self.loop.run_once()  # the thread has come to its end


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    made = Writing(tmp_path / "folder" / "netobs.prom")
    yield made
    made.file.close()
    made.loop.close()


def test_it_writes_at_once_and_then_in_its_rhythm(writing: Writing, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    umask = os.umask(0o077)
    try:
        writing.run(0)
        path = tmp_path / "folder" / "netobs.prom"
        assert path.read_text("utf-8") == "text 1\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        for now_ns in (1, LEAST_INTERVAL_NS - 1, LEAST_INTERVAL_NS, 2 * LEAST_INTERVAL_NS):
            writing.run(now_ns)
    finally:
        os.umask(umask)
    assert path.read_text("utf-8") == "text 3\n"
    assert writing.texts == [0, LEAST_INTERVAL_NS, 2 * LEAST_INTERVAL_NS]
    assert [each.name for each in path.parent.iterdir()] == ["netobs.prom"]


def test_no_more_often_than_evictions_come(tmp_path: Path) -> None:
    slow = Writing(tmp_path / "netobs.prom", 60 * NS_PER_S)
    with slow.loop:
        for now_s in (0, 15, 30, 59, 60):
            slow.run(now_s * NS_PER_S)
        slow.file.close()
    assert slow.texts == [0, 60 * NS_PER_S]


def test_a_failing_disk_is_one_warning(writing: Writing, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "netobs")
    for number in range(3):  # there is no such folder
        writing.run(number * LEAST_INTERVAL_NS)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == [
        f"metrics.textfile {tmp_path}/folder/netobs.prom: No such file or directory; it is tried again"
    ]
    (tmp_path / "folder").mkdir()
    writing.run(3 * LEAST_INTERVAL_NS)
    assert caplog.messages[1:] == [f"metrics.textfile {tmp_path}/folder/netobs.prom: is written again"]


def test_after_the_end_nothing_is_written(writing: Writing, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    writing.run(0)
    writing.file.close()
    writing.run(LEAST_INTERVAL_NS)
    assert len(writing.texts) == 1


def test_a_link_that_somebody_has_put_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("theirs", "utf-8")
    (tmp_path / "a.prom.tmp").symlink_to(tmp_path / "other")
    with pytest.raises(ExportError):
        write(str(tmp_path / "a.prom"), b"ours")
    assert (tmp_path / "other").read_text("utf-8") == "theirs"


def test_a_folder_that_does_not_exist_is_found_beforehand(tmp_path: Path) -> None:
    check(str(tmp_path / "a.prom"))
    with pytest.raises(ExportError, match=f"metrics.textfile {tmp_path}/no/a.prom: there is no folder {tmp_path}/no;"):
        check(f"{tmp_path}/no/a.prom")
