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
        (["eno1", "bond0", *(f"bond0.{n}" for n in range(600))], "eno1, bond0 and 600 bond0.*"),
        ([*(f"bond{number}.7" for number in range(9)), "eno1"], "eno1 and 9 bonds"),
        ([*(f"vnet{n}" for n in range(300)), *(f"vnet{n}.100" for n in range(300))], "600 vnets"),
        (
            ["ovs-system", "br-int", "br-ex", *(f"qr-{n:08x}-7f" for n in range(1, 1 << 31, 1 << 24))],
            "ovs-system, br-int, br-ex and 128 qrs",
        ),
    ],
)
def test_names_are_folded(names: list[str], text: str) -> None:
    assert folded(names) == text
