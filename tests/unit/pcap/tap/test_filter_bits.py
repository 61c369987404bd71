"""Bits for selections: given out again when nothing of their past can come any more."""

from __future__ import annotations

from netobs.pcap.selection import Filter, Selection
from netobs.pcap.tap.filter_bits import MAX_SELECTIONS, QUIET_NS, FilterBits

HTTP, DNS = Selection(Filter("tcp,80", (), ())), Selection(Filter("udp,53", (), ()))
NOW = 1_000_000


def test_a_bit_is_taken_when_it_is_in_force() -> None:
    bits = FilterBits()
    assert [bits.choose(HTTP), bits.choose(DNS)] == [0, 0]  # the programs of neither were accepted
    bits.put_in_force({0: HTTP}, NOW)
    assert bits.choose(DNS) == 1
    bits.put_in_force({0: HTTP, 1: DNS}, NOW)
    assert bits.choose(HTTP._replace(ifindex=3)) == 2


def test_a_bit_waits_for_programs_without_it_for_a_second_and_for_all_packets() -> None:
    bits = FilterBits()
    bits.put_in_force({0: HTTP}, NOW)
    bits.all_read(NOW + 9 * QUIET_NS)  # programs that know it are still there
    assert bits.choose(DNS) == 1
    bits.put_in_force({1: DNS}, NOW + 10 * QUIET_NS)
    bits.all_read(NOW + 11 * QUIET_NS - 1)
    assert bits.choose(DNS._replace(ifindex=1)) == 2
    bits.all_read(NOW + 11 * QUIET_NS)
    assert bits.choose(DNS._replace(ifindex=2)) == 0


def test_the_second_begins_with_the_first_programs_without_it() -> None:
    bits = FilterBits()
    bits.put_in_force({0: HTTP}, NOW)
    bits.put_in_force({}, NOW)
    bits.put_in_force({}, NOW + QUIET_NS // 2)
    assert bits.choose(DNS) == 1
    bits.all_read(NOW + QUIET_NS)
    assert bits.choose(DNS) == 0


def test_a_bit_that_waits_serves_the_same_selection_again() -> None:
    bits = FilterBits()
    bits.put_in_force({0: HTTP}, NOW)
    bits.put_in_force({}, NOW)
    assert (bits.choose(DNS), bits.choose(HTTP)) == (1, 0)
    bits.put_in_force({0: HTTP}, NOW)
    bits.all_read(NOW + QUIET_NS)
    assert bits.choose(DNS) == 1


def test_no_more_than_there_are() -> None:
    bits = FilterBits()
    selections = {number: HTTP._replace(ifindex=number) for number in range(MAX_SELECTIONS)}
    bits.put_in_force(selections, NOW)
    assert bits.choose(DNS) is None
    del selections[7]
    bits.put_in_force(selections, NOW)
    assert bits.choose(DNS) is None
    bits.all_read(NOW + QUIET_NS)
    assert bits.choose(DNS) == 7
    bits.clear()
    assert bits.choose(DNS) == 0
