"""How messages show many names on one line."""

from __future__ import annotations

import pytest

from netobs.config.text import folded


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["eth0"], "eth0"),
        ([f"tap{number}" for number in range(8)], "tap0, tap1, tap2, tap3, tap4, tap5, tap6, tap7"),
        ([f"tap{number}" for number in range(9)], "9 taps"),
        (["eth0", "bond0", *(f"tap{number}" for number in range(512))], "eth0, bond0 and 512 taps"),
        (["eth0", *(f"tap{number:08x}-{number:02x}" for number in range(0xA0000000, 0xA0000100))], "eth0 and 256 taps"),
        ([*(f"vnet{number}" for number in range(20)), *(f"veth{n:07x}" for n in range(9))], "20 vnets and 9 veths"),
        (["eno1", "eno2", *(f"qvo{number}" for number in range(90)), "br-int"], "eno1, eno2, br-int and 90 qvos"),
        ([f"{letter}{letter}0" for letter in "abcdefghijkl"], "aa0, bb0, cc0, dd0, ee0, ff0, gg0, hh0 and 4 others"),
        ([f"{number}" for number in range(10)], "0, 1, 2, 3, 4, 5, 6, 7 and 2 others"),
        (["tap\n0"], "tap\\n0"),
    ],
)
def test_names_are_folded(names: list[str], text: str) -> None:
    assert folded(names) == text
