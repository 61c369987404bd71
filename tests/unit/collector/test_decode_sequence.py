"""Sequence Numbers: gaps, Messages that come late or twice, exporters that begin anew; and Templates that change."""

from __future__ import annotations

import struct

import pytest

from lab.messages import message, message9, options_template, template
from lab.samples import golden_messages
from netobs.collector.decode import Decoded, Decoder
from tests.unit.collector.test_decode_devices import kinds

TEMPLATE = message((2, template(300, (4, 1))))
TEN = (300, bytes(10))


def decoded(decoder: Decoder, *sequences: int) -> list[Decoded]:
    return [decoder.decode(message(TEN, sequence=sequence % 2**32)) for sequence in sequences]


@pytest.mark.parametrize("begin", [0, 2**32 - 15, 2**31 - 5])
@pytest.mark.parametrize(
    ("steps", "found", "lost"),
    [
        ([0, 10, 20], [], 0),
        ([0, 20, 30], ["gap"], 10),
        ([0, 20, 10, 30], ["gap", "late"], 0),
        ([0, 30, 20, 10, 40], ["gap", "late", "late"], 0),
        ([0, 30, 10, 40], ["gap", "late"], 10),
        ([0, 10, 10, 20], ["repeated"], 0),
        ([0, 10, 20, 0, 10], ["back"], 0),
        ([0, 10, 50, 20, 60, 90], ["gap", "late", "gap"], 40),
    ],
)
def test_ipfix(begin: int, steps: list[int], found: list[str], lost: int) -> None:
    decoder = Decoder()
    decoder.decode(TEMPLATE)
    decoder.domains.forget(None)
    decoder.decode(message((2, template(300, (4, 1))), sequence=begin % 2**32))
    every = decoded(decoder, *(begin + step for step in steps))
    assert [kind for each in every for kind in kinds(each)] == [f"sequence-{kind}" for kind in found]
    assert decoder.stats.lost_records == lost


def test_netflow9_numbers_messages() -> None:
    decoder = Decoder()
    for sequence in (5, 6, 9, 7, 8, 10, 12):
        decoder.decode(message9((0, template(300, (4, 1))), sequence=sequence))
    assert (decoder.stats.lost_messages, decoder.stats.lost_records, decoder.stats.sequence_errors) == (1, 0, 4)


def test_a_template_that_changes_and_data_of_its_layout_before() -> None:
    decoder = Decoder()
    decoder.decode(message((2, template(300, (8, 4), (12, 4), (1, 8)))))
    assert kinds(decoder.decode(message((2, template(300, (8, 4), (12, 4), (1, 8)))))) == {}
    changed = decoder.decode(message((2, template(300, (8, 4), (12, 4), (1, 8), (2, 8)))))
    assert changed.notes.found == {
        "template-changed": (1, "Template 300 changes without a withdrawal, 3 fields before, 4 now")
    }
    old = decoder.decode(message((300, bytes(16 * 4)), sequence=0))
    assert "old-layout" in kinds(old)
    assert "old-layout" not in kinds(decoder.decode(message((300, bytes(24 * 3)), sequence=2)))


def test_a_template_that_is_withdrawn_first_does_not_change() -> None:
    decoder = Decoder()
    decoder.decode(TEMPLATE)
    found = decoder.decode(message((2, b"\1\x2c\0\0"), (2, template(300, (4, 1), (60, 1)))))
    assert kinds(found) == {"withdrawal": 1}


def test_an_options_template_takes_the_id_of_a_template() -> None:
    decoder = Decoder()
    decoder.decode(TEMPLATE)
    decoder.decode(message((3, options_template(300, 1, (4, 1)))))
    assert decoder.decode(message((300, b"\6"))).options == [{"protocolIdentifier": 6}]
    decoder.decode(TEMPLATE)
    assert decoder.decode(message((300, b"\6"))).flows == [{"protocolIdentifier": 6}]


@pytest.mark.parametrize(("count", "is_odd"), [(3, False), (2, True), (0, True)])
def test_the_count_of_netflow9(count: int, is_odd: bool) -> None:
    raw = message9((0, template(300, (4, 1))), (300, b"\6\7"), count=count)
    assert ("count" in kinds(Decoder().decode(raw))) == is_odd


def test_a_boot_time_that_moves() -> None:
    decoder = Decoder()

    def sent(uptime_ms: int, time_s: int) -> Decoded:
        return decoder.decode(struct.pack("!HHIIII", 9, 0, uptime_ms % 2**32, time_s, 0, 1))

    sent(1_000, 5_000_000)
    assert "uptime" not in kinds(sent(11_000, 5_000_010))
    assert "uptime" not in kinds(sent(2**32 + 1_000, 5_000_000 + 4_294_967))
    assert "uptime" in kinds(sent(1_000, 9_400_000))


def test_nothing_is_odd_in_what_netobs_sends() -> None:
    for name in ("ipfix_default.hex", "netflow9_default.hex", "netflow5.hex", "ipfix_templates.hex"):
        decoder = Decoder()
        assert [kinds(decoder.decode(raw)) for raw in golden_messages(name)] == [{}] * len(golden_messages(name)), name
