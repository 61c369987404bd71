"""Names and globs of network namespaces, and of interfaces in them."""

from __future__ import annotations

import pytest

from netobs.config.namespaces import NamespacePatterns, NamespaceSelector, is_namespace_name
from netobs.config.values import BadValue


def test_an_entry_stands_for_namespaces_and_perhaps_for_some_of_their_interfaces() -> None:
    selector = NamespaceSelector(["qrouter-*/q[rg]-*", "qrouter-*/tap9", "ovnmeta-1"], exclude=["lo", "qg-7"])
    names = ("qrouter-1", "ovnmeta-1", "ovnmeta-12", "xqrouter-1", "qrouter-")
    assert [name for name in names if selector.matches(name)] == ["qrouter-1", "ovnmeta-1", "qrouter-"]
    router, meta = selector.interfaces("qrouter-1"), selector.interfaces("ovnmeta-1")
    assert [name for name in ("qr-1", "qg-1", "qg-7", "tap9", "tap1", "lo") if router.matches(name)] == [
        "qr-1", "qg-1", "tap9",
    ]  # fmt: skip
    assert [name for name in ("qr-1", "tap9", "lo") if meta.matches(name)] == ["qr-1", "tap9"]


@pytest.mark.parametrize("name", ["a", "qrouter-1", "a..b", "...", "-", "ä" * 127])
def test_what_a_namespace_can_be_called(name: str) -> None:
    assert is_namespace_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0", "a\n", "\x1b[2J", "x" * 256, "ä" * 128])
def test_what_no_namespace_can_be_called(name: str) -> None:
    assert not is_namespace_name(name)


def test_lists_of_entries() -> None:
    both, names = NamespacePatterns(), NamespacePatterns(interfaces=False)
    assert both.parse(["qrouter-*/q[rg]-*", "ovnmeta-1"]) == ("qrouter-*/q[rg]-*", "ovnmeta-1")
    assert names.parse([]) == both.parse([]) == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("qrouter-*", 'write ["qrouter-*"]'),
        (7, "expected a list of names or globs"),
        ([7], "entry 1: expected a name or a glob, got 7"),
        (["a", ""], 'entry 2, "": the name of a network namespace has 1 to 255 bytes'),
        (["../a"], "1 to 255 bytes"),
        (["/a"], "1 to 255 bytes"),
        (["a/"], "an interface name is not empty"),
        (["a/b/c"], "an interface name is not empty"),
        (["a/" + "x" * 16], "no interface can have this name"),
        (["qr[1"], 'a "[" without its "]"'),
    ],
)
def test_mistakes(value: object, reason: str) -> None:
    with pytest.raises(BadValue) as raised:
        NamespacePatterns().parse(value)
    assert reason in " ".join(raised.value.reasons)


def test_the_helper_takes_no_interfaces() -> None:
    with pytest.raises(BadValue, match="1 to 255 bytes"):
        NamespacePatterns(interfaces=False).parse(["qrouter-*/qr-1"])
