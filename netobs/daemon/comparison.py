"""What the programs counted beside what the kernel counted: pure arithmetic on columns, a row for each hook.

The two count at different moments of a packet's way, so that the kernel's number is known only within bounds. GRO joins
packets between the counter of a device and our programs, and the kernel cuts super-packets after our programs where the
device cannot: the kernel counts at least our skbs, and at most their packets on the wire. A VLAN tag in the metadata is
in the kernel's octets or not. Most devices count the Ethernet header; others (lo, vxlan, a bridge when it receives) do
not. docs/architecture.md has what was measured. What lies outside the bounds is a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Columns = npt.NDArray[np.int64]

ETHERNET_OCTETS, TAG_OCTETS = 14, 4
MOST_HEADERS = ETHERNET_OCTETS + TAG_OCTETS + 60 + 60
"""What a segment repeats at most without a tunnel: of super-packets that sampling left out, nobody has looked."""
OURS = ("skbs", "packets", "octets", "least_octets", "most_octets", "least_bare_octets", "most_bare_octets")
SKBS, PACKETS, OCTETS, LEAST, MOST, LEAST_BARE, MOST_BARE = range(len(OURS))
KERNEL = ("packets", "octets", "dropped")
DROPPED = 2


def ours(counted: npt.NDArray[np.void], has_ethernet: npt.NDArray[np.bool_], sampled: bool) -> Columns:
    """Shape ``(n, len(OURS))``. ``counted``: dtype ``COUNTED``. ``packets`` and ``octets`` are what was seen, on the
    wire and of IP; the other octets are of frames: of the skbs, and of their segments with all that may count, with the
    Ethernet header and without (``bare``). None of these ever goes back."""
    values = {name: counted[name].astype("<i8") for name in (counted.dtype.names or ())[1:]}
    packets, merged, header = values["packets"], values["merged"], ETHERNET_OCTETS * has_ethernet
    bare = values["octets"] + values["link_octets"]
    repeated = np.maximum(values["repeated_octets"], MOST_HEADERS * merged) if sampled else values["repeated_octets"]
    more = repeated + TAG_OCTETS * values["tagged_skbs"]
    skbs = packets - merged
    least = bare + header * skbs
    return np.stack([skbs, packets, values["octets"], least, least + more, bare, bare + more - header * merged], 1)


class Sample(NamedTuple):
    """Counters since ever, of n hooks. ``before``, ``after``: ``ours`` right before and after the kernel was asked,
    shape ``(n, len(OURS))``; ``kernel``: shape ``(n, len(KERNEL))``."""

    before: Columns
    after: Columns
    kernel: Columns

    def rows(self, which: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Sample:
        """Of these hooks only."""
        return Sample(*(columns[which] for columns in self))


class Difference(NamedTuple):
    """What the kernel counted more than netobs, shape ``(n,)`` each; negative: less. ``dropped``: packets that a device
    or its queue dropped after netobs had seen them, which ``packets`` is without. ``octets`` say nothing then."""

    packets: Columns
    octets: Columns
    dropped: Columns


def difference(base: Sample, now: Sample) -> Difference:
    """Between two samples of the same hooks."""
    least, most = np.maximum(now.before - base.after, 0), np.maximum(now.after - base.before, 0)
    kernel = now.kernel - base.kernel
    packets = _outside(kernel[:, 0], least[:, SKBS], most[:, PACKETS])
    dropped = np.clip(-packets, 0, np.maximum(kernel[:, DROPPED], 0))
    octets = _outside(kernel[:, 1], least[:, LEAST], most[:, MOST])
    bare = _outside(kernel[:, 1], least[:, LEAST_BARE], most[:, MOST_BARE])
    return Difference(packets + dropped, np.where(abs(bare) < abs(octets), bare, octets), dropped)


def _outside(value: Columns, least: Columns, most: Columns) -> Columns:
    return value - np.clip(value, least, most)
