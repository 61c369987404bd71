"""Files with mistakes between their tables, with bad syntax, or that cannot be read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from netobs.base.errors import ConfigError
from netobs.config import load, parse
from tests.unit.config.test_mistakes import COLLECTOR, HOST, problems

# Whole files, what is said behind "F: ".
FILE_MISTAKES = [
    ("", ['[[collector]]: no such table; add one with its host, such as host = "192.0.2.10"']),
    ("collector = []", ["[[collector]]: expected at least one table [[collector]], got []"]),
    ("collector = 'a'", ['[[collector]]: expected at least one table [[collector]], got "a"']),
    ("collector = ['a']", ['[collector 1]: expected a table, got "a"']),
    ("[collector]\nhost = 'a'", ["[collector]: expected [[collector]], with two brackets on each side"]),
    (f"{COLLECTOR}[captur]", ["[captur]: unknown table; did you mean [capture]?"]),
    (f"{COLLECTOR}[[collectors]]", ["[collectors]: unknown table; did you mean [[collector]]?"]),
    (
        f"{COLLECTOR}[zzz]",
        [
            "[zzz]: unknown table; the tables are [capture], [metering], [[collector]], [[group]], [packet_capture], "
            "[metrics], [insight], [log]"
        ],
    ),
    (f"sampling = 1\n{COLLECTOR}", ["sampling: a key cannot stand outside the tables; write it below [capture]"]),
    (
        f"[capture]\nsampling = 16384\n{COLLECTOR}protocol = 'netflow5'",
        ["[collector 1] protocol: netflow5 can carry [capture] sampling up to 16383; use netflow9 or ipfix"],
    ),
    (f"zzz = 1\n{COLLECTOR}", ["zzz: a key cannot stand outside the tables; write it below its table"]),
    (f"capture = 1\n{COLLECTOR}", ["[capture]: expected one table [capture], got 1"]),
    (f"[[capture]]\n{COLLECTOR}", ["[capture]: expected one table [capture], got [[capture]]"]),
    (
        f"{COLLECTOR}name = 'a'\n[[collector]]\nname = 'a'\nhost = 'b'",
        ['[collector 2 "a"] name: collector 1 has this name already; names must differ'],
    ),
    (
        "[[collector]]\nhost = '2001:db8::1'\n[[collector]]\nhost = '2001:DB8:0::1'",
        ["[collector 2] host: collector 1 has this host, port and transport already; each flow would arrive twice"],
    ),
    (
        "[[collector]]\nhost = 'Flows.example'\n[[collector]]\nhost = 'flows.example.'\nport = 4739",
        ["[collector 2] host: collector 1 has this host, port and transport already; each flow would arrive twice"],
    ),
]

TWO = "[[collector]]\nhost = 'alpha'\n[[collector]]\nhost = 'beta'\nname = 'second'\n"
PAIR = "collectors = ['alpha', 'second']\n"
FILE_MISTAKES += [
    (
        f"{TWO}[[group]]",
        [
            "[group 1] name: missing; expected a name of 1 to 64 printable characters",
            "[group 1] collectors: missing; expected a list of names of collectors, at least 2",
        ],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\ncollectors = ['alpha', 'secnd']",
        ['[group 1 "g"] collectors: entry 2, "secnd": no collector has this name; did you mean "second"?'],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\ncollectors = ['zzz', 'second']",
        ['[group 1 "g"] collectors: entry 1, "zzz": no collector has this name; the collectors are "alpha", "second"'],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\ncollectors = ['alpha']",
        ['[group 1 "g"] collectors: expected a list of names of collectors, at least 2, got ["alpha"]'],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\ncollectors = 'alpha'",
        ['[group 1 "g"] collectors: expected a list of names of collectors, at least 2, got "alpha"'],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\ncollectors = ['alpha', 1, []]",
        [
            '[group 1 "g"] collectors: entry 2: expected the name of a collector, got 1',
            '[group 1 "g"] collectors: entry 3: expected the name of a collector, got []',
        ],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\ncollectors = ['alpha', 'alpha']",
        ['[group 1 "g"] collectors: entry 2, "alpha": it is in this group already; a collector is in one group, once'],
    ),
    (
        f"{TWO}[[collector]]\nhost = 'c'\n[[group]]\nname = 'g'\n{PAIR}[[group]]\nname = 'h'\n"
        "collectors = ['c', 'second']",
        ['[group 2 "h"] collectors: entry 2, "second": it is in group 1 already; a collector is in one group, once'],
    ),
    (
        f"{TWO}[[collector]]\nhost = 'c'\n[[collector]]\nhost = 'd'\n[[group]]\nname = 'g'\n{PAIR}"
        "[[group]]\nname = 'g'\ncollectors = ['c', 'd']",
        ['[group 2 "g"] name: group 1 has this name already; names must differ'],
    ),
    (
        f"{TWO}[[group]]\nname = 'g'\n{PAIR}policy = 'fail-over'",
        [
            '[group 1 "g"] policy: expected one of "replicate", "failover", "balance", got "fail-over"; '
            'did you mean "failover"?'
        ],
    ),
    (f"{TWO}[group]\nname = 'g'\n{PAIR}", ["[group]: expected [[group]], with two brackets on each side"]),
    (f"{TWO}[[groups]]", ["[groups]: unknown table; did you mean [[group]]?"]),
    (
        f"{COLLECTOR}policy = 'balance'\ncollectors = ['a']",
        [
            "[collector 1] policy: unknown key; it belongs below [[group]]",
            "[collector 1] collectors: unknown key; it belongs below [[group]]",
        ],
    ),
    (
        "[[collector]]\n[[collector]]\nhost = 'b'\n[[group]]\nname = 'g'\ncollectors = ['a', 'b']",
        [
            f"[collector 1] host: missing; expected {HOST}",
            '[group 1 "g"] collectors: entry 1, "a": no collector has this name; the collectors are "b"',
        ],
    ),
]


@pytest.mark.parametrize(("text", "said"), FILE_MISTAKES)
def test_a_wrong_file(text: str, said: list[str]) -> None:
    assert problems(text) == said


# The words between place and end are those of the TOML parser.
SYNTAX_MISTAKES = [
    ("[[collector", "end of file: TOML syntax error: ", ""),
    ("[capture]\n  interfaces = [eth0]", "line 2, column 17: TOML syntax error: ", ', in "interfaces = [eth0]"'),
    ("[log]\r\n\r\nlevel = 'a\r\n'", "line 3, column 11: TOML syntax error: ", """, in "level = 'a\""""),
    (
        "[collector]\n[collector]",
        "line 2, column 11: TOML syntax error: ",
        ', in "[collector]"; write [[collector]] for each collector',
    ),
]


@pytest.mark.parametrize(("text", "start", "end"), SYNTAX_MISTAKES)
def test_a_syntax_error_is_shown_with_its_place(text: str, start: str, end: str) -> None:
    (said,) = problems(text)
    assert (said[: len(start)], said[len(said) - len(end) :]) == (start, end)
    assert len(said) > len(start) + len(end)


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 100_000])
def test_what_a_toml_parser_cannot_take_is_a_config_error(text: str) -> None:
    assert [problem.partition(": ")[0] for problem in problems(text)] == ["not a readable TOML file"]


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    text = """
        [capture]
        interfaces = ["/(/", "a b"]
        sampling = 0
        [[collector]]
        prt = 1
        [[collector]]
        name = "main"
        host = "a"
        port = "x"
        [log]
        level = 1
    """
    assert problems(text) == [
        '[capture] interfaces: entry 1, "/(/": bad regular expression: '
        "missing ), unterminated subpattern at character 2",
        '[capture] interfaces: entry 2, "a b": an interface name is not empty and has no "/", ":" or space',
        "[capture] sampling: expected an integer from 1 to 65535, got 0",
        '[collector 1] prt: unknown key; did you mean "port"?',
        f"[collector 1] host: missing; expected {HOST}",
        '[collector 2 "main"] port: expected an integer from 1 to 65535, got "x"',
        '[log] level: expected one of "debug", "info", "warning", "error", got 1',
    ]


def test_the_error_reads_as_one_line_for_each_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[log]\nlevel = 1\ncolour = 2", "/etc/netobs.toml")
    lines = str(caught.value).split("\n")
    assert lines == caught.value.problems
    assert [line.startswith("/etc/netobs.toml: ") for line in lines] == [True, True, True]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "no.toml")
    hint = "create it: a [[collector]] table with a host is enough"
    assert caught.value.problems == [f"{tmp_path}/no.toml: there is no such file; {hint}"]


def test_a_folder_and_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.problems == [f"{tmp_path}: cannot be read: Is a directory"]
    with pytest.raises(ConfigError) as caught:
        load("a\0b")
    (problem,) = caught.value.problems
    assert re.fullmatch(r"a\\x00b: cannot be read: (open: )?embedded null (byte|character in path)", problem)


def test_what_is_no_file_of_a_configuration_is_named_at_once(tmp_path: Path) -> None:
    fifo, huge = tmp_path / "fifo", tmp_path / "huge"
    os.mkfifo(fifo)
    huge.touch()
    os.truncate(huge, 1 << 40)
    for place, said in (
        (fifo, "is not a regular file"),
        (huge, "is longer than 1 MiB"),
        ("/dev/zero", "is not a regular file"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(place)
        assert caught.value.problems == [f"{place}: cannot be read: {said}"]


def test_a_pipe_of_the_shell_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, COLLECTOR.encode())
    os.close(writing)
    assert load(f"/dev/fd/{reading}").collectors[0].host == "192.0.2.10"
    os.close(reading)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "latin1.toml"
    file.write_bytes(b"[log]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.problems == [f"{file}: line 2: not UTF-8 (byte 0xe9)"]
