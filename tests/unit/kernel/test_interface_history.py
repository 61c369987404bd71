"""What interfaces are called, while they are there and after."""

from __future__ import annotations

from netobs.kernel.interface_history import InterfaceNames
from netobs.kernel.interfaces import Interface


def interface(index: int, name: str, alias: str = "") -> Interface:
    return Interface(index, name, arphrd=1, alias=alias)


def known(names: InterfaceNames) -> dict[int, tuple[bytes, bytes]]:
    table = names.table()
    assert list(names.by_index()) == [each.index for each in names.by_index().values()]
    assert sorted(names.by_index()) == table.keys.tolist()
    return {int(index): (table.names[at], table.aliases[at]) for at, index in enumerate(table.keys)}


def test_names_are_those_that_were_learnt_last() -> None:
    names = InterfaceNames()
    assert known(names) == {}
    names.learn(interface(3, "eth0"))
    names.learn(interface(2, "lo"))
    names.learn(interface(3, "wan", "uplink"))
    assert known(names) == {2: (b"lo", b""), 3: (b"wan", b"uplink")}


def test_an_interface_that_is_gone_keeps_its_name_until_its_index_is_used_again() -> None:
    names = InterfaceNames()
    names.learn(interface(3, "tap1"))
    names.retire(3)
    names.retire(4)
    assert known(names) == {3: (b"tap1", b"")}
    names.learn(interface(3, "tap2"))
    assert known(names) == {3: (b"tap2", b"")}


def test_only_so_many_that_are_gone_are_remembered() -> None:
    names = InterfaceNames(max_gone=2)
    for index in range(1, 6):
        names.learn(interface(index, f"tap{index}"))
    for index in (2, 1, 2, 3):
        names.retire(index)
    assert sorted(known(names)) == [2, 3, 4, 5]
    names.learn(interface(2, "tap2"))  # there again: no longer among them
    names.retire(4)
    names.retire(5)
    assert sorted(known(names)) == [2, 4, 5]


def test_an_index_is_gone_until_it_is_used_again() -> None:
    names = InterfaceNames()
    assert not names.is_gone(3)
    names.learn(interface(3, "tap3"))
    assert not names.is_gone(3)
    names.retire(3)
    assert names.is_gone(3)
    names.learn(interface(3, "tap9"))
    assert not names.is_gone(3)


def test_table_and_mapping_are_made_anew_only_after_a_change() -> None:
    names = InterfaceNames()
    names.learn(interface(3, "eth0"))
    table, mapping = names.table(), names.by_index()
    names.learn(interface(3, "eth0"))
    names.retire(3)
    assert names.table() is table
    assert names.by_index() is mapping
    names.learn(interface(3, "eth0", "uplink"))
    assert names.table() is not table
    assert (mapping[3].alias, names.by_index()[3].alias) == ("", "uplink")
