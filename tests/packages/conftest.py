"""The packages, and the systems that they are installed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from lab.namespaces import Lab
from tests.packages import container, debian_root
from tests.packages.debian_root import RootMissing
from tests.packages.host import AT_ONCE, COLLECTOR, Site, site
from tests.packages.made import changed, renumbered
from tests.packages.made import package as made_package

SUITES = ("bookworm", "trixie")


@pytest.fixture(scope="session", autouse=True)
def no_containers_left(no_leftovers: None) -> None:
    """Clears away what killed test runs left behind."""
    if os.geteuid() == 0 and not container.problem():
        container.sweep()


@pytest.fixture(scope="session")
def deb() -> Path:
    """The Debian package."""
    return made_package("deb")


@pytest.fixture(scope="session")
def helper_deb() -> Path:
    """The Debian package of the root helper."""
    return made_package("deb", "netobs-helper")


@pytest.fixture(scope="session")
def newer_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the next version would be: its configuration file says something else, too."""
    return renumbered(deb, tmp_path_factory.mktemp("newer"), "+next")


@pytest.fixture(scope="session")
def other_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later version whose programs and maps have another layout: the ledger of a CPU is longer, and has a field that
    this version does not know."""
    tree = changed(
        tmp_path_factory.mktemp("other-tree"),
        {
            "bpf/netobs.h": {
                "__u64 reserved[2]; /* to a multiple of 64": "__u64 more; __u64 reserved[9]; /* to a multiple of 64",
                'sizeof(struct ledger) == 128, "two cache lines"': 'sizeof(struct ledger) == 192, "three cache lines"',
            },
            "netobs/datapath/layout.py": {
                '        ("reserved", "<u8", (2,)),': '        ("more", "<u8"), ("reserved", "<u8", (9,)),'
            },
        },
    )
    return renumbered(made_package("deb", tree=tree), tmp_path_factory.mktemp("other"), "+other")


@pytest.fixture(scope="session")
def former_deb() -> Path:
    """The Debian package of the last release: the file that NETOBS_FORMER_DEB names, as docs/releasing.md says."""
    path = os.environ.get("NETOBS_FORMER_DEB")
    if not path:
        pytest.skip("NETOBS_FORMER_DEB names no package of the last release")
    return Path(path)


def _cannot_run(reason: str, report: list[str]) -> NoReturn:
    report.append(f"not run: {reason}")
    if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1":
        pytest.fail(f"NETOBS_REQUIRE_KERNEL=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def _root(make: Callable[[str, Path], Path], suite: str, deb: Path, report: list[str]) -> Path:
    if container.problem():
        _cannot_run(container.problem(), report)
    try:
        return make(suite, deb)
    except RootMissing as error:
        _cannot_run(str(error), report)


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """A release of Debian."""
    name: str = request.param
    return name


@pytest.fixture
def bare(lab: Lab, tmp_path: Path, suite: str, deb: Path, report: list[str]) -> Iterator[Site]:
    """A host as Debian's installer leaves it: it has nothing of what netobs needs."""
    with site(lab, tmp_path, _root(debian_root.bare, suite, deb, report)) as bare_site:
        yield bare_site


@pytest.fixture
def prepared(lab: Lab, tmp_path: Path, suite: str, deb: Path, report: list[str]) -> Iterator[Site]:
    """A host that has all that netobs depends on, but not netobs."""
    with site(lab, tmp_path, _root(debian_root.prepared, suite, deb, report)) as prepared_site:
        yield prepared_site


@pytest.fixture
def installed(prepared: Site, deb: Path) -> Site:
    """A host with netobs, configured for a collector and quick to export, not started."""
    prepared.host.install(deb)
    prepared.host.configure(host=COLLECTOR, **AT_ONCE)
    return prepared
