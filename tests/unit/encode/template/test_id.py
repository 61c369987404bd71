"""Template IDs: one meaning each, whatever order, process, protocol or release."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections import defaultdict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab.samples import TEMPLATES, golden_batch, template
from netobs.encode import Encoder, load_templates, netflow9
from netobs.encode.ipfix import Header
from netobs.encode.options.choice import FORMS, KINDS, OptionsChoice
from netobs.encode.options.table import options_templates
from netobs.encode.template import wire
from netobs.encode.template.id import FIRST, template_id

ROOT = Path(__file__).resolve().parents[4]
PRINT = """
from netobs.encode.template.id import template_id
print([template_id(bytes([number, 0])) for number in {order}])
"""


def test_what_is_shipped_needs_no_second_choice() -> None:
    """So that the ids are the same in every process, whatever it loads first."""
    meanings: dict[int, set[bytes]] = defaultdict(set)
    for path in TEMPLATES.glob("*.toml"):
        templates = load_templates(str(path))
        for encoder in (Encoder(templates), netflow9.Encoder(templates, 0)):
            for each in encoder.templates:
                meanings[each.id].add(each.record)
    for form in FORMS:
        for nine in (False, True):
            for options in options_templates(OptionsChoice(KINDS, form), nine):
                meanings[options.id].add(options.record)
    assert [number for number, records in meanings.items() if len(records) > 1] == []
    assert min(meanings) >= FIRST > 520  # earlier releases sent 256, 257 and 512 to 520
    assert max(meanings) < 1 << 16


def test_another_process_gives_the_same_ids() -> None:
    def printed(order: str) -> list[int]:
        argv = [sys.executable, "-c", PRINT.format(order=order)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        return [int(number) for number in done.stdout.strip("[]\n").split(", ")]

    assert printed("range(20)") == printed("reversed(range(20))")[::-1]


@given(contents=st.lists(st.binary(min_size=1, max_size=3), max_size=400))
def test_an_id_never_means_two_things_in_a_process(contents: list[bytes]) -> None:
    ids = {content: template_id(content) for content in contents}
    assert len(set(ids.values())) == len(ids)
    assert all(FIRST <= number < 1 << 16 for number in ids.values())
    assert [template_id(content) for content in contents] == [ids[content] for content in contents]


def test_contents_whose_crc_is_the_same_have_two_ids() -> None:
    crc: dict[int, bytes] = {}
    pairs = []
    for number in range(100_000):
        content = b"crc" + number.to_bytes(4, "big")
        other = crc.setdefault(zlib.crc32(content) % ((1 << 16) - FIRST), content)
        pairs += [(other, content)] if other != content else []
    first, second = pairs[0]
    assert template_id(first) != template_id(second)
    assert template_id(first) == template_id(first)


def test_the_order_of_elements_is_part_of_the_meaning() -> None:
    names = ("octetDeltaCount", "packetDeltaCount", "vlanId")
    made = [template("any", *names), template("any", *reversed(names)), template("any", *names[:2])]
    made.append(template("any", '{element = "octetDeltaCount", octets = 4}', *names[1:]))
    assert len({each.id for each in made}) == 4
    assert template("ipv4", *names).id == made[0].id


def test_families_with_the_same_elements_share_a_template() -> None:
    names = ("octetDeltaCount", "packetDeltaCount")
    encoder = Encoder([template("ipv4", *names), template("ipv6", *names)], OptionsChoice(("flow_keys",)))
    (message,) = encoder.template_messages(Header(0, 0, 1), 1400)
    (only,) = wire.Message.parse(message).sets
    assert wire.TemplateRecord.parse(only.body).template_id == encoder.templates[0].id == encoder.templates[1].id
    assert len(encoder.encode(golden_batch()).data_sets) == 2
