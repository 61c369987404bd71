"""Names, globs and regular expressions against interface names."""

from __future__ import annotations

import pytest

from netobs.config import InterfaceSelector


@pytest.mark.parametrize(
    ("include", "exclude", "taken", "left"),
    [
        (["eth0"], [], ["eth0"], ["eth01", "xeth0", "ETH0", ""]),
        (["bond*"], [], ["bond", "bond0", "bond0.100"], ["mybond0"]),
        (["eth?", "[ab]x"], [], ["eth1", "ax"], ["eth", "eth10", "cx"]),
        (["[!e]*"], [], ["lo"], ["eth0"]),
        (["/^tap[0-9a-f-]+$/"], [], ["tap1c-9f"], ["tap", "xtap1", "tapx"]),
        (["/tap/"], [], ["tap1", "my-tap"], ["TAP1"]),
        (["*"], ["lo", "veth*", "/^tap.0$/"], ["eth0", "tap0", "loop"], ["lo", "veth1", "tap10"]),
        (["eth0", "eth*"], ["eth*"], ["eth0"], ["eth1"]),
        (["a.b"], [], ["a.b"], ["axb"]),
        (["a.*"], [], ["a.1"], ["ab1"]),
    ],
)
def test_matches(include: list[str], exclude: list[str], taken: list[str], left: list[str]) -> None:
    selector = InterfaceSelector(include, exclude)
    assert [name for name in taken + left if selector.matches(name)] == taken


@pytest.mark.parametrize(
    "entry", ["", "a b", "a/b", "eth0:1", "x" * 16, ".", "..", "/(/", "/a", "/", "a[", "[]", "é" * 8]
)
def test_an_entry_that_can_match_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".{10}"):
        InterfaceSelector(["*"], [entry])


def test_the_longest_name() -> None:
    assert InterfaceSelector(["x" * 15]).matches("x" * 15)
