"""The hash that shares flows out over the collectors of a group."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netobs.export.policies import balance, conversation_hash
from netobs.flow.records import Records, empty
from tests.unit.export.site import flows

addresses = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=4, max_size=4).map(lambda last: bytes(10) + b"\xff\xff" + last),
)
ports = st.integers(0, 0xFFFF)
conversations = st.lists(st.tuples(addresses, addresses, ports, ports, st.integers(0, 255)), max_size=30)


def records_of(keys: list[tuple[bytes, bytes, int, int, int]]) -> Records:
    made = empty(len(keys))
    for row, key in zip(made, keys):
        row["src_addr"], row["dst_addr"] = (np.frombuffer(address, np.uint8) for address in key[:2])
        row["src_port"], row["dst_port"], row["protocol"] = key[2:]
    return made


def owners(records: Records, collectors: int) -> list[int]:
    """The number of the collector of each record; each must have exactly one."""
    owner = np.full(len(records), -1)
    for number, share in enumerate(balance(records, collectors)):
        assert (owner[share] == -1).all()
        owner[share] = number
    found: list[int] = owner.tolist()
    assert -1 not in found
    return found


@given(conversations, st.integers(2, 7), st.randoms())
def test_each_conversation_goes_to_one_collector(
    keys: list[tuple[bytes, bytes, int, int, int]], collectors: int, random: Any
) -> None:
    there = owners(records_of(keys), collectors)
    back = [(dst, src, dst_port, src_port, protocol) for src, dst, src_port, dst_port, protocol in keys]
    assert owners(records_of(back), collectors) == there
    order = random.sample(range(len(keys)), len(keys))
    shuffled = records_of([keys[at] for at in order])
    shuffled["ifindex"], shuffled["vlan_id"], shuffled["direction"], shuffled["packets"] = 7, 9, 1, 1000
    assert owners(shuffled, collectors) == [there[at] for at in order]


def test_the_hash_is_the_same_on_every_host() -> None:
    """These numbers must never change: collectors would get the other halves of conversations after an update."""
    made = flows(1000, 2)
    made["src_addr"][1] = np.arange(16)
    assert conversation_hash(made).tolist() == [0x949597F3330168DB, 0x10F135ECE1AC174D]


def test_shares_are_even() -> None:
    """Of flows that differ in one thing only."""
    by_port, by_address = flows(0, 60_000), flows(0, 60_000)
    by_address["src_port"] = 40_000
    by_address["src_addr"][:, 14:] = np.arange(60_000, dtype=">u2").view(np.uint8).reshape(-1, 2)
    for records in (by_port, by_address):
        for collectors in (2, 3, 4):
            counts = np.bincount(owners(records, collectors))
            assert abs(counts - 60_000 / collectors).max() < 5 * (60_000 / collectors) ** 0.5
