"""`netobs capture` with options that do not go together: nothing is asked or attached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.command import netobs


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--recorded", "--count", "1"], "--count has no effect with --recorded"),
        (["--recorded", "--alone"], "--alone has no effect with --recorded"),
        (["--alone", "--connect", "127.0.0.1:9990"], "--connect has no effect with --alone"),
        (["--cert", "a.pem"], "--cert and --key go together"),
        (["--tls"], "--tls needs --connect; for the daemon of this host, the configuration decides"),
        (["--count", "0"], "'--count': 0 is not in the range x>=1"),
        (["--duration", "1"], "'--duration': "),
        (["--connect", "9990"], "'--connect': "),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], text: str) -> None:
    file = tmp_path / "none.pcap"
    done = netobs("--conf", tmp_path / "none.toml", "capture", "--write", file, *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert not file.exists()
