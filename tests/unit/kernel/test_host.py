"""What uname -v says of kernels."""

from __future__ import annotations

import pytest

from netobs.kernel.host import is_realtime


@pytest.mark.parametrize(
    ("version", "realtime"),
    [
        ("#1 SMP PREEMPT_RT Debian 7.2.12-1 (2026-10-22)", True),
        ("#1 SMP PREEMPT_RT Thu Apr 11 14:01:26 UTC 2024", True),
        ("#1 SMP PREEMPT RT Debian 4.19.316-1 (2024-06-25)", True),
        ("#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1 (2025-08-27)", False),
        ("#1 SMP Debian 5.10.209-2 (2024-01-31)", False),
        ("#1 SMP PREEMPT Debian 6.1.0-RT-like", False),
    ],
)
def test_realtime_kernels_are_known_by_their_version(version: str, realtime: bool) -> None:
    assert is_realtime(version) == realtime
