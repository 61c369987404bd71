"""Benches and collectors that are closed when their test ends, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netobs.config import CollectorConfig
from tests.unit.export.box import Box
from tests.unit.export.support import Bench, Encoder, TcpCollector, UdpCollector


@pytest.fixture
def cleanup() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def make_bench(cleanup: contextlib.ExitStack) -> Callable[..., Bench]:
    def make(config: CollectorConfig, encoder: Encoder | None = None) -> Bench:
        bench = Bench(config, encoder)
        cleanup.callback(bench.close)
        return bench

    return make


@pytest.fixture
def make_udp(cleanup: contextlib.ExitStack) -> Callable[..., UdpCollector]:
    def make(host: str = "127.0.0.1", port: int = 0) -> UdpCollector:
        collector = UdpCollector(host, port)
        cleanup.callback(collector.close)
        return collector

    return make


@pytest.fixture
def make_tcp(cleanup: contextlib.ExitStack) -> Callable[..., TcpCollector]:
    def make(host: str = "127.0.0.1", port: int = 0, receive_buffer: int = 0) -> TcpCollector:
        collector = TcpCollector(host, port, receive_buffer)
        cleanup.callback(collector.close)
        return collector

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "main"


@pytest.fixture
def box(folder: Path) -> Iterator[Box]:
    made = Box(folder)
    assert made.opened
    yield made
    made.spool.close()
