"""From a text to a filter: which language it is, and what is said of a text that is neither."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netobs.base.errors import FilterError
from netobs.pcap.filters import MAX_OF_LIST, classic, compile_filter, libpcap
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP
from tests.filters.expressions import EXPRESSIONS, REFUSED
from tests.filters.oracle import compiled, need_libpcap
from tests.filters.refusals import refusal

ROOT = Path(__file__).parents[4]
NO_LIBPCAP = (
    'filter "host 10.0.0.1": the language of pcap-filter(7) needs libpcap, which {why}; install the package libpcap0.8 '
    "(Debian, Ubuntu) or libpcap (Fedora, EL), or use the form tcp,80, which works without it"
)


@pytest.fixture(autouse=True)
def there_is_libpcap() -> None:
    need_libpcap()


def test_an_expression_is_compiled_by_libpcap_for_both_links() -> None:
    text = "host 10.0.0.1 and tcp port 443"
    filter_ = compile_filter([text])
    assert filter_.text == text
    assert filter_.ethernet == (compiled(text),)
    assert filter_.ip == (compiled(text, libpcap.RAW_IP),)
    assert {each.k for each in filter_.ethernet[0] if classic.is_return(each)} == {0, 262144}
    assert filter_ == compile_filter([text])  # equal selections share a bit
    assert hash(filter_) == hash(compile_filter([text]))


@pytest.mark.parametrize("text", ["ether host 02:00:00:00:00:01", "vlan 5", "arp", "mpls", "ether broadcast"])
def test_what_asks_for_ethernet_selects_nothing_without_it(text: str) -> None:
    filter_ = compile_filter([text])
    assert filter_.ethernet
    assert filter_.ip == ()
    assert filter_.programs(LINK_IP) == ()
    assert filter_.programs(LINK_ETHERNET) == filter_.ethernet


def test_nothing_selects_everything() -> None:
    assert compile_filter([""]).ethernet == (compiled(""),)
    assert compile_filter([""]).ip == (compiled("", libpcap.RAW_IP),)


def test_optimizing_can_be_left_out() -> None:
    text = "tcp port 80 or tcp port 443"
    assert len(compile_filter([text], optimize=False).ethernet[0]) > len(compile_filter([text]).ethernet[0])


def test_a_list_keeps_each_program_apart() -> None:
    texts = ["tcp,80", "udp port 53", "arp", "tcp,80"]
    filter_ = compile_filter(texts)
    assert filter_.text == "tcp,80 or udp port 53 or arp"
    each = [compile_filter([text]) for text in texts[:3]]
    assert filter_.programs(LINK_ETHERNET) == tuple(one.ethernet[0] for one in each)
    assert filter_.programs(LINK_IP) == tuple(one.ip[0] for one in each[:2])


def test_a_list_has_a_bound_and_the_same_joined_is_within_it() -> None:
    texts = [f"port {port}" for port in range(1000, 1080)]
    assert re.fullmatch(
        r"a list of 80 filters has \d{4} instructions, and at most 2048 are possible; "
        'join filters by "or" to one, which has fewer',
        refusal(texts),
    )
    assert compile_filter([" or ".join(texts[:40])]).instructions < MAX_OF_LIST


def test_a_list_needs_a_filter() -> None:
    with pytest.raises(FilterError, match=r'^no filter is given; the empty one, "", selects every packet$'):
        compile_filter([])


@pytest.mark.parametrize("text", REFUSED)
def test_a_refusal_is_libpcaps_own_message_in_one_line(text: str) -> None:
    said = refusal([text])
    handle = libpcap.library().pcap_open_dead(libpcap.ETHERNET, classic.ALL)
    program = libpcap.BpfProgram()
    assert libpcap.library().pcap_compile(handle, program, text.encode(), 1, libpcap.NETMASK_UNKNOWN) == -1
    own = libpcap.library().pcap_geterr(handle).decode()
    libpcap.library().pcap_close(handle)
    assert said == f'filter "{text}": {own}'
    assert own
    assert "\n" not in said


def test_the_text_that_is_wrong_is_named() -> None:
    assert refusal(["tcp,80", "tcp portx", "udp"]).startswith('filter "tcp portx": ')


def test_a_text_is_shown_in_one_line_and_not_whole() -> None:
    assert refusal(["tcp\nportx"]).startswith('filter "tcp\\nportx": ')
    assert refusal(["host " + "x" * 300 + " y"]).startswith(f'filter "host {"x" * 115}...": ')


@pytest.mark.parametrize("text", ["tcp\0", "host \ud800"])
def test_what_c_cannot_read_is_refused(text: str) -> None:
    assert refusal([text]).endswith("it has a character that no expression may have")


@pytest.mark.parametrize("text", ["ip protochain 6", "ip6 protochain \\tcp"])
def test_a_loop_is_refused(text: str) -> None:
    assert 'it has a loop, as "protochain" makes, and the kernel allows none' in refusal([text])


def test_what_is_too_long_for_the_kernel_is_refused() -> None:
    # Not optimized, which libpcap needs long for.
    text = " or ".join(f"host 10.{n // 256}.{n % 256}.1" for n in range(600))
    with pytest.raises(FilterError, match=r"it has \d+ instructions; the limit is 4096$"):
        compile_filter([text], optimize=False)


def test_threads_may_compile_at_the_same_time() -> None:
    texts = EXPRESSIONS[:200]
    alone = [compile_filter([text]) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(lambda text: compile_filter([text]), texts)) == alone


def test_libpcap_says_its_version() -> None:
    assert libpcap.version().startswith("libpcap version ")


def said_with(library: Path) -> str:
    """What another process says of an expression, and then of a simple form, with ``library`` as its libpcap."""
    for soname in libpcap.SONAMES:
        (library.parent / soname).symlink_to(library)
    code = "from tests.filters.refusals import refusal, compile_filter\n"
    code += "print(refusal(['host 10.0.0.1']))\nprint(len(compile_filter(['tcp,80']).ethernet[0]))"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    message, length = done.stdout.splitlines()
    assert int(length) == len(compile_filter(["tcp,80"]).ethernet[0])
    return message


def test_a_libpcap_that_is_broken(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a library at all" * 100)
    why = f"cannot be loaded ({tmp_path}/{libpcap.SONAMES[0]}: invalid ELF header)"
    assert said_with(broken) == NO_LIBPCAP.format(why=why)


def test_a_libpcap_that_lacks_a_function(tmp_path: Path) -> None:
    empty, source = tmp_path / "empty.so", tmp_path / "empty.c"
    source.write_text("int nothing;\n", encoding="ascii")
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(empty), str(source)], check=True, timeout=60)
    why = "cannot be loaded (it has no function pcap_open_dead)"
    assert said_with(empty) == NO_LIBPCAP.format(why=why)
