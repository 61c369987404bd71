"""Phrases that had to be rewritten once: translated word by word, riddles, relative clauses in place of nouns.

None of them is wrong everywhere. An engineer had to read each of them twice somewhere, and each has a plainer form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    "*.md", "docs/*.md", "man/*", "conf/*.toml", "templates/*.toml", "packaging/systemd/*", "packaging/rpm/netobs.spec",
    "tools/*", "bpf/*.[ch]", "netobs/**/*.py", "lab/**/*.py", "bench/*.py",
)  # fmt: skip
PHRASES = {
    # A phrase (a regular expression, any case), and what to write instead.
    r"at the begin of": "at the start of",
    r"\bdearer\b": "costs more",
    r"\b(an?|the|other) \w+s? of which\b": "whose, or a sentence of its own",
    r"does not notice\b(?! (a key|us|netobs))": "is not interrupted",
    r"what may pass\b": "temporary failures",
    r"\bso long its\b": "because its ... may delay that long",
    r"\bwhich is none\b|\bthat is none\b(?!\.\"\"\")": "a false ...",
    r"\blooks up\b(?! )": "appears to be up",
    r"cannot say an?\b": "cannot encode",
    r"\bwhat (time brings|nobody)\b": "the thing itself",
    r"\bone who wants\b|\bwho wants this\b": "a user, a client",
    r"\bnobody needs to do\b": "may resolve by itself",
    r"\bmay pass by (it|them)sel(f|ves)\b": "may resolve by itself",
    r"\bwill be (read|said|told) of\b": "name the actor",
    r"\b(is|are) said (again|once|so|too|there)\b": "log, repeat",
    r"\bhas its place back\b": "takes over again",
    r"\bput into force\b": "takes effect",
    r"\ball the same\b": "still",
    r"\ban error of the moment\b": "a temporary error",
    r"\bfrom / on\b": "an absolute path",
    r"\bfor want of\b": "because there was no",
    r"\bend less start\b": "end minus start",
    r"\bone packet in so many\b|\bin so many\b": "one packet in N",
    r"\bits watchdog bites\b|\bwatchdog bites\b": "the watchdog expires",
    r"\bdoes not outlive its use\b": "is removed when",
    r"\bhardly a\b": "few",
    r"\bwho may vouch\b|\bmay vouch\b|\bvouches\b": "may sign",
    r"\bis of no use\b": "has no effect",
    r"\bcounts into nothing\b": "has no effect",
    r"\bof nothing but\b": "only",
    r"\bnothing but\b": "only",
    r"\bin the place of the first\b|\btakes the place of the first\b": "replaces the first",
    r"\bcomes? on top\b": "add",
    r"\bas it goes\b": "while it runs",
    r"\bbeing just\b": "at that moment",
    r"\bas far as (one|anybody) knows\b": "seems to",
    r"\bis spoken of\b": "is logged",
    r"\bis no (regular|PEM|number|name of|line of|stream of)\b": "is not a ...",
    r"\bgoes over to\b": "switches to",
    r"\b(are|is) let go\b": "is dropped",
    r"\b(for|after|lasted|fails for) so long\b": "for this long",
    r"\btakes hold of\b|\blets go of the\b": "opens, releases",
    r"\bwould stumble over\b": "problems",
    r"\bthe line of now\b|\b(clocks|counters|ledger) of now\b": "the present ...",
    r"\bmakes every packet\b": "costs more per packet",
    r"\bwhat becomes? of what\b": "name the thing",
    r"\bwhat is odd but no\b": "a warning",
}


def sources() -> Iterator[tuple[Path, str]]:
    for pattern in PATTERNS:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.name != "CHANGELOG.md":
                yield path, path.read_text("utf-8")


def joined(text: str) -> str:
    """``text`` with a comment or sentence that goes over several lines as one line."""
    return re.sub(r"\s*\n[\s#*/\"'|-]*", " ", text)


TEXTS = [(path.relative_to(ROOT), joined(text)) for path, text in sources()]


def test_the_reader_joins_lines() -> None:
    assert joined("# at the\n#   begin of") == "# at the begin of"
    assert joined(" * at the\n * begin of") == " * at the begin of"


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_phrase_is_back(phrase: str) -> None:
    assert len(TEXTS) > 200
    found = [f"{path}: ...{text[max(0, at.start() - 40) : at.end() + 40]}..." for path, text in TEXTS
             for at in re.finditer(phrase, text, re.IGNORECASE)]  # fmt: skip
    assert found == [], f"write instead: {PHRASES[phrase]}"
