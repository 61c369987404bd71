"""The default Observation Domain ID."""

from __future__ import annotations

from pathlib import Path

import pytest

from netobs import DEFAULT_CONF
from netobs.config import load, machine_domain


def domain(folder: Path, machine_id: bytes, host_name: str = "a") -> int:
    file = folder / "machine-id"
    file.write_bytes(machine_id)
    return machine_domain(str(file), host_name)


def test_it_is_a_stable_number_of_the_machine_id(tmp_path: Path) -> None:
    first = b"0123456789abcdef0123456789abcdef\n"
    assert domain(tmp_path, first) == domain(tmp_path, first.strip(), "b") == 2687476531
    assert domain(tmp_path, first) != domain(tmp_path, b"f" * 32)


@pytest.mark.parametrize("content", [b"", b"uninitialized\n", b"\xff" * 32, b"ABCDEF" * 6])
def test_without_a_machine_id_it_comes_from_the_host_name(tmp_path: Path, content: bytes) -> None:
    from_name = machine_domain(str(tmp_path / "missing"), "host-1.example")
    assert domain(tmp_path, content, "host-1.example") == from_name
    assert domain(tmp_path, content, "host-2.example") != from_name


def test_each_configuration_file_has_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def of(conf: str | Path) -> int:
        return machine_domain(str(tmp_path / "missing"), "host-1.example", conf)

    assert (
        of(DEFAULT_CONF) == of("/etc/../etc/netobs.toml") == machine_domain(str(tmp_path / "missing"), "host-1.example")
    )
    assert (
        len({of(path) for path in (DEFAULT_CONF, "/etc/netobs/a.toml", "/etc/netobs/b.toml", tmp_path / "a.toml")}) == 4
    )
    monkeypatch.chdir(tmp_path)
    assert of("a.toml") == of(tmp_path / "a.toml")


def test_a_file_that_is_loaded_counts(tmp_path: Path) -> None:
    found = set()
    for name in ("a", "b"):
        path = tmp_path / f"{name}.toml"
        path.write_text('[[collector]]\nhost = "192.0.2.1"\n[[collector]]\nhost = "192.0.2.2"\n', encoding="utf-8")
        first, second = load(path).collectors
        assert first.observation_domain == second.observation_domain == machine_domain(conf=path)
        found.add(first.observation_domain)
    assert len(found) == 2


def test_it_is_never_zero_and_fits_32_bits(tmp_path: Path) -> None:
    numbers = {machine_domain(str(tmp_path / "missing"), f"host-{number}") for number in range(2000)}
    assert len(numbers) == 2000
    assert 1 <= min(numbers) <= max(numbers) < 2**32
    assert machine_domain() == machine_domain()
