"""The keys of template files about options records: what they choose, and each mistake with its place."""

from __future__ import annotations

import pytest

from lab.samples import TEMPLATES
from netobs.base.errors import TemplateError
from netobs.encode import load_templates
from netobs.encode.options.choice import DEFAULT_KINDS, KINDS, OptionsChoice
from netobs.encode.options.table import options_templates
from netobs.encode.template.file import parse

TEMPLATE = '\n[[template]]\nfamily = "any"\nelements = ["octetDeltaCount"]\n'
MISTAKES = [
    ('options = "interfaces"', 'x.toml: options: expected a list, got "interfaces"; write .. for none'),
    ('options = ["interface"]', 'entry 1: expected one of "interfaces", "sampling", .*; did you mean "interfaces"'),
    ('options = ["sampling", 5]', 'x.toml: options, entry 2: expected one of "interfaces", .*, got 5$'),
    ('options = ["sampling", "flow_keys", "sampling"]', "x.toml: options, entry 3: sampling is listed twice"),
    ('options_form = "stict"', 'options_form: expected one of "fixed", "strict", got .stict.; did you mean "strict"'),
    ("options_form = []", r'x.toml: options_form: expected one of "fixed", "strict", got \[\]$'),
    ('option = ["sampling"]', 'x.toml: unknown key "option"; did you mean "options"'),
]


def test_the_default() -> None:
    assert parse(TEMPLATE, "x.toml").options == OptionsChoice(DEFAULT_KINDS, "fixed")
    assert load_templates("default", [TEMPLATES]).options == OptionsChoice(DEFAULT_KINDS, "fixed")


def test_whether_the_sampling_is_said() -> None:
    silent = f'options = ["interfaces"]{TEMPLATE}'
    assert parse(TEMPLATE, "x.toml").says_sampling
    assert not parse(silent, "x.toml").says_sampling
    both = silent + TEMPLATE.replace("any", "ipv6")
    said = '"octetDeltaCount", "samplingInterval"'
    first = both.replace("any", "ipv4").replace('"octetDeltaCount"', said, 1)
    assert not parse(first, "x.toml").says_sampling
    assert parse(both.replace("any", "ipv4").replace('"octetDeltaCount"', said), "x.toml").says_sampling


def test_what_is_chosen() -> None:
    chosen = parse(f'options = ["flow_keys", "sampling"]\noptions_form = "strict"{TEMPLATE}', "x.toml").options
    assert chosen == OptionsChoice(("flow_keys", "sampling"), "strict")
    assert [each.kind for each in options_templates(chosen)] == ["sampling", "sampling", "flow_keys"]
    assert parse(f"options = []{TEMPLATE}", "x.toml").options.kinds == ()


@pytest.mark.parametrize(("lines", "message"), MISTAKES)
def test_mistakes(lines: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        parse(lines + TEMPLATE, "x.toml")


def test_shipped_files() -> None:
    assert load_templates("go-ipfix", [TEMPLATES]).options.kinds == ()
    strict = load_templates("strict", [TEMPLATES]).options
    assert (set(strict.kinds), strict.form) == (set(KINDS), "strict")
