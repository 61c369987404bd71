"""MessageBlock: where Messages of different lengths begin and end, and which of them one UDP_SEGMENT call takes."""

from __future__ import annotations

import numpy as np
import pytest

from netobs.flow.records import MessageBlock


def block_of(*sizes: int) -> MessageBlock:
    nothing = np.zeros(len(sizes), dtype=np.int64)
    buffer = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    return MessageBlock(memoryview(buffer), np.cumsum(sizes), nothing, nothing, nothing)


def test_messages_are_found_by_their_number() -> None:
    block = block_of(3, 1, 2)
    assert [bytes(block.message(index)) for index in range(len(block))] == [b"\0\0\0", b"\1", b"\2\2"]
    assert bytes(block.span(1, 3)) == b"\1\2\2"
    assert bytes(block.span(0, 0)) == b""


@pytest.mark.parametrize(
    ("sizes", "start", "stop", "end"),
    [
        ((9, 9, 9, 4), 0, 4, 4),  # the last one may be shorter
        ((9, 9, 9, 4), 0, 2, 2),  # as far as asked
        ((9, 4, 9, 9), 0, 4, 2),  # nothing after a shorter one
        ((9, 9, 10, 9), 0, 4, 2),  # and no longer one
        ((9, 9, 10, 9), 2, 4, 4),
        ((9,), 0, 1, 1),
    ],
)
def test_a_run_is_what_udp_segmentation_takes(sizes: tuple[int, ...], start: int, stop: int, end: int) -> None:
    assert block_of(*sizes).run(start, stop) == end
