"""One Message is bounded work, and all exporters together are bounded memory; what is not read is counted."""

from __future__ import annotations

import io
import struct
import sys
from contextlib import suppress

import pytest

from lab.messages import message, template
from lab.samples import golden_messages
from lab.worst_cases import MAX_BYTES, WORST, filled
from netobs.base.errors import DecodeError
from netobs.collector.decode import Decoded, Decoder
from netobs.collector.decode_domain import MAX_DOMAINS, MAX_ROOM
from netobs.collector.output import Printer
from netobs.collector.work import MAX_STEPS, MESSAGE_STEPS


def worst(name: str, decoder: Decoder) -> Decoded | None:
    """What can be read of it."""
    case = WORST[name]
    for raw in case.before:
        decoder.decode(raw)
    with suppress(DecodeError):
        return decoder.decode(case.raw)
    return None


def test_there_are_twenty_of_64_kib() -> None:
    assert len(WORST) >= 20
    assert {name for name, case in WORST.items() if len(case.raw) > MAX_BYTES} == set()
    assert sum(len(case.raw) > 0.9 * MAX_BYTES for case in WORST.values()) >= 20


@pytest.mark.parametrize("name", WORST)
def test_the_worst_messages_are_bounded_work_and_what_is_not_read_is_counted(name: str) -> None:
    decoder, free = Decoder(), Decoder(max_steps=sys.maxsize)
    for raw in WORST[name].before:
        decoder.decode(raw)
    before, counted = decoder.steps, decoder.stats.unread_octets
    decoded = worst(name, free)
    with suppress(DecodeError):
        found = decoder.decode(WORST[name].raw)
        printer = Printer(io.StringIO(), as_json=True, options=True)
        printer.show(found, "exporter", {})
        assert len(printer.out.getvalue().splitlines()) == len(found.flows) + len(found.options)  # type: ignore[attr-defined]
        assert decoded is not None
        assert found.flows == decoded.flows[: len(found.flows)]
        assert found.options == decoded.options[: len(found.options)]
        is_all = len(found.flows) + len(found.options) == len(decoded.flows) + len(decoded.options)
        unread = decoder.stats.unread_octets - counted
        assert is_all or unread > 0
        assert ("unread" in found.notes.found) == (unread > 0)
    assert 0 < decoder.steps - before <= MAX_STEPS + MESSAGE_STEPS
    assert decoder.stats.malformed == free.stats.malformed


def test_work_grows_with_the_message_and_not_with_what_is_known() -> None:
    """Empty Sets are the same work beside 3,900 Templates; twice as many are twice as much."""
    steps = {}
    for known in (1, 3_900):
        for sets in (1_000, 2_000):
            decoder = Decoder()
            for at in range(0, known, 100):
                decoder.decode(
                    message((2, b"".join(template(300 + at + each, (4, 1)) for each in range(min(known, 100)))))
                )
            before = decoder.steps
            decoder.decode(message(*[(2, b"")] * sets))
            steps[known, sets] = decoder.steps - before
    assert steps[1, 1_000] == steps[3_900, 1_000]
    assert steps[1, 2_000] < 2 * steps[1, 1_000]


def test_ordinary_messages_of_64_kib_are_read_whole() -> None:
    """All 26 fields of the default templates, in Messages as long as they can be."""
    templates, data4, _, data6, _ = golden_messages()
    for raw, octets, flows in ((data4, 96, 682), (data6, 120, 545)):
        decoder = Decoder()
        decoder.decode(templates)
        record = raw[20 : 20 + octets]
        body = filled(record, 65_535 - 20)
        decoded = decoder.decode(
            struct.pack("!HHIII", 10, 20 + len(body), 0, 0, 42) + raw[16:18] + struct.pack("!H", 4 + len(body)) + body
        )
        assert len(decoded.flows) == flows
        assert decoder.stats.unread_octets == 0


def test_a_file_is_read_whole_however_much_work_it_is() -> None:
    decoder = Decoder(max_steps=sys.maxsize)
    decoded = worst("records of one octet", decoder)
    assert decoded is not None
    assert len(decoded.flows) == 65_400
    assert decoder.stats.unread_octets == 0


def test_what_is_not_read_makes_no_gap_in_the_sequence() -> None:
    decoder = Decoder()
    worst("records of one octet", decoder)
    decoder.decode(message((300, b"\1"), sequence=65_400))
    assert (decoder.stats.sequence_errors, decoder.stats.unread_octets > 0) == (0, True)


def test_memory_is_bounded_over_exporters_and_what_is_given_up_is_counted() -> None:
    decoder, wide = Decoder(), template(300, *[(4, 1)] * 250)
    for exporter in range(2 * MAX_DOMAINS):
        decoder.decode(message((2, wide)), exporter)
    assert decoder.domains.room <= MAX_ROOM
    assert decoder.domains.room == sum(domain.room for domain in decoder.domains)
    assert sum(1 for _ in decoder.domains) == MAX_DOMAINS
    assert decoder.domains.given_up > MAX_DOMAINS
    decoder.decode(message((300, bytes(250))), 0)
    assert decoder.stats.sets_without_template == 1


def test_descriptions_of_elements_are_bounded() -> None:
    decoder = Decoder()
    for first in range(0, 5_000, 100):
        rows = b"".join(struct.pack("!IHBB", 99, first + each, 4, 2) + b"ab" for each in range(100))
        options = struct.pack("!HHH", 256, 4, 1) + struct.pack("!HHHHHHHH", 346, 4, 303, 2, 339, 1, 341, 65535)
        decoder.decode(message((3, options), (256, rows)))
    (domain,) = decoder.domains
    assert 0 < len(domain.types) <= 1024
