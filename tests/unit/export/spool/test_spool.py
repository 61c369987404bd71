"""The spool by itself: real files; the segments that a crash, a full disk or another template leave."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from netobs import encode
from netobs.base.errors import ExportError
from netobs.export.spool.folder import used_bytes
from netobs.export.spool.index import ENTRY
from netobs.export.spool.place import Unusable, check, folder_of
from netobs.export.spool.segment import Damaged, sets_of
from netobs.export.spool.spool import RETRY_NS
from netobs.export.spool.templates import Readable
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally
from tests.unit.export.box import MAX_BYTES, SIZE, Box, again, data_files, split, tally
from tests.unit.export.support import HEADER, Encoder, Header, numbers_of, rows


def test_everything_comes_out_once_in_order_and_leaves_nothing(box: Box, folder: Path) -> None:
    for count in (1, 100, 5000, 39, 3000):
        assert box.put(count)
    assert box.stats.queued == Tally()
    assert box.stats.spooled == box.stats.seen
    assert len(data_files(folder)) > 1
    assert folder.stat().st_mode & 0o027 == 0
    assert box.drain() == list(range(8140))
    assert data_files(folder) == []
    assert not box.spool
    assert box.get() is None
    assert box.put(10)
    assert box.drain() == list(range(8140, 8150))


def test_each_segment_is_an_ipfix_file_with_a_sequence_of_its_own(box: Box, folder: Path) -> None:
    for _ in range(60):
        box.put(100)
    names = data_files(folder)
    assert len(names) > 2
    numbers = []
    for name in names:
        messages = split((folder / name).read_bytes())
        assert messages[0].numbers == []
        expected = 0
        for message in messages:
            assert message.sequence == expected
            expected += len(message.numbers)
        numbers += numbers_of(messages)
    assert numbers == list(range(6000))


def test_the_next_run_goes_on_behind_what_was_handed_over(box: Box, folder: Path) -> None:
    box.put(3000)
    box.put(3000)
    first = []
    for _ in range(8):
        found = box.get()
        assert found
        first += found[1]
    second = again(box)
    assert second.stats.taken_over == second.stats.spooled == box.stats.spooled
    second.put(50)
    assert first + second.drain()[:-50] == list(range(6000))
    assert data_files(folder) == []
    second.spool.close()


def test_what_is_through_but_not_acknowledged_is_not_sent_by_the_next_run(box: Box, folder: Path) -> None:
    box.put(6000)
    while box.get():
        pass
    assert len(data_files(folder)) > 0
    second = again(box)
    assert second.stats.taken_over == Tally()
    assert second.get() is None
    assert data_files(folder) == []
    second.spool.close()


def test_rewind_over_a_border_of_segments(box: Box) -> None:
    for _ in range(3):
        box.put(2500)
    parts = []
    while found := box.get():
        parts.append(found)
    assert len({batch.serial for batch, _, _ in parts}) > 1
    box.spool.release(parts[0][0])
    for batch, numbers, carried in reversed(parts[1:]):
        box.stats.count_resent(tally(numbers), spooled=True)
        box.spool.rewind(batch, carried)
        box.check()
        assert box.stats.not_sent == {}
    assert box.drain() == list(range(len(parts[0][1]), 7500))


def test_the_oldest_segment_gives_way_and_is_counted(box: Box) -> None:
    for _ in range(200):
        assert box.put(200)
        assert box.spool.used_bytes <= MAX_BYTES
    lost = box.stats.not_sent["spool_full"].flows
    assert box.stats.not_sent == {"spool_full": tally(list(range(lost)))}
    assert 0 < lost < 40_000
    assert used_bytes(box.directory) == box.spool.used_bytes > MAX_BYTES * 0.8
    assert box.drain() == list(range(lost, 40_000))


def test_a_segment_that_is_being_sent_gives_way_for_what_is_left_of_it(box: Box) -> None:
    box.put(1500)
    box.put(1500)
    found = box.get()
    assert found
    for _ in range(200):
        box.put(200)
    lost = box.stats.not_sent["spool_full"].flows
    box.stats.count_resent(found[2], spooled=True)
    box.spool.rewind(found[0], found[2])
    box.check()
    assert box.stats.not_sent["spool_full"].flows == lost + found[2].flows
    assert box.drain() == list(range(len(found[1]) + lost, 43_000))


@pytest.mark.parametrize("cut", [1, 15, 16, 700, 1399])
def test_a_torn_tail_is_cut_off(box: Box, folder: Path, cut: int) -> None:
    """kill -9 between the write of the data and of the index, or within either."""
    box.put(400)
    (name,) = data_files(folder)
    data, index = folder / name, (folder / name).with_suffix(".index")
    whole = data.read_bytes()
    with data.open("ab") as file:
        file.write(whole[-1400:][:cut])
    with index.open("ab") as file:
        file.write(index.read_bytes()[: min(cut, ENTRY.itemsize - 1)])
    second = again(box)
    assert data.read_bytes() == whole
    assert second.drain() == list(range(400))
    second.spool.close()


def test_other_templates_are_not_mixed_in(box: Box, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    box.put(400)
    second = again(box, element=3)
    assert data_files(folder) == ["0000000001.ipfix.other-template"]
    assert second.stats.not_sent == {"other_template": tally(list(range(400)))}
    assert second.stats.taken_over.flows == 400
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "400 flows are not sent" in warning
    assert f"netobs listen --file {folder}/0000000001.ipfix.other-template" in warning
    second.put(30)
    second.check()
    assert second.drain() == list(range(30))
    assert second.spool.used_bytes > 400 * 20
    third = again(second)
    assert third.stats.taken_over == Tally()
    assert third.spool.used_bytes == second.spool.used_bytes
    for _ in range(100):
        third.put(300)
    assert "0000000001.ipfix.other-template" not in data_files(folder), "it gives way first"
    third.spool.close()


def sets(*templates: tuple[int, ...]) -> bytes:
    """Templates with an id and elements (above 0x8000: of an enterprise) in 4 octets each, see ``sets_of``."""
    return b"\0\2" + b"".join(
        struct.pack(">HH", number, len(elements))
        + b"".join(struct.pack(">HH", each, 4) + bytes(4 if each & 0x8000 else 0) for each in elements)
        for number, *elements in templates
    )


OWN = sets((2000, 8, 12, 1, 0x8005), (3000, 27, 28, 1))


@pytest.mark.parametrize(
    ("written", "can_be_read"),
    [
        (OWN, True),
        (sets((256, 8, 12, 1, 0x8005), (257, 27, 28, 1)), True),
        (sets((256, 1, 0x8005, 12, 8)), True),  # in another order
        (sets((256, 8, 1)), True),  # without some
        (sets((3000, 27, 28, 1)), True),
        (sets((256, 8, 12, 1, 2)), False),  # with another
        (sets((256, 8, 27)), False),  # which no single one has
        (sets((256, 8), (257, 99)), False),
        (sets((2000, 12, 8, 1, 0x8005)), False),  # the same id for another order
    ],
)
def test_what_was_written_with_other_templates(written: bytes, can_be_read: bool) -> None:
    assert Readable(OWN).takes(written) is can_be_read


FORMER_DEFAULT = "000200700100001a00080004000c000400070002000b0002000400010005000100060001000a0004000e0004003d0001\
0001000800020008009800080099000800880001003c0001010000020038000600500006003a0002003b0002003400010035000100190008001a0008\
00200002"
"""The Template Set for IPv4 that version 0.1.0 sent with the template "default", under the id 256."""


def test_the_default_template_of_the_last_release_can_be_read() -> None:
    now = encode.Encoder(encode.load_templates("default")).template_messages(encode.Header(0, 0, 1), SIZE)
    former = bytes.fromhex(FORMER_DEFAULT)
    message = HEADER.pack(10, 16 + len(former), 0, 0, 1, 0, 0)[:16] + former
    assert Readable(sets_of(b"".join(now))).takes(sets_of(message))


def test_an_id_that_an_older_file_has_means_nothing_else_in_a_later_one() -> None:
    readable = Readable(OWN)
    assert readable.takes(sets((256, 8, 12)))
    assert not readable.takes(sets((257, 27), (256, 12, 8)))
    assert readable.takes(sets((256, 8, 12), (257, 27)))


@pytest.mark.parametrize("damaged", [b"", b"\0\3" + OWN[2:], OWN[:-1], b"\0\2\1\0\0\0", b"\0\2\1"])
def test_templates_that_are_none(damaged: bytes) -> None:
    with pytest.raises(Damaged):
        Readable(OWN).takes(damaged)


def test_messages_that_the_transport_does_not_take_are_kept_aside(box: Box, folder: Path) -> None:
    box.put(400)
    second = again(box, max_message_size=1000)
    assert second.stats.not_sent == {"too_large": tally(list(range(400)))}
    assert data_files(folder) == ["0000000001.ipfix.too-large"]
    second.spool.close()


def test_two_daemons_on_one_spool(box: Box, folder: Path) -> None:
    with pytest.raises(ExportError, match=f'collector "main": spool {folder} is used by another process'):
        Box(folder)
    box.put(10)
    assert box.drain() == list(range(10))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("root is needed to mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k netobs-test {place}") != 0:
        pytest.skip("no tmpfs can be mounted")
    yield place
    assert os.system(f"umount {place}") == 0


def test_a_full_disk_is_said_once_and_tried_again(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "netobs.export")
    box = Box(small_disk / "spool" / "main")
    kept = 0
    while box.put(500):
        kept += 500
    assert 0 < kept < 20_000
    assert box.stats.queued == tally(list(range(kept, kept + 500)))
    assert box.spool.begin(list, box.now_ns) is None, "not before a minute is over"
    box.now_ns += RETRY_NS
    assert not box.write(rows(kept, 500))
    (warning,) = caplog.messages
    assert "No space left on device" in warning
    assert str(small_disk) in warning
    assert box.drain() == list(range(kept))
    box.now_ns += RETRY_NS
    assert box.write(rows(kept, 500))
    assert caplog.messages[1:] == [f'collector "main": spool {box.directory} takes flows again']
    assert box.drain() == list(range(kept, kept + 500))
    box.spool.close()


def test_a_folder_that_cannot_be_made_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = Box(tmp_path / "missing" / "spool" / "main")
    assert not box.opened
    assert not box.put(10)
    assert f"spool {tmp_path}/missing: No such file or directory; flows wait in memory" in caplog.text
    (tmp_path / "missing").mkdir()
    assert not box.write(rows(0, 10))
    box.now_ns += RETRY_NS
    assert box.write(rows(0, 10))
    assert len(caplog.messages) == 1
    box.spool.close()


def test_names_of_folders() -> None:
    assert folder_of("/s", "flows.example") == Path("/s/flows.example")
    assert folder_of("/s", "2001:db8::1") == Path("/s/2001:db8::1")
    assert folder_of("/s", "..") == Path("/s/%2E.")
    assert folder_of("/s", "a/b c") == Path("/s/a%2Fb%20c")


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    check(tmp_path / "spool" / "main")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError) as missing:
        check(tmp_path / "a" / "b" / "main")
    assert missing.value.filename == str(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="Not a directory"):
        check(tmp_path / "file" / "main")
    with pytest.raises(Unusable, match=r"is in a file system that takes no files \(proc\): '/proc'"):
        check(Path("/proc/netobs/main"))


def test_sets_are_the_same_however_messages_share_them() -> None:
    one, two = Encoder(), Encoder(element=3)
    early, late = Header(1, 0, 7), Header(99, 5, 8)
    assert sets_of(one.template_messages(early, 1400)[0]) == sets_of(one.template_messages(late, 512)[0])
    assert sets_of(b"".join(two.template_messages(early, 1400))) != sets_of(one.template_messages(early, 1400)[0])
    with pytest.raises(Damaged):
        sets_of(b"\0\x0a\0\0")


def test_a_block_is_written_wholly_or_not_at_all(box: Box) -> None:
    box.put(100)
    empty = np.zeros(0, dtype=np.int64)
    assert box.spool.append(MessageBlock(memoryview(b""), empty, empty, empty, empty), box.now_ns)
    assert box.drain() == list(range(100))
