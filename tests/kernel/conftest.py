"""One load of the programs for all the tests of a module that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.namespaces import Lab, Link
from lab.prog_run import Programs
from netobs.datapath.layout import FLOW_TABLES
from tests.kernel.foreign import Foreign, compile_bpf, compile_foreign


@pytest.fixture(scope="module", params=FLOW_TABLES)
def programs(request: pytest.FixtureRequest) -> Iterator[Programs]:
    """Programs with each of the flow tables, a small one; each test leaves it empty (``observe`` evicts)."""
    with Programs(max_flows=1024, flow_table=request.param) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Link, Link]]:
    """Both ends of a pair, in one namespace: what leaves one arrives at the other."""
    with Lab() as lab:
        ns = lab.namespace()
        yield lab.veth(ns, ns, names=("source", "target"), mtu=9000)


@pytest.fixture(scope="session")
def tag_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object of tag.bpf.c."""
    return compile_bpf(Path(__file__).with_name("tag.bpf.c"), tmp_path_factory.mktemp("tag"))


@pytest.fixture(scope="module")
def foreign_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_foreign(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def foreign(foreign_object: Path) -> Iterator[Foreign]:
    with Foreign(foreign_object) as loaded:
        yield loaded
