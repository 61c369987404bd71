"""Strings in Data Records and Messages whose Data Records differ in length: golden bytes, limits, and a round trip."""

from __future__ import annotations

import construct
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.samples import CLOCK, flow, template
from netobs.base.errors import TemplateError
from netobs.encode import DataSet, Encoder, Header, Template
from netobs.encode.layout import DATA_MESSAGE_HEADER, VARIABLE_LENGTH
from netobs.encode.registry import InformationElement, by_name
from netobs.encode.template import wire
from netobs.encode.template.field import Field
from netobs.encode.template.file import parse
from netobs.encode.text import encode
from netobs.flow.interface_names import interface_table
from netobs.flow.records import FlowBatch

HEADER = Header(1_700_000_000, 7, 42)
OVERHEAD = DATA_MESSAGE_HEADER.itemsize
OWN = """
[[template]]
family = "any"
elements = [
    "protocolIdentifier",
    {name = "acmeInterface", enterprise = 32473, id = 5, type = "unsigned64", value = "interfaceIndex"},
    "interfaceName",
    {element = "interfaceDescription", octets = 4},
    {name = "acmeAlias", enterprise = 32473, id = 32767, type = "string", value = "interfaceDescription"},
    {name = "acmeOctets", enterprise = 32473, id = 6, type = "unsigned64", octets = 4, value = "octetDeltaCount"},
]
"""
GOLDEN_TEMPLATE = """
    000a 003c 6553f100 00000007 0000002a  0002 002c
    {id:04x} 0006  0004 0001  8005 0008 00007ed9  0052 ffff  0053 0004  ffff ffff 00007ed9  8006 0004 00007ed9
"""
GOLDEN_DATA = """
    000a 0057 6553f100 00000007 0000002a  {id:04x} 0047
    06 0000000000000003  04 65746830        4772c3a4  06 4772c3a47465  00001518
    11 0000000000000004  00                 00000000  00              00000001
    01 0000000000000009  00                 00000000  00              00000002
"""


def field(number: int, octets: int, most: int = 0) -> Field:
    return Field(InformationElement(f"text{number}", number, "string", VARIABLE_LENGTH, "", ""), octets, "", most)


def name_field(octets: int) -> Field:
    element = by_name("interfaceName")
    assert element is not None
    return Field(element, octets)


def test_golden_bytes() -> None:
    encoder = Encoder(parse(OWN, "own.toml"))
    number = encoder.templates[0].id
    rows = [flow("192.0.2.1", "192.0.2.2", protocol=protocol, ifindex=index, octets=octets)
            for protocol, index, octets in ((6, 3, 0x1518), (17, 4, 1), (1, 9, 2))]  # fmt: skip
    batch = FlowBatch(np.concatenate(rows), CLOCK, interface_table({3: ("eth0", "Gräte"), 4: ("", "")}))
    (message,) = encoder.template_messages(HEADER, 512)
    assert message.hex() == "".join(GOLDEN_TEMPLATE.format(id=number).split())
    (data_set,) = encoder.encode(batch).data_sets
    block = encoder.data_messages(data_set, HEADER, 512)
    assert bytes(block.buffer).hex() == "".join(GOLDEN_DATA.format(id=number).split())
    assert (block.ends.tolist(), block.flows.tolist(), block.octets.tolist()) == ([87], [3], [0x1518 + 3])


def test_counters_of_an_enterprise_that_do_not_fit_become_several_records() -> None:
    encoder = Encoder(parse(OWN, "own.toml"))
    (data_set,) = encoder.encode(FlowBatch(flow("192.0.2.1", "192.0.2.2", octets=2**33, packets=9), CLOCK)).data_sets
    assert data_set.rows["acmeOctets"].tolist() == data_set.octets.tolist() == [2**32 - 1, 2**32 - 1, 2]
    assert data_set.packets.tolist() == [9, 0, 0]


@pytest.mark.parametrize(
    ("text", "octets", "sent"),
    [
        ("", 1, b"\0"),
        ("abc", 3, b"abc"),
        ("abc", 5, b"abc\0\0"),
        ("abcd", 3, b"abc"),
        ("aé", 2, b"a\0"),
        ("aé", 3, b"a\xc3\xa9"),
        ("é", 1, b"\0"),
        ("€uro", 2, b"\0\0"),
        ("😀", 3, b"\0\0\0"),
        ("a😀", 5, b"a\xf0\x9f\x98\x80"),
        ("éé", 3, b"\xc3\xa9\0"),
    ],
)
def test_a_fixed_length_cuts_at_a_character_and_pads(text: str, octets: int, sent: bytes) -> None:
    (row,) = encode(np.array([text.encode()]), name_field(octets))
    assert bytes(row) == sent


@pytest.mark.parametrize(
    ("length", "most", "prefix"),
    [(0, 254, b"\0"), (254, 254, b"\xfe"), (300, 254, b"\xfe"), (254, 255, b"\xfe"), (255, 255, b"\xff\0\xff"),
     (300, 300, b"\xff\x01\x2c"), (301, 300, b"\xff\x01\x2c")],
)  # fmt: skip
def test_the_length_in_front(length: int, most: int, prefix: bytes) -> None:
    only = Template("any", (field(1, VARIABLE_LENGTH, most),))
    rows = encode(np.array([b"x" * length]), only.fields[0]).reshape(-1).view(only.dtype)
    block = Encoder([only]).data_messages(_data_set(only, rows), HEADER, 512)
    assert bytes(block.message(0)[OVERHEAD:]) == prefix + b"x" * min(length, most)


def _data_set(of: Template, rows: npt.NDArray[np.void]) -> DataSet:
    counts = np.arange(1, len(rows) + 1, dtype=np.int64)
    return DataSet(of, rows, counts, counts * 100)


@settings(deadline=None)
@given(
    texts=st.lists(st.tuples(st.text(max_size=300), st.text(max_size=20), st.text(max_size=300)), max_size=30),
    size=st.integers(OVERHEAD + 336, 1500),
    data=st.data(),
)
def test_what_is_built_is_what_is_parsed(texts: list[tuple[str, str, str]], size: int, data: st.DataObject) -> None:
    """Lengths 0 to 300, three strings in a record, Messages of any size: each record once, in order, as it was."""
    number = InformationElement("number", 9, "unsigned32", 4, "", "")
    fields = (field(1, VARIABLE_LENGTH, 300), Field(number, 4), field(2, 7), field(3, VARIABLE_LENGTH, 20))
    every = Template("any", fields)
    cut = [tuple(_cut(text, most) for text, most in zip(row, (300, 7, 20))) for row in texts]
    rows = np.zeros(len(texts), dtype=every.dtype)
    rows["number"] = np.arange(len(texts))
    for place, at in enumerate((0, 2, 3)):
        column = np.array([row[place].encode() for row in texts] or [b""])
        rows[fields[at].element.name] = encode(column, fields[at])[: len(texts)]
    start = data.draw(st.integers(0, len(texts)))
    data_set = _data_set(every, rows).slice(start, len(texts))
    block = Encoder([every]).data_messages(data_set, HEADER, size)
    parsed, sequence = [], HEADER.sequence
    for index in range(len(block)):
        message = wire.Message.parse(bytes(block.message(index)))
        assert message.length == int(block.sizes[index]) <= size
        assert message.sequence == sequence
        records = construct.GreedyRange(wire.data_record(every.fields)).parse(message.sets[0].body)
        assert b"".join(map(wire.data_record(every.fields).build, records)) == message.sets[0].body
        assert len(records) == block.flows[index]
        sequence += len(records)
        parsed += records
    got = [(each.number, each.text1, each.text2.rstrip(b"\0"), each.text3) for each in parsed]
    assert got == [(at, one, two.rstrip(b"\0"), three) for at, (one, two, three) in enumerate(cut)][start:]
    assert block.packets.sum() == data_set.packets.sum()
    assert block.octets.tolist() == (block.packets * 100).tolist()
    _check_filled(block.sizes.tolist(), [wire_size(one, three) for one, _, three in cut[start:]], size)


def _cut(text: str, most: int) -> bytes:
    """As numpy keeps bytes: without NULs at the end."""
    return text.encode().rstrip(b"\0")[:most].decode("utf-8", "ignore").encode()


def wire_size(one: bytes, three: bytes) -> int:
    return 4 + 7 + len(one) + (1 if len(one) < 255 else 3) + 1 + len(three)


def _check_filled(sizes: list[int], records: list[int], most: int) -> None:
    """No Message could have held the first record of the next one."""
    assert sum(sizes) == sum(records) + OVERHEAD * len(sizes)
    taken = 0
    for size in sizes:
        body = 0
        while body < size - OVERHEAD:
            body += records[taken]
            taken += 1
        assert body == size - OVERHEAD
        assert taken == len(records) or size + records[taken] > most


def test_the_longest_record_must_fit() -> None:
    encoder = Encoder([template("any", "interfaceName", "interfaceDescription")])
    encoder.check(OVERHEAD + 16 + 258)
    with pytest.raises(TemplateError, match="the template needs a Message of 294 bytes, the largest allowed has 293"):
        encoder.check(OVERHEAD + 16 + 257)
