"""What the programs and the kernel counted, compared: the arithmetic, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from netobs.daemon.comparison import LEAST, MOST_HEADERS, OURS, PACKETS, SKBS, Sample, difference, ours
from netobs.datapath.interface_counts import COUNTED

ETHERNET = np.array([True])


def counted(**values: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    row = np.zeros(1, COUNTED)
    for name, value in values.items():
        row[name] = value % (1 << 64)
    return row


def sample(packets: int, octets: int, dropped: int = 0, /, **values: int) -> Sample:
    """``packets``, ``octets``, ``dropped``: of the kernel; ``values``: of the programs."""
    columns = ours(counted(**values), ETHERNET, False)
    return Sample(columns, columns, np.array([[packets, octets, dropped]], "<i8"))


NOTHING = sample(0, 0)


def compared(now: Sample, base: Sample = NOTHING) -> tuple[int, int, int]:
    packets, octets, dropped = difference(base, now)
    return int(packets[0]), int(octets[0]), int(dropped[0])


PLAIN = {"packets": 10, "octets": 1000}


@pytest.mark.parametrize(
    ("packets", "octets", "expected"),
    [
        (10, 1140, (0, 0, 0)),
        (10, 1000, (0, 0, 0)),  # a device that does not count Ethernet headers
        (12, 1340, (2, 200, 0)),
        (9, 990, (-1, -10, 0)),
        (10, 1150, (0, 10, 0)),
    ],
)
def test_plain_packets(packets: int, octets: int, expected: tuple[int, int, int]) -> None:
    assert compared(sample(packets, octets, **PLAIN)) == expected


def test_padding_and_tags_in_frames_are_in_the_octets_of_skbs() -> None:
    values = ours(counted(packets=1, octets=28, link_octets=18), ETHERNET, False)
    assert values[0, LEAST] == 60
    assert compared(sample(1, 60, packets=1, octets=28, link_octets=18)) == (0, 0, 0)


@pytest.mark.parametrize(("octets", "expected"), [(1140, 0), (1152, 0), (1160, 0), (1180, 0), (1181, 1)])
def test_a_tag_in_the_metadata_counts_or_not(octets: int, expected: int) -> None:
    assert compared(sample(10, octets, tagged_skbs=10, **PLAIN))[1] == expected


SUPER = {"packets": 4, "octets": 4 * 40 + 1000, "merged": 3, "link_octets": -3 * 40, "repeated_octets": 3 * 54}
"""One skb of four segments, 1,000 octets of TCP payload."""


def test_super_packets_are_one_skb_or_all_their_segments() -> None:
    values = ours(counted(**SUPER), ETHERNET, False)
    assert (values[0, SKBS], values[0, PACKETS], values[0, LEAST]) == (1, 4, 1054)
    for packets, octets in ((1, 1054), (2, 1108), (4, 4 * 54 + 1000), (4, 4 * 40 + 1000), (1, 1040)):
        assert compared(sample(packets, octets, **SUPER)) == (0, 0, 0), (packets, octets)
    assert compared(sample(5, 5 * 54 + 1000, **SUPER)) == (1, 54, 0)
    assert compared(sample(0, 0, **SUPER)) == (-1, -1040, 0)


def test_octets_without_ethernet_where_packets_have_none() -> None:
    columns = ours(counted(**PLAIN), np.array([False]), False)
    now = Sample(columns, columns, np.array([[10, 1000, 0]], "<i8"))
    assert compared(now) == (0, 0, 0)
    assert compared(now._replace(kernel=np.array([[10, 1140, 0]], "<i8"))) == (0, 140, 0)


@pytest.mark.parametrize(
    ("kernel", "dropped", "expected"),
    [(7, 3, (0, 3)), (7, 2, (-1, 2)), (10, 5, (0, 0)), (7, 9, (0, 3)), (12, 5, (2, 0))],
)
def test_packets_that_were_dropped_behind_netobs_explain_those_that_are_missing(
    kernel: int, dropped: int, expected: tuple[int, int]
) -> None:
    packets, _, explained = compared(sample(kernel, 114 * kernel, dropped, **PLAIN))
    assert (packets, explained) == expected


def test_what_came_while_the_kernel_was_asked_is_no_difference() -> None:
    before, after = (ours(counted(packets=n, octets=100 * n), ETHERNET, False) for n in (90, 110))
    for packets, difference_of in ((90, 0), (100, 0), (110, 0), (111, 1), (89, -1)):
        now = Sample(before, after, np.array([[packets, 114 * packets, 0]], "<i8"))
        assert compared(now)[0] == difference_of


def test_the_baseline_is_as_uncertain_as_a_reading() -> None:
    first, then = (ours(counted(packets=n, octets=100 * n), ETHERNET, False) for n in (90, 110))
    base = Sample(first, then, np.array([[1000, 114_000, 0]], "<i8"))
    later = ours(counted(packets=210, octets=21_000), ETHERNET, False)
    for packets, difference_of in ((100, 0), (120, 0), (121, 1), (99, -1)):
        now = Sample(later, later, np.array([[1000 + packets, 114_000 + 114 * packets, 0]], "<i8"))
        assert compared(now, base)[0] == difference_of


def test_of_super_packets_that_sampling_left_out_nobody_knows_the_headers() -> None:
    row = counted(packets=4, octets=1054, merged=3, link_octets=-14)
    assert ours(row, ETHERNET, False)[0, OURS.index("most_octets")] == 1054
    assert ours(row, ETHERNET, True)[0, OURS.index("most_octets")] == 1054 + 3 * MOST_HEADERS
