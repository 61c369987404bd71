"""The manual pages say what the code does: every key, option, command, signal, reason and template, and no other."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from netobs.cli.main import cli
from netobs.cli.operate import CONTEXT
from netobs.config import parse, warnings_of
from netobs.config.schema import ARRAYS, TABLES, Key, all_keys, keys
from netobs.config.values import Boolean, Choice, Integer, Scaled
from netobs.daemon.reload import AT_START_ONLY
from netobs.datapath.layout import LEDGER_REASONS
from netobs.doctor.finding import NOT_SEEN
from netobs.doctor.interfaces import AFTER, BEFORE
from netobs.encode.columns import COLUMNS, OWN_VALUES
from netobs.encode.lint import rules as lint
from netobs.encode.options import choice
from netobs.encode.options import table as options_table
from netobs.encode.registry import by_name
from netobs.encode.template import entry as template_entry
from netobs.encode.template import file
from netobs.export.spool import store
from tests.unit import sources
from tests.unit.manual import MAN, Item, Page

ROOT = MAN.parent
PROGRAM, CONFIGURATION, TEMPLATES = Page("netobs.8"), Page("netobs.toml.5"), Page("netobs-templates.5")
COMPLETION = "_NETOBS_COMPLETE"
"""Read by click, which makes it of the name of the program."""
LISTEN = {"what else is damaged is counted only"}
"""Said by the built-in collector, which whoever called it is looking at."""


def heading(table: str) -> str:
    return f"[[{table}]]" if table in ARRAYS else f"[{table}]"


def names(items: list[Item], macro: str = "Cm") -> list[str]:
    """The names that ``items`` explain, in order."""
    return [name for item in items for name in item.named(macro)]


def test_the_readme_names_the_manual_pages_and_the_examples() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"\]\(man/([^)]+)\)", readme)) == sorted(path.name for path in MAN.iterdir())
    examples = {path.name for path in (ROOT / "conf").glob("*.toml")} - {"netobs.toml"}
    assert {name for name in examples if f"`{name}`" in readme} == examples


# netobs.toml(5)


def test_every_key_of_the_configuration_is_explained_in_its_order() -> None:
    assert CONFIGURATION.subsections("TABLES") == [heading(table) for table in TABLES]
    for table in TABLES:
        assert names(CONFIGURATION.items("TABLES", heading(table))) == list(keys(table))


def entry(key: Key) -> Item:
    (item,) = (item for item in CONFIGURATION.items("TABLES", heading(key.table)) if item.named("Cm") == [key.name])
    return item


@pytest.mark.parametrize("key", list(all_keys()), ids=lambda key: f"{key.table}.{key.name}")
def test_a_key_has_its_default_and_its_range(key: Key) -> None:
    item = entry(key)
    assert item.default() == key.default
    assert ("Required" in item.words()) == key.required
    kind, words = key.kind, item.words()
    if isinstance(kind, Integer):
        assert {str(kind.minimum), str(kind.maximum)} <= words
    elif isinstance(kind, Scaled):
        assert {f'"{kind.minimum}"', f'"{kind.maximum}"'} <= words
    elif isinstance(kind, Choice):
        assert {f'"{word}"' for word in kind.built} <= words
    elif isinstance(kind, Boolean):
        assert words & {"Boolean"}


def test_a_key_that_a_reload_does_not_reach_says_so() -> None:
    late = {f"{table}.{name}" for table, names in AT_START_ONLY.items() for name in names}
    assert {f"{key.table}.{key.name}" for key in all_keys() if "at the next start" in entry(key).text()} == late
    named = {name for macro, words in PROGRAM.macros("RELOADING") if macro == "Cm" for name in words}
    assert {name for name in named if name.startswith(("capture.", "insight."))} == late


def test_the_examples_of_the_configuration_are_right() -> None:
    blocks = CONFIGURATION.literals("DESCRIPTION") + CONFIGURATION.literals("EXAMPLES")
    examples = [block for block in blocks if "[[collector]]" in block]
    assert len(examples) > 5
    for text in examples:
        config = parse(text, "netobs.toml(5)")
        assert warnings_of(config) == []
        assert [file.load(each.template) for each in config.collectors]


# netobs(8)


def commands(command: click.Command, path: str = "netobs") -> Iterator[tuple[str, click.Command]]:
    """The program and all that can be called in it, with the words to call it by."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{path} {name}")


COMMANDS = dict(commands(cli))


def options(path: str) -> dict[str, click.Option]:
    """The options of a command by each of their names."""
    mine = [each for each in COMMANDS[path].params if isinstance(each, click.Option)]
    return {name: option for option in mine for name in (*option.opts, *option.secondary_opts)}


def option_entries(path: str) -> dict[str, Item]:
    """The items that explain the options of a command, by each of the names in their heads."""
    items = PROGRAM.items("OPTIONS") if path == "netobs" else PROGRAM.items("COMMANDS", path)
    return {f"-{name}": item for item in items for name in item.named("Fl")}


def test_every_command_is_explained() -> None:
    groups = {path for path, command in COMMANDS.items() if hasattr(command, "commands")}
    assert PROGRAM.subsections("COMMANDS") == [path for path in COMMANDS if path not in groups]
    assert all(options(path) == {} for path in groups - {"netobs"})


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if path == "netobs" or command.params])
def test_every_option_is_explained(path: str) -> None:
    help_names = set(CONTEXT["help_option_names"]) if path == "netobs" else set()
    entries, there = option_entries(path), options(path)
    assert set(entries) == set(there) | help_names
    for name, option in there.items():
        words = entries[name].words()
        if option.show_default:
            assert str(option.default) in words
        if isinstance(option.type, click.Choice):
            assert set(option.type.choices) <= words
        if isinstance(option.type, click.IntRange) and option.type.max is not None:
            assert {str(option.type.min), str(option.type.max)} <= words


def test_the_synopsis_has_every_command_and_option() -> None:
    macros = list(PROGRAM.macros("SYNOPSIS"))
    shown = {f"-{word}" for name, words in macros if name == "Fl" for word in words if word.startswith(("-", "h"))}
    assert shown == {name for path in COMMANDS for name in options(path)} | set(CONTEXT["help_option_names"])
    called = {" ".join(["netobs", *words]) for name, words in macros if name == "Cm"}
    assert called == set(PROGRAM.subsections("COMMANDS"))


def test_every_argument_has_its_name() -> None:
    for path, command in COMMANDS.items():
        arguments = [each for each in command.params if isinstance(each, click.Argument)]
        called = {(each.name or "").upper() if each.metavar is None else each.metavar for each in arguments} - {""}
        assert called <= {word for name, words in PROGRAM.macros("COMMANDS", path) if name == "Ar" for word in words}


def test_the_signals() -> None:
    assert set(names(PROGRAM.items("SIGNALS"), "Dv")) == sources.signals()


def test_the_exit_statuses() -> None:
    known = {0, click.UsageError.exit_code} | sources.exit_statuses()
    assert {item.fragments()[0] for item in PROGRAM.items("EXIT STATUS")} == {str(status) for status in known}
    for status, arguments in ((0, ["--version"]), (1, ["--conf", "/nowhere.toml"]), (2, ["--dryrun"])):
        done = subprocess.run([sys.executable, "-m", "netobs", *arguments], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == status


def test_what_the_service_runs_as() -> None:
    unit = (ROOT / "packaging/systemd/netobs.service").read_text("utf-8")
    settings = dict(line.split("=", 1) for line in unit.splitlines() if re.match("[A-Z][A-Za-z]+=", line))
    shown = [(name, word) for name, words in PROGRAM.macros("SERVICE") for word in words]
    assert ("Li", settings["User"]) in shown
    writable = [path.lstrip("-") for path in settings["ReadWritePaths"].split()]
    assert writable
    assert {("Pa", path) for path in writable} <= {*shown}
    assert names(PROGRAM.items("SECURITY CONSIDERATIONS"), "Dv") == settings["AmbientCapabilities"].split()


def test_the_environment() -> None:
    explained = set(names(PROGRAM.items("ENVIRONMENT"), "Ev"))
    assert sources.environment() <= explained
    assert explained - {COMPLETION} <= sources.strings()
    assert COMPLETION in explained


def test_every_path_is_explained() -> None:
    used = {text for text in sources.strings() if re.fullmatch(r"/(etc|usr/share|var|run)/[\w./-]+", text)}
    assert used
    assert used <= {word for name, words in PROGRAM.macros("FILES") if name == "Pa" for word in words}


def test_every_reason_of_a_loss_is_explained() -> None:
    calls = sources.arguments_of("count_not_sent") | sources.arguments_of("lose")
    not_sent = calls | {each.replace("-", "_") for each in store.REASONS}
    explained = names(PROGRAM.items("DIAGNOSTICS", "The account"))
    of_the_system = {name for name in explained if name in errno.errorcode.values()}
    assert of_the_system
    assert set(explained) == not_sent | set(LEDGER_REASONS) | of_the_system
    assert explained[: len(LEDGER_REASONS)] == list(LEDGER_REASONS)


def messages() -> list[str]:
    """What the log may say, as DIAGNOSTICS has it, without what stands for something else."""
    return [part for item in PROGRAM.items("DIAGNOSTICS") for part in item.fragments()]


def test_every_message_is_one_that_netobs_has() -> None:
    said = sources.strings()
    assert [message for message in messages() if not any(message in text for text in said)] == []


def test_every_warning_and_error_in_the_log_is_explained() -> None:
    logged = set().union(*map(sources.arguments_of, ("warning", "error", "exception")))
    with_words = {text for text in logged if re.search("[a-z]", text.replace("%s", ""))} - LISTEN
    assert with_words
    assert [text for text in with_words if not any(message in text for message in messages())] == []


def test_everything_that_the_doctor_finds_is_explained() -> None:
    found = {*sources.arguments_of("Finding"), NOT_SEEN, *BEFORE.values(), *AFTER.values()}
    assert sorted(names(PROGRAM.items("DIAGNOSTICS", "What netobs doctor finds"))) == sorted(found)


def test_everything_that_listen_calls_odd_is_explained() -> None:
    """The kinds: what ``Notes.add`` and ``Checker`` are given, the verdicts of ``Sequence``, and what is computed."""
    given = sources.arguments_of("add") | sources.arguments_of("_odd")
    kinds = {text for text in given if re.fullmatch("[a-z]+(-[a-z]+)*", text)} | {
        "closed",
        "malformed",
        "fill",
        "surplus",
    }
    kinds |= {f"sequence-{verdict}" for verdict in ("gap", "late", "repeated", "back")}
    assert set(names(PROGRAM.items("DIAGNOSTICS", "What netobs listen calls odd"))) == kinds


# netobs-templates(5)


def test_every_template_that_is_shipped_is_explained() -> None:
    shipped = {path.stem for path in (ROOT / "templates").glob("*.toml")}
    assert sorted(names(TEMPLATES.items("SHIPPED TEMPLATES"))) == sorted(shipped)


def test_every_key_of_a_template_file_is_explained() -> None:
    explained = {part: names(TEMPLATES.items("FILE FORMAT", part)) for part in TEMPLATES.subsections("FILE FORMAT")}
    own = explained.pop("Element of your own enterprise")
    assert sorted(own) == sorted(template_entry._ENTERPRISE_KEYS)
    assert explained == {
        "Top level": list(choice.KEYS),
        "[[template]]": [*file._KEYS, *file._FORMER_KEYS],
        "Registered element in another length": list(template_entry._KEYS),
    }


def format_item(part: str, name: str) -> Item:
    (item,) = (item for item in TEMPLATES.items("FILE FORMAT", part) if item.named("Cm") == [name])
    return item


def test_what_the_keys_of_a_template_file_take() -> None:
    assert {f'"{family}"' for family in file._FAMILIES} <= format_item("[[template]]", "family").words()
    assert set(choice.DEFAULT_KINDS) <= format_item("Top level", "options").words()
    assert set(choice.FORMS) <= format_item("Top level", "options_form").words()
    own = "Element of your own enterprise"
    insight = {name for item in TEMPLATES.items("VALUES OF TCP CONNECTIONS") for name in item.named("Cm")}
    assert {name for name, (_, column) in OWN_VALUES.items() if column.group == "tcp"} == insight
    assert set(OWN_VALUES) - insight <= format_item(own, "value").words()
    assert set(options_table.SEMANTICS) == words_of_list(format_item(own, "semantics"))
    assert set(options_table.UNITS) == words_of_list(format_item(own, "units"))


def words_of_list(item: Item) -> set[str]:
    """What the lines of an item that are a list (Li) name."""
    return {each.strip(" .") for name, words in item.body if name == "Li" for each in " ".join(words).split(",")} - {""}


def test_every_element_is_explained() -> None:
    assert sorted(names(TEMPLATES.items("INFORMATION ELEMENTS"))) == sorted(COLUMNS)
    shorter = format_item("Registered element in another length", "octets").words()
    for name, column in COLUMNS.items():
        element = by_name(name)
        assert element is not None
        assert (name in shorter) == (0 < column.least_octets < element.octets)


def test_every_kind_of_options_record_is_explained() -> None:
    items = {item.named("Cm")[0]: item for item in TEMPLATES.items("OPTIONS RECORDS")}
    assert list(items) == list(choice.KINDS)


def test_every_collector_is_explained() -> None:
    items = TEMPLATES.items("CHECKING")
    assert names(items) == list(lint.RULES)
    for item in items:
        rules = [rule for collector in item.named("Cm") for rule in lint.RULES[collector]]
        needed = [rule.elements for rule in rules if rule.when == "without"]
        assert [elements for elements in needed if not item.words() & set(elements)] == []
    verdicts = {" ".join(item.named("Dq")) for item in items} - {""}
    assert len(verdicts) == 3
    assert verdicts <= sources.strings()


def test_the_examples_of_template_files_are_right() -> None:
    examples = [text for text in TEMPLATES.literals("EXAMPLES") if "[[template]]" in text]
    assert len(examples) > 2
    for text in examples:
        assert file.parse(text, "netobs-templates(5)")
