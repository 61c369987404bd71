"""What the modules of netobs say and use, read from their source: strings, signals, exit statuses, the environment."""

from __future__ import annotations

import ast
import functools
import os
import re
from pathlib import Path

NETOBS = Path(__file__).resolve().parents[2] / "netobs"
ENVIRONMENT = {"environ", "environment", "getenv"}
EXITS = {"exit", "_exit", "SystemExit"}


@functools.cache
def nodes() -> list[ast.AST]:
    """Every node of every module; most tests that ask for them run in one process."""
    texts = [path.read_text("utf-8") for path in sorted(NETOBS.rglob("*.py"))]
    return [node for text in texts for node in ast.walk(ast.parse(text))]


def strings() -> set[str]:
    """All string constants; of those with {}, the parts between."""
    return {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def signals() -> set[str]:
    """Names of the signals that are referred to, but SIGKILL, which netobs only sends, to processes of its own."""
    names = {node.attr for node in nodes() if isinstance(node, ast.Attribute)} - {"SIGKILL"}
    return {name for name in names if re.fullmatch("SIG[A-Z0-9]+", name)}


def exit_statuses() -> set[int]:
    """Numbers that a call which ends the program is given, written out or as os.EX_NAME."""
    calls = [node for node in nodes() if isinstance(node, ast.Call) and _name(node.func) in EXITS]
    inside = [each for call in calls for argument in call.args for each in ast.walk(argument)]
    names = {_name(each) for each in inside}
    return {
        *(each.value for each in inside if isinstance(each, ast.Constant) and isinstance(each.value, int)),
        *(getattr(os, name) for name in names if name.startswith("EX_")),
    }


def environment() -> set[str]:
    """Names of environment variables that are read or set."""
    found = set()
    for node in nodes():
        if isinstance(node, (ast.Call, ast.Compare, ast.Subscript)):
            inside = list(ast.walk(node))
            if ENVIRONMENT & {_name(each) for each in inside}:
                found |= {each.value for each in inside if isinstance(each, ast.Constant)}
    return {name for name in found if isinstance(name, str) and re.fullmatch("[A-Z_][A-Z0-9_]+", name)}


def arguments_of(function: str) -> set[str]:
    """The string constants that calls of a function or method of this name have as first argument."""
    calls = [node for node in nodes() if isinstance(node, ast.Call) and _name(node.func) == function and node.args]
    first = [call.args[0] for call in calls]
    return {each.value for each in first if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
