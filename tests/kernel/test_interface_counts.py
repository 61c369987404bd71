"""The counts of each interface and direction: every packet is in one row, or in the ledger's rest."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

from lab import frames as f
from lab.keeping import DictKeeper
from lab.namespaces import Lab, in_namespace
from lab.prog_run import Programs, Run, on_cpu
from lab.wire import Sender, wait_for
from netobs.config import CaptureConfig
from netobs.datapath.datapath import Datapath
from netobs.datapath.interface_counts import EGRESS, INGRESS, LEAST_ROWS, count_key
from netobs.datapath.layout import INTERFACE_PROBES, LEDGER
from netobs.datapath.namespace_programs import NamespacePrograms

pytestmark = pytest.mark.kernel

LO = 1  # the interface of a test run
PLAIN = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(100))))
SHORT = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(b""))).ljust(60, b"\0")
TAGGED = f.ethernet(*f.tag(f.Q, 7, f.IPV4, f.ipv4(f.UDP, f.udp(bytes(50)))))
ARP = f.ethernet(0x0806, bytes(28))
BROKEN = f.ethernet(f.IPV4, b"\x35" + bytes(19))
SUPER = f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK, bytes(1000))))
"""With gso_size 300: four segments."""
HEADERS = 14 + 20 + 20
SMALL: dict[str, Any] = {"max_flows": 1024}
ETHERNET = 14


def counts_of(programs: Programs, direction: int = INGRESS, netns: int = 0, ifindex: int = LO) -> dict[str, int]:
    """Nothing if there are none."""
    rows = programs.datapath.interface_counts.read()
    found = rows[rows["key"] == np.uint64(count_key(netns, ifindex, direction))]
    return {name: int(found[name][0].astype("<i8")) for name in (rows.dtype.names or ())[1:]} if len(found) else {}


@pytest.mark.parametrize("config", [{}, {"sampling": 1000}])
@pytest.mark.parametrize("preemptible", [False, True])
def test_skbs_and_their_octets_whatever_becomes_of_the_packet(config: dict[str, Any], preemptible: bool) -> None:
    frames = [PLAIN, SHORT, TAGGED, ARP, BROKEN]
    with Programs(preemptible=preemptible, **SMALL, **config) as programs:
        programs.observe(*frames, repeat=3)
        counts = counts_of(programs)
        assert counts["packets"] == 3 * len(frames)
        assert counts["merged"] == counts["repeated_octets"] == 0
        # The test run takes a tag out of the frame only for interfaces, so that it is in skb->len here.
        assert counts["octets"] + counts["link_octets"] + ETHERNET * counts["packets"] == 3 * sum(map(len, frames))
        assert counts_of(programs, EGRESS) == {}
        programs.observe(PLAIN, program="netobs_egress")
        assert counts_of(programs, EGRESS)["packets"] == 1
        seen = programs.ledger().seen
        assert seen.packets == 3 * len(frames) + 1


def test_a_super_packet_is_one_skb_and_repeats_its_headers() -> None:
    with Programs(**SMALL) as programs:
        programs.observe(SUPER, repeat=2, gso_size=300, gso_segs=4)
        counts = counts_of(programs)
        assert (counts["packets"], counts["merged"], counts["repeated_octets"]) == (8, 6, 6 * HEADERS)
        skbs = counts["packets"] - counts["merged"]
        skb_octets = counts["octets"] + counts["link_octets"] + ETHERNET * skbs
        assert skb_octets == 2 * len(SUPER)
        assert skb_octets + counts["repeated_octets"] == 2 * (4 * HEADERS + 1000)
        assert counts["octets"] == 2 * (4 * (HEADERS - ETHERNET) + 1000)


def test_plain_packets_set_nothing_but_what_is_seen() -> None:
    with Programs(**SMALL) as programs:
        programs.observe(PLAIN, repeat=5)
        octets = 5 * (len(PLAIN) - ETHERNET)
        rest = {"merged": 0, "link_octets": 0, "tagged_skbs": 0, "repeated_octets": 0}
        assert counts_of(programs) == {"packets": 5, "octets": octets, **rest}


def test_programs_for_packets_that_begin_with_ip() -> None:
    """A test run takes the EtherType from bytes 12 and 13: here they are in the source address."""
    packet = f.ipv4(f.UDP, f.udp(bytes(100)), src="8.0.0.1")
    with Programs(**SMALL) as programs:
        programs.observe(packet, program="netobs_l3_ingress", repeat=2)
        counts = counts_of(programs)
    assert (counts["packets"], counts["octets"], counts["link_octets"]) == (2, 2 * len(packet), 0)


def rows_of(programs: Programs) -> Any:
    return programs.datapath.interface_counts._rows()


def test_what_finds_no_row_is_seen_all_the_same() -> None:
    with Programs(**SMALL) as programs, on_cpu(0):
        rows = rows_of(programs)
        rows["key"] = 999_999
        programs.observe(PLAIN, SUPER, ARP, repeat=2)
        assert counts_of(programs) == {}
        assert programs.ledger().seen.packets == 6


def test_a_row_some_places_further_on() -> None:
    with Programs(**SMALL) as programs, on_cpu(0):
        rows, first = rows_of(programs), count_key(0, LO, INGRESS) % LEAST_ROWS
        for number in range(INTERFACE_PROBES - 1):
            rows["key"][first + number] = 1000 + number
        programs.observe(PLAIN, repeat=4)
        assert counts_of(programs)["packets"] == 4
        rows["key"][first] = 0
        programs.observe(PLAIN, repeat=3)
        assert counts_of(programs)["packets"] == 7, "of both rows"


def test_only_one_of_two_programs_that_interrupt_each_other_takes_a_row() -> None:
    """The other one's packets are seen without a row, until there is one."""
    with Programs(preemptible=True, **SMALL) as programs, on_cpu(0):
        memory = mmap.mmap(programs.map_fd("ledgers"), LEDGER.itemsize)
        inside = np.frombuffer(memory, LEDGER)["inside"]
        inside[0] = 1
        programs.observe(ARP, repeat=2)
        assert counts_of(programs) == {}
        inside[0] = 0
        programs.observe(ARP, repeat=2)
        inside[0] = 1
        programs.observe(ARP, repeat=3)
        assert counts_of(programs)["packets"] == 5
        assert programs.ledger().seen.packets == 7


def test_a_row_that_was_given_away_starts_from_nothing_and_seen_goes_on() -> None:
    with Programs(**SMALL) as programs, on_cpu(0):
        programs.observe(PLAIN, TAGGED, repeat=4)
        counts = programs.datapath.interface_counts
        counts.free(np.array([count_key(0, LO, INGRESS), 12_345], "<u8"))
        assert counts_of(programs) == {}
        assert programs.ledger().seen.packets == 8
        programs.observe(PLAIN, repeat=3)
        assert counts_of(programs)["packets"] == 3
        assert counts_of(programs)["link_octets"] == 0
        assert programs.ledger().seen.packets == 11


def test_namespaces_have_rows_of_their_own() -> None:
    with Programs(**SMALL) as programs:
        others = [NamespacePrograms(programs.datapath, number) for number in (1, 2, 511)]
        for times, other in enumerate(others, 2):
            fd = other.program_fd("netobs_ingress")
            Run(fd)(PLAIN, times)
        programs.send(PLAIN)
        found = [counts_of(programs, netns=number).get("packets") for number in (0, 1, 2, 511)]
        assert found == [1, 2, 3, 4]
        assert programs.ledger().seen.packets == 10
        for other in others:
            other.close()


def test_counts_go_on_with_the_next_process_and_start_anew_with_other_maps(lab: Lab) -> None:
    near, far = lab.veth(*[lab.namespace()] * 2, names=("tap1", "other1"))
    keeper = DictKeeper()
    config: dict[str, Any] = {**SMALL, "interfaces": ("tap*",)}
    with in_namespace(near.ns), keeper:
        for rounds in (1, 2):
            programs = Programs(keeper=keeper, **config)
            programs.capture.points.attach()
            with Sender(far) as sender:
                sender.send(*[PLAIN] * 10)
            wait_for(lambda: counts_of(programs, ifindex=near.ifindex).get("packets", 0) >= 10 * rounds, "10 packets")  # noqa: B023
            assert programs.ledger().seen.packets == 10 * rounds
            programs.close(keep=True)
            keeper = keeper.succeed()
        with Programs(keeper=keeper, **{**config, "max_flows": 4096}) as programs:
            programs.capture.points.attach()
            list(programs.datapath.take_former(1))
            assert counts_of(programs, ifindex=near.ifindex) == {}
            assert programs.ledger().seen.packets == 20
        keeper = keeper.succeed()
        keeper.close()


def test_rows_for_more_interfaces_are_other_maps_and_never_fewer() -> None:
    keeper = DictKeeper()
    with keeper:
        programs = Programs(keeper=keeper, **SMALL)
        programs.send(PLAIN, repeat=3)
        programs.close(keep=True)
        keeper = keeper.succeed()
        more = Datapath(CaptureConfig(**SMALL), keeper=keeper, interface_rows=2 * LEAST_ROWS)
        more.load()
        assert sum(int(rows["packets"].sum()) for rows in more.take_former(1)) == 3
        assert (more.interface_counts.rows, more.read_ledger().seen.packets) == (2 * LEAST_ROWS, 3)
        more.close()
        keeper = keeper.succeed()
        again = Datapath(CaptureConfig(**SMALL), keeper=keeper)
        again.load()
        assert again.interface_counts.rows == 2 * LEAST_ROWS
        assert again.interface_counts.number == more.interface_counts.number
        again.keep_nothing()
        again.close()
