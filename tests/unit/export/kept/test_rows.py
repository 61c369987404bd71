"""The waiting rows in a file of memory, against a model of what the next process must find."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netobs.export.kept.rows import CHUNK_BYTES, FIRST_ROW, GONE, SENT, WAITS, KeptRows
from netobs.export.queue import Part
from tests.unit.export.support import Encoder, Rows, rows

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([1, 300, 9_000, 25_000, 60_000]), st.booleans()),
        st.tuples(st.just("mark"), st.floats(0, 1), st.sampled_from([SENT, GONE])),
        st.just(("end", 0, 0)),
    ),
    max_size=20,
)


def numbers(part: Part[Any]) -> list[int]:
    found: list[int] = part.data_set.rows["number"].tolist()
    assert part.data_set.packets.tolist() == part.data_set.rows["packets"].tolist()
    assert part.data_set.octets.tolist() == part.data_set.rows["octets"].tolist()
    return found


class Model:
    """``parts``: what waits, by the number of the first row; ``end``: as the state of the session would have it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("rows")
        self.rows: KeptRows[Rows] = KeptRows(self.fd, Encoder())
        self.end = FIRST_ROW
        self.states: dict[int, int] = {}
        self.parts: list[Part[Rows]] = []
        self.next = 0

    def append(self, count: int, stored: bool) -> None:
        """``stored``: whether the session lives to store the new end; if not, another process follows."""
        parts = list(self.rows.append(rows(self.next, count), 7))
        assert sum(map(len, parts)) == count
        if stored:
            self.end = self.rows.end
            self.parts += parts
            self.states.update(dict.fromkeys(range(self.next, self.next + count), WAITS))
            self.next += count
        else:
            self.follow()

    def mark(self, which: float, state: int) -> None:
        if self.parts:
            part = self.parts.pop(int(which * (len(self.parts) - 1)))
            start = int(which * len(part))
            self.rows.mark(part.at + start, len(part) - start, state)
            self.states.update(dict.fromkeys(numbers(part)[start:], state))
            self.parts += [part.slice(0, start)] if start else []

    def follow(self) -> None:
        """The next process."""
        self.rows.close()
        self.rows = KeptRows(self.fd, Encoder(), self.end)
        self.end = self.rows.end
        runs = [(part, state) for part, state in self.rows.found() if state != GONE]
        found = [(number, state) for part, state in runs for number in numbers(part)]
        assert len(found) == len(dict(found))
        assert dict(found) == {number: state for number, state in self.states.items() if state != GONE}
        self.parts = [part for part, _ in runs]

    def close(self) -> None:
        self.rows.close()
        os.close(self.fd)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_the_next_process_finds_the_rows_as_they_were(steps: list[tuple[str, Any, Any]]) -> None:
    model = Model()
    for what, first, second in steps:
        if what == "append":
            model.append(first, second)
        elif what == "mark":
            model.mark(first, second)
        else:
            model.follow()
    model.follow()
    model.close()


def test_what_is_gone_twice_frees_its_memory_once() -> None:
    fd = os.memfd_create("rows")
    kept: KeptRows[Rows] = KeptRows(fd, Encoder())
    (part,) = kept.append(rows(0, 1000), 0)
    kept._entries[0].states[:] = GONE  # and killed before more of ``mark`` was done
    after: KeptRows[Rows] = KeptRows(fd, Encoder(), kept.end)
    after.mark_again(part.at, 1000, GONE)
    first, second = (list(after.append(rows(start, 20_000), 0)) for start in (0, 20_000))
    assert [number for each in (*first, *second) for number in numbers(each)] == list(range(40_000))
    for each in (kept, after):
        each.close()
    os.close(fd)


def test_memory_of_an_outage_is_given_back_after_it() -> None:
    fd = os.memfd_create("rows")
    kept: KeptRows[Rows] = KeptRows(fd, Encoder())

    def export(count: int) -> int:
        parts = list(kept.append(rows(0, count), 0))
        used = os.fstat(fd).st_blocks * 512
        for part in parts:
            kept.mark(part.at, len(part), GONE)
        return used

    most = export(300_000)
    assert most > 10 * CHUNK_BYTES
    for _ in range(3):
        export(1000)
    assert os.fstat(fd).st_blocks * 512 <= 2 * CHUNK_BYTES
    assert np.all([chunk.left == 0 for chunk in kept._chunks])
    kept.close()
    os.close(fd)
