"""The state document as JSON, in parts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netobs.daemon.state import PART, encoded


@pytest.mark.parametrize("count", [0, 1, PART, PART + 1, 3 * PART - 1])
def test_parts_are_one_document(count: int) -> None:
    tree: dict[str, Any] = {
        "version": 1,
        "interfaces": [{"name": f'tap"{number}', "seen": None, "numbers": [1, 2]} for number in range(count)],
        "none": None,
        "inner": {"list": [], "text": "\u00e4\x1b\n"},
        "problems": ["one, [two]"],
    }
    parts = list(encoded(tree))
    assert json.loads("".join(parts)) == tree
    assert "\n" not in "".join(parts)
    assert max(part.count("tap") for part in parts) == min(count, PART)
