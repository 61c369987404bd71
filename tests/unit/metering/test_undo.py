"""The undo log puts each part of a row back as it was at the beginning."""

from __future__ import annotations

import numpy as np
import pytest

from lab.keeping import DictKeeper
from netobs.flow.records import EXTRA_RECORD, RECORD, Records, opaque
from netobs.metering.undo import UndoLog


@pytest.mark.parametrize("dtype", [RECORD, EXTRA_RECORD])
@pytest.mark.parametrize("generation", [7, 1 << 32 | 7])
def test_the_oldest_copy_of_a_part_counts_in_whatever_order(dtype: np.dtype[np.void], generation: int) -> None:
    rng = np.random.default_rng(5)

    def anything(rows: int) -> Records:
        return rng.integers(0, 256, rows * dtype.itemsize, np.uint8).view(dtype)

    records = anything(20_000)  # more than are put back at once
    before = records.copy()
    with DictKeeper() as keeper:
        log = UndoLog(dtype, keeper)
        log.begin(generation, 15_000)
        for parts in (["metrics"], ["metrics", "key"], ["metrics"], ["metrics", "key"]):
            rows = np.sort(rng.choice(15_000, 9_000, replace=False)).astype(np.int32)
            log.save(records[rows], rows, parts)
            changed = anything(len(rows))
            for name in dtype.names or ():
                if "key" in parts or name in ("packets", "last_ns", "syn"):
                    records[name][rows] = changed[name]
        log.save_range(records, 14_000, 20_000)
        records[14_000:] = anything(6_000)
        after = keeper.succeed()
    with after:
        next_log = UndoLog(dtype, after)
        assert next_log.roll_back(records, generation + 1) == 0
        for _ in range(2):
            assert next_log.roll_back(records, generation) > 0
            assert opaque(records[:15_000]).tobytes() == opaque(before[:15_000]).tobytes()
