"""What is said of long silences of the loop: not each of many."""

from __future__ import annotations

import pytest

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Silence
from netobs.daemon.loop_watch import AGAIN_NS, LoopWatch

SILENCE = Silence(3 * NS_PER_S, 2 * NS_PER_S, "Daemon._on_interval")
SAID = "the loop was silent for 3000 ms, of which 2000 ms in Daemon._on_interval"


def test_a_long_silence_is_said_and_many_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with EventLoop() as loop:
        watch = LoopWatch(loop)
        assert loop.on_silence == watch.tell
        for now_ns in (NS_PER_S, 2 * NS_PER_S, AGAIN_NS, AGAIN_NS + NS_PER_S, AGAIN_NS + 2 * NS_PER_S):
            watch.tell(SILENCE, now_ns)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    first, second = caplog.messages
    assert first.startswith(f"{SAID}: ")
    assert second.startswith(f"{SAID}, and 2 times more than a second since the last warning: ")
