"""The path of the control socket: daemon and commands find it by the same rule."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netobs.config.identity import control_socket


@pytest.mark.parametrize(
    ("conf", "path"),
    [
        ("/etc/netobs.toml", "/run/netobs/control.sock"),
        ("/etc/../etc/netobs.toml", "/run/netobs/control.sock"),
        ("/etc/netobs/storage.toml", "/run/netobs/control-storage.sock"),
    ],
)
def test_the_packaged_files(conf: str, path: str) -> None:
    assert control_socket(conf) == path
    assert control_socket(Path(conf)) == path


def test_the_default_is_the_packaged_path() -> None:
    assert control_socket() == "/run/netobs/control.sock"


def test_other_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {control_socket(folder / "storage.toml") for folder in (tmp_path, tmp_path / "a", Path("/etc/netobs"))}
    assert len(paths) == 3
    monkeypatch.chdir(tmp_path)
    assert control_socket("storage.toml") == control_socket(tmp_path / "storage.toml")


def test_a_path_fits_into_the_address_of_a_socket() -> None:
    for name in ("x" * 255, "\u00e4" * 100, "a b/..\x1b"):
        for folder in ("/etc/netobs", "/srv"):
            assert len(os.fsencode(control_socket(f"{folder}/{name}.toml"))) < 108
