"""Whole IPFIX Messages: golden bytes, Sequence Numbers, sizes at their limits, splitting by family and of counters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.samples import (
    CLOCK,
    EXPORT_TIME_S,
    batch,
    batches,
    default_templates,
    flow,
    golden_batch,
    golden_messages,
    template,
)
from netobs.base.errors import TemplateError
from netobs.base.ipfix import MAX_MESSAGE_BYTES
from netobs.encode import DataSet, Encoder, Header
from netobs.encode.layout import DATA_MESSAGE_HEADER
from netobs.encode.template import wire
from netobs.flow.records import FlowBatch
from netobs.flow.tally import Tally

HEADER = Header(EXPORT_TIME_S, 0xFFFFFFFE, 42)
OVERHEAD = DATA_MESSAGE_HEADER.itemsize


def counters(rows: int) -> DataSet:
    """Data Records of 8 bytes that count up."""
    flows = np.repeat(flow("192.0.2.1", "192.0.2.2"), rows + 1)
    flows["packets"] = np.arange(rows + 1)
    (data_set,) = Encoder([template("any", "packetDeltaCount")]).encode(FlowBatch(flows, CLOCK)).data_sets
    return data_set.slice(0, rows)


def test_golden_bytes() -> None:
    encoder, header = Encoder(default_templates()), HEADER
    built = encoder.template_messages(header, 512)
    for data_set in encoder.encode(golden_batch()).data_sets:
        block = encoder.data_messages(data_set, header, 512)
        built += [bytes(block.message(number)) for number in range(len(block))]
        header = header.advance(len(data_set))
    golden = golden_messages("ipfix_templates.hex") + golden_messages()[1:]
    assert [message.hex() for message in built] == [message.hex() for message in golden]
    assert header.sequence == 10


def test_golden_bytes_hold_what_the_block_says() -> None:
    encoder = Encoder(default_templates())
    ipv4, ipv6 = encoder.encode(golden_batch()).data_sets
    assert (ipv4.template, len(ipv4), ipv6.template, len(ipv6)) == (encoder.templates[0], 7, encoder.templates[1], 5)
    block = encoder.data_messages(ipv4, HEADER, 512)
    assert block.sizes.tolist() == [500, 212]
    assert block.flows.tolist() == [5, 2]
    assert block.packets.tolist() == [50, (1 << 40) + 10]
    assert block.octets.tolist() == [5 * 5_400, (1 << 50) + 1 + 5_400]
    assert {part.dtype for part in (block.flows, block.packets, block.octets)} == {np.dtype(np.int64)}


def test_each_template_has_a_message_and_needs_no_padding() -> None:
    """Some collectors read only the first Template of a Message, or the first Set."""
    built = Encoder(default_templates()).template_messages(HEADER, 512)
    for message, each in zip(built, default_templates()):
        parsed = wire.Message.parse(message)
        assert (parsed.version, parsed.length, parsed.observation_domain) == (10, len(message), 42)
        assert parsed.sequence == 0xFFFFFFFE  # Template Records do not count
        assert [item.set_id for item in parsed.sets] == [2]
        assert parsed.sets[0].body == each.record
    assert [len(message) for message in built] == [16 + 4 + 4 + 26 * 4] * 2


@settings(deadline=None)
@given(
    blocks=st.lists(st.integers(0, 400), max_size=6),
    start=st.sampled_from([0, 1, 2**31, 2**32 - 700, 2**32 - 1]),
    size=st.integers(OVERHEAD + 8, 600),
)
def test_sequence_numbers_count_data_records(blocks: list[int], start: int, size: int) -> None:
    encoder = Encoder([template("any", "packetDeltaCount")])
    header, before = Header(EXPORT_TIME_S, start, 1), 0
    for rows in blocks:
        block = encoder.data_messages(counters(rows), header, size)
        assert block.flows.sum() == rows
        for number in range(len(block)):
            message = wire.Message.parse(bytes(block.message(number)))
            assert message.sequence == (start + before) % 2**32
            assert message.length == len(block.message(number)) <= size
            before += int(block.flows[number])
        header = header.advance(rows)
    assert header.sequence == (start + before) % 2**32


@pytest.mark.parametrize(
    ("rows", "size", "flows"),
    [
        (0, 512, []),
        (1, OVERHEAD + 8, [1]),
        (3, OVERHEAD + 8, [1, 1, 1]),
        (3, OVERHEAD + 15, [1, 1, 1]),
        (3, OVERHEAD + 16, [2, 1]),
        (4, OVERHEAD + 16, [2, 2]),
        (1, 1400, [1]),
        (172, 1400, [172]),
        (173, 1400, [172, 1]),
        (8_189, MAX_MESSAGE_BYTES, [8_189]),
        (8_190, MAX_MESSAGE_BYTES, [8_189, 1]),
        (8_190, 1 << 20, [8_189, 1]),
    ],
)
def test_messages_are_filled_to_the_limit(rows: int, size: int, flows: list[int]) -> None:
    data_set = counters(rows)
    block = Encoder([data_set.template]).data_messages(data_set, HEADER, size)
    assert block.flows.tolist() == flows
    assert len(block) == len(flows)
    assert len(block.buffer) == rows * 8 + OVERHEAD * len(flows)
    values = []
    for number, count in enumerate(flows):
        message = block.message(number)
        assert len(message) == OVERHEAD + 8 * count <= max(size, OVERHEAD)
        values += np.frombuffer(message[OVERHEAD:], dtype=">u8").tolist()
    assert values == list(range(rows))


def test_a_record_that_does_not_fit() -> None:
    data_set = counters(1)
    encoder = Encoder([data_set.template])
    with pytest.raises(TemplateError, match=r"test.toml: .* the template needs a Message of 28 bytes, .* has 27; use"):
        encoder.data_messages(data_set, HEADER, OVERHEAD + 7)
    encoder.check(OVERHEAD + 8)


def test_a_template_that_does_not_fit() -> None:
    encoder = Encoder(default_templates())
    encoder.check(OVERHEAD + 120)
    with pytest.raises(TemplateError, match="the template needs a Message of 140 bytes"):
        encoder.check(OVERHEAD + 119)
    many = Encoder([template("any", "ipVersion", "minimumTTL", "maximumTTL", "flowEndReason", "flowDirection")])
    many.check(16 + 4 + 4 + 5 * 4)
    with pytest.raises(TemplateError, match="the template needs a Message of 44 bytes"):
        many.template_messages(HEADER, 43)


def test_data_set_slices_are_views() -> None:
    data_set = counters(10)
    part = data_set.slice(3, 6)
    assert (len(part), part.packets.tolist()) == (3, [3, 4, 5])
    assert np.shares_memory(part.rows, data_set.rows)
    block = Encoder([data_set.template]).data_messages(part, HEADER, 512)
    assert np.frombuffer(block.message(0)[OVERHEAD:], dtype=">u8").tolist() == [3, 4, 5]


@settings(deadline=None)
@given(batches())
def test_every_record_is_encoded_or_counted(flows: FlowBatch) -> None:
    for families in (("ipv4",), ("ipv6",), ("ipv4", "ipv6"), ("any",), ()):
        encoder = Encoder([template(family, "packetDeltaCount") for family in families])
        data_sets, left, _ = encoder.encode(flows)
        assert sum(map(len, data_sets)) + left.flows == len(flows)
        assert sum(int(item.packets.sum()) for item in data_sets) + left.packets == flows.records["packets"].sum()
        assert sum(int(item.octets.sum()) for item in data_sets) + left.octets == flows.records["octets"].sum()


def test_what_no_template_takes_is_of_this_batch_alone() -> None:
    encoder = Encoder(default_templates()[:1])
    flows = batch(flow("2001:db8::1", "2001:db8::2"), flow("192.0.2.1", "192.0.2.2"))
    for _ in range(2):
        data_sets, unencodable, clamped = encoder.encode(flows)
        assert [len(item) for item in data_sets] == [1]
        assert (unencodable, clamped) == (Tally(1, 10, 5_400), 0)


def test_empty_batch() -> None:
    assert Encoder(default_templates()).encode(batch()).data_sets == []


def test_one_template_for_any_family() -> None:
    flows = batch(flow("2001:db8::1", "2001:db8::2"), flow("192.0.2.1", "192.0.2.2"))
    (data_set,) = Encoder([template("any", "ipVersion")]).encode(flows).data_sets
    assert data_set.rows["ipVersion"].tolist() == [6, 4]


@pytest.mark.parametrize("octets", [0, 1, 2**32 - 1, 2**32, 3 * (2**32 - 1), 3 * (2**32 - 1) + 1, 2**40 + 12345])
@pytest.mark.parametrize("packet_octets", [4, 8])
def test_counters_that_do_not_fit_become_several_records(octets: int, packet_octets: int) -> None:
    reduced = template(
        "any",
        "{element = 'octetDeltaCount', octets = 4}",
        f"{{element = 'packetDeltaCount', octets = {packet_octets}}}",
        "ipVersion",
    )
    flows = batch(
        flow("192.0.2.1", "192.0.2.2", octets=7, packets=1),
        flow("192.0.2.1", "192.0.2.2", octets=octets, packets=2**33),
        flow("2001:db8::1", "2001:db8::2", octets=9, packets=2),
    )
    (data_set,) = Encoder([reduced]).encode(flows).data_sets
    rows = data_set.rows
    assert rows["octetDeltaCount"].sum() == octets + 16
    assert rows["packetDeltaCount"].sum() == 2**33 + 3
    assert data_set.octets.tolist() == rows["octetDeltaCount"].tolist()
    assert data_set.packets.tolist() == rows["packetDeltaCount"].tolist()
    pieces = max(1, -(-octets // (2**32 - 1)), 3 if packet_octets == 4 else 1)
    assert rows["ipVersion"].tolist() == [4] * (1 + pieces) + [6]


def test_the_batch_is_left_as_it_was() -> None:
    flows = golden_batch()
    before, dtype = flows.records.tobytes(), flows.records.dtype
    Encoder(default_templates()).encode(flows)
    assert flows.records.tobytes() == before
    assert flows.records.dtype == dtype


def test_layer_2_octets_of_a_record_that_is_split_are_sent_once() -> None:
    """A counter that does not fit makes several records of one; the other counters are in the first of them."""
    reduced = template("ipv4", '{element = "octetDeltaCount", octets = 4}', "packetDeltaCount", "layer2OctetDeltaCount")
    flows = batch(flow("192.0.2.1", "192.0.2.2", octets=(1 << 33) + 5, packets=7, layer2_octets=1 << 34))
    (data_set,) = Encoder([reduced]).encode(flows).data_sets
    sums = {name: int(data_set.rows[name].astype(np.uint64).sum()) for name in reduced.dtype.names or ()}
    assert len(data_set.rows) == 3
    assert sums == {"octetDeltaCount": (1 << 33) + 5, "packetDeltaCount": 7, "layer2OctetDeltaCount": 1 << 34}
