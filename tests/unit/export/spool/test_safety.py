"""Where the spool writes: not where somebody else wants it to, and again when somebody has taken it away."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from netobs.export.spool.place import check
from netobs.export.spool.spool import RETRY_NS
from netobs.flow.tally import Tally
from tests.unit.export.box import Box, data_files, tally
from tests.unit.export.support import rows

NOBODY = 65534


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that nobody has named to netobs."""
    path = tmp_path / "precious"
    path.write_text("keep me", encoding="ascii")
    return path


def refused(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Nothing is written there; what is said."""
    box = Box(folder)
    assert not box.opened
    assert not box.put(10)
    assert box.stats.queued.flows == 10
    box.spool.close()
    (said,) = caplog.messages
    assert said.endswith("; flows wait in memory, and the spool is tried again each minute")
    return said.partition("; flows wait")[0].replace('collector "main": spool ', "")


@pytest.mark.parametrize("name", ["lock", "cursor"])
def test_a_link_in_the_place_of_a_file_is_not_followed(
    folder: Path, target: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    (folder / name).symlink_to(target)
    assert refused(folder, caplog) == f"{folder}/{name}: is a symbolic link, which is not followed"
    assert target.read_text("ascii") == "keep me"
    (folder / name).unlink()
    (folder / name).hardlink_to(target) if hasattr(Path, "hardlink_to") else os.link(target, folder / name)
    caplog.clear()
    assert refused(folder, caplog) == f"{folder}/{name}: has a second name elsewhere (a hard link)"
    assert target.read_text("ascii") == "keep me"


@pytest.mark.parametrize("link", ["symlink_to", "hardlink"])
@pytest.mark.parametrize("suffix", [".ipfix", ".index"])
def test_a_link_in_the_place_of_a_segment_is_neither_cut_nor_made(
    folder: Path, target: Path, tmp_path: Path, suffix: str, link: str
) -> None:
    folder.mkdir(parents=True)
    for number, to in ((1, target), (2, tmp_path / "new")):
        place = folder / f"000000000{number}{suffix}"
        if link == "symlink_to":
            place.symlink_to(to)
        elif to.exists():
            os.link(to, place)
    box = Box(folder)
    assert box.put(10)
    assert box.drain() == list(range(10))
    assert target.read_text("ascii") == "keep me"
    assert not (tmp_path / "new").exists()
    box.spool.close()


def test_a_link_in_the_place_of_the_folder_is_not_followed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.parent.mkdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(OSError, match="is a symbolic link, which is not followed"):
        check(folder)
    assert "is a symbolic link, which is not followed" in refused(folder, caplog)
    assert list(elsewhere.iterdir()) == []


def give_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, NOBODY, NOBODY)


def give_root(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    os.chown(folder.parent, NOBODY, NOBODY)


def give_above(folder: Path) -> None:
    os.chown(folder.parents[1], NOBODY, NOBODY)


def open_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o770)


def open_root(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.parent.chmod(0o777)


def open_above(folder: Path) -> None:
    folder.parents[1].chmod(0o777)


def link_of_another(folder: Path) -> None:
    place = folder.parents[1] / "place"
    place.mkdir()
    folder.parent.symlink_to(place)
    os.chown(folder.parent, NOBODY, NOBODY, follow_symlinks=False)


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder of another": (
        give_folder,
        "{folder}: belongs to the user nobody, and this is root: run netobs as nobody, as its service does, or choose "
        "another spool",
    ),
    "root of another": (give_root, "{root}: belongs to the user nobody, and this is root: run netobs as nobody"),
    "parent of another": (give_above, "{root}: lies in {above}, where another user could exchange it"),
    "folder for others": (open_folder, "{folder}: may be written to by other users: run `chmod go-w {folder}`"),
    "root for others": (open_root, "{root}: may be written to by other users: run `chmod go-w {root}`"),
    "parent for others": (open_above, "{root}: lies in {above}, where another user could exchange it"),
    "link of another": (link_of_another, "{root}: is a symbolic link of another user"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_place_that_others_could_exchange_is_refused(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() != 0:
        pytest.skip("root is needed to give folders away")
    folder = tmp_path / "above" / "spool" / "main"
    folder.parents[1].mkdir()
    make, expected = OTHERS[name]
    make(folder)
    expected = expected.format(folder=folder, root=folder.parent, above=folder.parents[1])
    with pytest.raises(PermissionError, match="spool") as caught:
        check(folder)
    assert f"{caught.value.filename}: {caught.value.strerror}".startswith(expected)
    assert refused(folder, caplog).startswith(expected)
    assert not list(folder.glob("*"))


@pytest.mark.parametrize("name", ["a link of one's own", "a folder of root's", "a sticky folder"])
def test_a_place_that_is_safe(folder: Path, tmp_path: Path, name: str) -> None:
    if name == "a link of one's own":
        (tmp_path / "place").mkdir()
        folder.parent.symlink_to(tmp_path / "place")
    else:
        folder.parent.mkdir()
        folder.parent.chmod(0o755 if name == "a folder of root's" else 0o1777)
    check(folder)
    box = Box(folder)
    assert box.put(10)
    assert box.drain() == list(range(10))
    box.spool.close()


def test_a_user_is_told_how_to_take_over_what_root_has_made() -> None:
    """Root ran netobs by hand, once."""
    if os.geteuid() != 0:
        pytest.skip("root is needed to become another user")
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        folder = Path(place, "main")
        folder.mkdir()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = ""
            try:
                os.setresuid(NOBODY, NOBODY, NOBODY)
                check(folder)
            except OSError as error:
                said = f"{error.filename}: {error.strerror}"
            finally:
                os.write(writing, said.encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            said = answer.read()
        os.waitpid(child, 0)
    hint = f"run `chown -R nobody: {folder}`, or choose another spool"
    assert said == f"{folder}: belongs to the user root, and this is nobody: {hint}"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_taken_away_is_counted_and_made_again(
    box: Box, folder: Path, tmp_path: Path, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    box.put(2500)
    box.put(2500)
    found = box.get()
    assert found
    folder.rename(tmp_path / "gone")
    if replaced:
        folder.mkdir()
    caplog.clear()
    assert box.put(100), "at once"
    lost = 5000 - found[2].flows
    assert box.stats.not_sent["removed"].flows == lost
    assert box.stats.spooled == tally(list(range(5000, 5100)))
    assert caplog.messages == [
        f'collector "main": {lost} flows are not sent: spool {folder} was removed or replaced; it is made again'
    ]
    box.stats.count_resent(found[2], spooled=True)
    box.spool.rewind(found[0], found[2])
    box.check()
    assert box.stats.not_sent["removed"].flows == 5000
    assert box.drain() == list(range(5000, 5100))
    assert data_files(folder) == []


def test_the_end_of_a_folder_is_noticed_when_it_is_read(box: Box, folder: Path) -> None:
    box.put(2500)
    shutil.rmtree(folder.parent)
    assert box.get() is None
    assert box.stats.not_sent == {"removed": tally(list(range(2500)))}
    assert box.stats.spooled == Tally()
    assert not box.spool
    assert box.put(10)
    assert box.drain() == list(range(2500, 2510))


@pytest.mark.parametrize("suffix", [".ipfix", ".index"])
@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_a_file_that_is_taken_away_is_counted(
    box: Box, folder: Path, which: int, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(60):
        box.put(100)
    name = data_files(folder)[which]
    (folder / name).with_suffix(suffix).unlink()
    assert box.put(100)
    lost = box.stats.not_sent["removed"].flows
    assert box.stats.spooled.flows == 6100 - lost
    assert f"{lost} flows are not sent: files were removed from spool {folder}: {name}" in caplog.text
    numbers = box.drain()
    assert len(numbers) == 6100 - lost > 0
    assert tally(numbers) + box.stats.not_sent["removed"] == tally(list(range(6100)))


def test_a_file_that_is_replaced_is_not_taken_for_the_old_one(box: Box, folder: Path) -> None:
    box.put(400)
    (name,) = data_files(folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    assert box.put(10)
    assert box.stats.not_sent == {"removed": tally(list(range(400)))}
    assert box.drain() == list(range(400, 410))


def test_a_disk_that_is_read_only_is_said_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid() != 0:
        pytest.skip("root is needed to mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size=4m netobs-test {place}") != 0:
        pytest.skip("no tmpfs can be mounted")
    try:
        caplog.set_level(logging.WARNING, "netobs.export")
        (place / "spool").mkdir()
        assert os.system(f"mount -o remount,ro {place}") == 0
        box = Box(place / "spool" / "main")
        assert not box.put(10)
        assert "Read-only file system; flows wait in memory" in caplog.text
        with pytest.raises(OSError, match="Read-only file system"):
            check(place / "spool" / "main")
        assert os.system(f"mount -o remount,rw {place}") == 0
        box.now_ns += RETRY_NS
        assert box.write(rows(0, 10))
        assert box.drain() == list(range(10))
        box.spool.close()
    finally:
        assert os.system(f"umount {place}") == 0
