"""What interfaces are called, while they are there and after."""

from __future__ import annotations

from netobs.capture.names import InterfaceNames


def known(names: InterfaceNames) -> dict[int, tuple[bytes, bytes]]:
    table = names.table()
    return {int(index): (table.names[at], table.aliases[at]) for at, index in enumerate(table.index)}


def test_names_are_those_that_were_learnt_last() -> None:
    names = InterfaceNames()
    assert known(names) == {}
    names.learn(3, "eth0", "")
    names.learn(2, "lo", "")
    names.learn(3, "wan", "uplink")
    assert known(names) == {2: (b"lo", b""), 3: (b"wan", b"uplink")}


def test_an_interface_that_is_gone_keeps_its_name_until_its_index_is_used_again() -> None:
    names = InterfaceNames()
    names.learn(3, "tap1", "")
    names.retire(3)
    names.retire(4)
    assert known(names) == {3: (b"tap1", b"")}
    names.learn(3, "tap2", "")
    assert known(names) == {3: (b"tap2", b"")}


def test_only_so_many_that_are_gone_are_remembered() -> None:
    names = InterfaceNames(max_gone=2)
    for index in range(1, 6):
        names.learn(index, f"tap{index}", "")
    for index in (2, 1, 2, 3):
        names.retire(index)
    assert sorted(known(names)) == [2, 3, 4, 5]
    names.learn(2, "tap2", "")  # there again: no longer among them
    names.retire(4)
    names.retire(5)
    assert sorted(known(names)) == [2, 4, 5]


def test_the_table_is_made_anew_only_after_a_change() -> None:
    names = InterfaceNames()
    names.learn(3, "eth0", "")
    table = names.table()
    names.learn(3, "eth0", "")
    names.retire(3)
    assert names.table() is table
    names.learn(3, "eth0", "uplink")
    assert names.table() is not table
