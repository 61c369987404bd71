"""The helper's configuration file."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from netobs.base.errors import ConfigError
from netobs.helper.config import HelperConfig, load

SHIPPED = Path(__file__).resolve().parents[3] / "packaging" / "netobs-helper.toml"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "helper.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_shipped_file() -> None:
    assert load(str(SHIPPED)) == HelperConfig(("qrouter-*", "ovnmeta-*"), "netobs")


def test_nothing_is_allowed_unless_it_is_named(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""))
    assert config == HelperConfig((), "netobs")
    assert not config.selector.matches("qrouter-1")


def test_root_and_one_user_are_served(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert load(written(tmp_path, f'user = "{me}"')).uids() == {0, os.geteuid()}
    with pytest.raises(ConfigError, match='there is no user "no such user"'):
        load(written(tmp_path, 'user = "no such user"')).uids()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('netns = ["a/b"]', "netns: entry 1"),
        ('netns = "a"', 'write \\["a"\\]'),
        ("user = 7", "user: expected a user name"),
        ("users = []", "users: unknown key; the keys are netns, user"),
        ("[", "not a readable TOML file"),
        ("netns = [" * 3000, "not a readable TOML file"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(written(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(str(tmp_path / "none.toml"))
