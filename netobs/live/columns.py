"""Flow Keys in columns: which of them a filter takes, and how they are grouped. No flow is looked at by itself."""

from __future__ import annotations

import fnmatch
import functools
import itertools
import secrets
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

from netobs.flow.interface_names import InterfaceTable
from netobs.flow.key_hash import Hashes, hash_words
from netobs.flow.records import Records
from netobs.live.filters import Both, Condition, Either, Field, InterfaceName, Network, Not, Ports

if TYPE_CHECKING:
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]
    Indices = npt.NDArray[np.intp]
    Integers = npt.NDArray[np.int64]
else:
    Mask = Indices = Integers = np.ndarray

ETHERTYPE_IPV4 = 0x0800
ICMP = (1, 58)
_PLACES = {
    "sport": ("src_port", 0),
    "dport": ("dst_port", 16),
    "proto": ("protocol", 32),
    "dir": ("direction", 40),
    "vlan": ("vlan_id", 48),
}
"""Where small fields are in one word; bit 41: the destination port is type and code of ICMP."""
ADDRESS_BITS, MAPPED_BITS = 128, 96


class Groups(NamedTuple):
    """Rows in groups: ``order`` has the numbers of the rows, group behind group; ``starts`` where each one begins."""

    order: Indices
    starts: Indices

    @property
    def first(self) -> Indices:
        """One row of each group."""
        return self.order[self.starts]

    def sums(self, column: Integers) -> Integers:
        """The sum of ``column`` over each group, exactly."""
        ordered: Integers = column[self.order]
        if len(self.starts) < len(self.order):
            ordered = np.add.reduceat(ordered, self.starts)
        return ordered

    def only(self, numbers: Indices) -> Groups:
        """The groups ``numbers``, in that order."""
        sizes = self.sizes[numbers]
        starts = np.cumsum(sizes) - sizes
        places = np.repeat(self.starts[numbers] - starts, sizes) + np.arange(sizes.sum())
        return Groups(self.order[places], starts)

    @property
    def sizes(self) -> Integers:
        """How many rows each group has."""
        return np.diff(self.starts, append=len(self.order))


def group_by_hash(words: Hashes, hashes: Hashes) -> Groups | None:
    """Groups of rows with the same ``words`` (uint64, shape ``(n, k)``), ascending by their ``hashes``. None: other
    words have the same hash."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    same = ordered[1:] == ordered[:-1]
    alike = np.flatnonzero(same)
    if (words[order[alike]] != words[order[alike + 1]]).any():
        return None
    starts = np.flatnonzero(np.concatenate(([True], ~same)))[: len(words)]
    return Groups(order, starts)


def group(words: Hashes) -> Groups:
    """Groups of rows with the same ``words``."""
    if not words.shape[1]:
        return Groups(np.arange(len(words)), np.zeros(min(len(words), 1), np.intp))
    for seed in itertools.count(secrets.randbits(63)):
        found = group_by_hash(words, hash_words(words, seed))
        if found is not None:
            return found
    raise AssertionError


def is_icmp(keys: Records) -> Mask:
    """Which have type and code of ICMP instead of a destination port."""
    return np.isin(keys["protocol"], ICMP)


def addresses(keys: Records, end: str) -> Hashes:
    """The addresses of one end, "src" or "dst": two words each, as they are in memory."""
    return np.ascontiguousarray(keys[f"{end}_addr"]).view("<u8")


@functools.lru_cache(maxsize=256)
def prefix_mask(bits: int) -> tuple[int, int]:
    """The first ``bits`` of an address, as two words."""
    octets = ((1 << ADDRESS_BITS) - (1 << (ADDRESS_BITS - bits))).to_bytes(16, "big")
    return int.from_bytes(octets[:8], "little"), int.from_bytes(octets[8:], "little")


def networks(keys: Records, end: str, prefixes: tuple[int, int]) -> Hashes:
    """As ``addresses``, without the host part. ``prefixes``: the lengths for IPv4 and IPv6."""
    ipv4, ipv6 = (np.array(prefix_mask(bits), np.uint64) for bits in (MAPPED_BITS + prefixes[0], prefixes[1]))
    is_ipv4 = (keys["ethertype"] == ETHERTYPE_IPV4)[:, None]
    masked: Hashes = addresses(keys, end) & np.where(is_ipv4, ipv4, ipv6)
    return masked


def words_of(keys: Records, by: tuple[str, ...], prefixes: tuple[int, int]) -> Hashes:
    """What ``keys`` have in the fields ``by`` (``query.BY``): uint64, shape ``(n, k)``."""
    parts: list[Hashes] = []
    for end in ("src", "dst"):
        if end in by:
            parts.append(addresses(keys, end))
        elif f"{end}net" in by:
            parts.append(networks(keys, end, prefixes))
    packed = np.zeros(len(keys), np.uint64)
    for word, (name, shift) in _PLACES.items():
        if word in by:
            packed |= keys[name].astype(np.uint64) << np.uint64(shift)
    if "dport" in by:
        packed |= is_icmp(keys).astype(np.uint64) << np.uint64(41)
    if any(word in by for word in _PLACES):
        parts.append(packed[:, None])
    if "if" in by:
        parts.append((keys["netns"].astype(np.uint64) << np.uint64(32) | keys["ifindex"])[:, None])
    return np.ascontiguousarray(np.concatenate(parts, axis=1)) if parts else np.zeros((len(keys), 0), np.uint64)


def matches(condition: Condition, keys: Records, names: InterfaceTable) -> Mask:
    """Which of ``keys`` a filter takes. ``names``: of the interfaces."""
    if isinstance(condition, Not):
        return ~matches(condition.part, keys, names)
    if isinstance(condition, (Both, Either)):
        join = np.logical_and if isinstance(condition, Both) else np.logical_or
        return functools.reduce(join, (matches(part, keys, names) for part in condition.parts))
    if isinstance(condition, Field):
        same: Mask = keys[condition.name] == condition.value
        return same
    if isinstance(condition, InterfaceName):
        return _on_interface(condition.pattern, keys, names)
    test: Callable[[str], Mask] = (
        functools.partial(_in_network, condition, keys)
        if isinstance(condition, Network)
        else functools.partial(_in_ports, condition, keys)
    )
    return functools.reduce(np.logical_or, map(test, condition.ends))


def _in_network(network: Network, keys: Records, end: str) -> Mask:
    mask = np.array(prefix_mask(network.bits), np.uint64)
    wanted = np.frombuffer(network.address, "<u8") & mask
    same: Mask = (addresses(keys, end) & mask == wanted).all(axis=1)
    if network.bits < MAPPED_BITS:  # an IPv6 network, of which ::/0 would take the form in which IPv4 is kept, too
        same &= keys["ethertype"] != ETHERTYPE_IPV4
    return same


def _in_ports(ports: Ports, keys: Records, end: str) -> Mask:
    number = keys[f"{end}_port"]
    found: Mask = (number >= ports.least) & (number <= ports.most)
    return found & ~is_icmp(keys) if end == "dst" else found


def _on_interface(pattern: str, keys: Records, names: InterfaceTable) -> Mask:
    texts = [name.decode() for name in names.names.tolist()]
    chosen = np.array([fnmatch.fnmatchcase(text, pattern) and bool(text) for text in texts])
    found: Mask = chosen[names.positions(keys["netns"], keys["ifindex"])]
    return found
