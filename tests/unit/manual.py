"""Reads the manual pages in man/: their mdoc macros, as far as the tests need them (mdoc(7))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAN = Path(__file__).resolve().parents[2] / "man"
ESCAPES = {r"\-": "-", r"\&": "", r"\e": "\\", r"\(dq": '"', r"\(aq": "'", r"\(ha": "^", r"\(ti": "~"}
CALLABLE = {"Ar", "Cm", "Dq", "Dv", "Ev", "Fl", "Ic", "Li", "Nm", "No", "Ns", "Op", "Pa", "Pq", "Sq", "Sx", "Sy", "Xr"}
"""The macros that may stand in the middle of a line."""
PUNCTUATION = {",", ".", ";", ":", "|", "..."}


def unescape(text: str) -> str:
    """``text`` as a reader sees it."""
    return re.sub(r"\\(?:\(..|.)", lambda found: ESCAPES[found[0]], text)


@dataclass
class Item:
    """An item of a list: ``head`` and ``body`` are pairs of a macro ("" for plain text) and its arguments."""

    head: list[tuple[str, list[str]]]
    body: list[tuple[str, list[str]]] = field(default_factory=list)

    def named(self, macro: str) -> list[str]:
        """The arguments of ``macro`` in the head, without punctuation: the names that the item explains."""
        return [each for name, words in self.head if name == macro for each in words if each not in PUNCTUATION]

    def default(self) -> str:
        """What stands in the head behind "=", or an empty string."""
        return " ".join(self.named("Li"))

    def fragments(self) -> list[str]:
        """The head without what stands for something else (Ar)."""
        return [" ".join(words) for name, words in self.head if name in ("", "No") and words]

    def text(self) -> str:
        """The body as running text."""
        return " ".join(word for _, arguments in self.body for word in arguments)

    def words(self) -> set[str]:
        """The words of the body, with and without the punctuation around them."""
        words = self.text().split()
        return {*words, *(word.strip(",.;:()") for word in words)}


class Page:
    """A manual page, by section (Sh) and subsection (Ss, "" before the first)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: dict[tuple[str, str], list[str]] = {}
        section = subsection = ""
        for line in (MAN / name).read_text("utf-8").splitlines():
            if line.startswith(".Sh "):
                section, subsection = line[4:], ""
            elif line.startswith(".Ss "):
                subsection = unescape(line[4:])
            else:
                self._lines.setdefault((section, subsection), []).append(line)

    def subsections(self, section: str) -> list[str]:
        """The names of the subsections of ``section`` that have lines, in order."""
        return [name for parent, name in self._lines if parent == section and name]

    def lines(self, section: str, subsection: str | None = None) -> list[str]:
        """The lines of a subsection, or with None of the whole section."""
        return [line for (parent, name), lines in self._lines.items() if parent == section
                and subsection in (None, name) for line in lines]  # fmt: skip

    def macros(self, section: str, subsection: str | None = None) -> Iterator[tuple[str, list[str]]]:
        """All macros with their arguments, those in the middle of a line too; "" is plain text."""
        for line in self.lines(section, subsection):
            yield from parse(line)

    def items(self, section: str, subsection: str | None = None) -> list[Item]:
        """The items of all lists, in order. Each takes what follows, up to the next item or the end of its list."""
        found: list[Item] = []
        is_open = False
        for line in self.lines(section, subsection):
            if line.startswith(".It"):
                found.append(Item([pair for pair in parse(line) if pair != ("It", [])]))
                is_open = True
            elif line.startswith(".El"):
                is_open = False
            elif is_open:
                found[-1].body += parse(line)
        return found

    def literals(self, section: str) -> list[str]:
        """The blocks of ``section`` that are printed as they are."""
        text = "\n".join(self.lines(section))
        blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text, re.DOTALL | re.MULTILINE)
        return [unescape(block) for block in blocks]


def parse(line: str) -> list[tuple[str, list[str]]]:
    """The macros of a line and their arguments."""
    if not line.startswith("."):
        return [("", [unescape(line)])]
    if line.startswith('.\\"'):
        return []
    found: list[tuple[str, list[str]]] = []
    for number, word in enumerate(line[1:].split()):
        if number == 0 or word in CALLABLE:
            if found and found[-1] == ("It", []):
                found.pop()
            found.append((word, []))
        elif found[-1] == ("It", []):
            found[-1] = ("", [unescape(word)])
        else:
            found[-1][1].append(unescape(word))
    return found
