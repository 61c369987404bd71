"""Bits for selections: shared, given out again when nothing of their past can come any more."""

from __future__ import annotations

from netobs.pcap.selection import Filter, Selection
from netobs.pcap.tap.filter_bits import MAX_SELECTIONS, QUIET_NS, FilterBits

HTTP, DNS = Selection(Filter("tcp,80", (), ())), Selection(Filter("udp,53", (), ()))
NOW = 1_000_000


def test_equal_selections_share_a_bit() -> None:
    bits = FilterBits()
    assert [bits.acquire(one) for one in (HTTP, DNS, HTTP._replace(), HTTP._replace(ifindex=3))] == [0, 1, 0, 2]
    assert (bits.users(0), bits.users(1)) == (2, 1)
    bits.give_back(0)
    assert bits.in_use() == [(0, HTTP), (1, DNS), (2, HTTP._replace(ifindex=3))]
    bits.give_back(0)
    assert bits.in_use() == [(1, DNS), (2, HTTP._replace(ifindex=3))]


def test_a_bit_waits_for_programs_without_it_for_a_second_and_for_all_packets() -> None:
    bits = FilterBits()
    bits.acquire(HTTP)
    bits.in_force(NOW)
    bits.give_back(0)
    bits.all_read(NOW + 9 * QUIET_NS)  # programs that know it are still there
    assert bits.acquire(DNS) == 1
    bits.in_force(NOW + 10 * QUIET_NS)
    bits.all_read(NOW + 11 * QUIET_NS - 1)
    assert bits.acquire(DNS._replace(ifindex=1)) == 2
    bits.all_read(NOW + 11 * QUIET_NS)
    assert bits.acquire(DNS._replace(ifindex=2)) == 0


def test_the_second_begins_with_the_first_programs_without_it() -> None:
    bits = FilterBits()
    bits.acquire(HTTP)
    bits.give_back(0)
    bits.in_force(NOW)
    bits.in_force(NOW + QUIET_NS // 2)
    bits.all_read(NOW + QUIET_NS)
    assert bits.acquire(DNS) == 0


def test_a_bit_that_waits_serves_the_same_selection_again() -> None:
    bits = FilterBits()
    assert bits.acquire(HTTP) == 0
    bits.give_back(0)
    bits.in_force(NOW)
    assert bits.acquire(HTTP) == 0
    bits.all_read(NOW + QUIET_NS)
    assert bits.in_use() == [(0, HTTP)]


def test_a_bit_whose_programs_were_refused() -> None:
    bits = FilterBits()
    bits.acquire(HTTP)
    bits.forget(0)
    assert bits.acquire(DNS) == 0  # it never meant anything
    bits.in_force(NOW)
    bits.give_back(0)
    bits.in_force(NOW)
    bits.acquire(DNS)
    bits.forget(0)
    assert (bits.acquire(HTTP), bits.in_use()) == (1, [(1, HTTP)])  # packets of DNS may still come
    bits.in_force(NOW + QUIET_NS)
    bits.all_read(NOW + 2 * QUIET_NS)
    assert bits.acquire(HTTP._replace(ifindex=1)) == 0


def test_no_more_than_there_are() -> None:
    bits = FilterBits()
    selections = [HTTP._replace(ifindex=number) for number in range(MAX_SELECTIONS + 1)]
    assert [bits.acquire(one) for one in selections] == [*range(MAX_SELECTIONS), None]
    bits.forget(7)
    assert bits.acquire(selections[-1]) == 7
    bits.clear()
    assert (bits.in_use(), bits.acquire(DNS)) == ([], 0)
