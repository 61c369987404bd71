"""`netobs capture` with options that do not go together: nothing is asked or attached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


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
def test_wrong_usage(arguments: list[str], text: str) -> None:
    argv = [sys.executable, "-m", "netobs", "--conf", "none.toml", "capture", "--write", "none.pcap", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert text in done.stderr
    assert not (ROOT / "none.pcap").exists()
