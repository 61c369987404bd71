"""Lists of nodes, as /sys writes them."""

from __future__ import annotations

import pytest

from netobs.kernel.numa import nodes


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("0\n", [0]), ("0-1\n", [0, 1]), ("0-2,5,7-8\n", [0, 1, 2, 5, 7, 8]), ("", []), ("\n", []), ("64\n", [64])],
)
def test_lists_of_nodes(listed: str, expected: list[int]) -> None:
    assert nodes(listed) == expected
