"""Programs that interrupt each other on one CPU, as PREEMPT_RT kernels let them: every packet is counted once."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from lab import frames as f
from lab.prog_run import Observed, Programs, on_cpu
from netobs.base.errors import CaptureError
from netobs.datapath.layout import FLOW_TABLES, LEDGER
from netobs.flow.metrics import GROUPS
from netobs.flow.records import EXTRA
from netobs.kernel import requirements
from netobs.kernel.host import is_realtime
from netobs.pcap.tap.programs import INTERRUPTING, PacketPrograms
from tests.kernel.flows import flow, readable
from tests.kernel.numbered import packet

pytestmark = pytest.mark.kernel

CPU = max(os.sched_getaffinity(0))
TABLES = FLOW_TABLES[:2]  # a ring buffer has nothing for each CPU
ROUNDS, REPEAT = 20, 2000
ARP = f.ethernet(0x0806, bytes(28))
SENDERS = [packet(1), packet(1), ARP, ARP]  # who share a slot, an entry, and counters


@pytest.fixture(params=TABLES)
def guarded(request: pytest.FixtureRequest) -> Iterator[Programs]:
    with Programs(max_flows=1024, flow_table=request.param, preemptible=True) as loaded:
        yield loaded


@pytest.mark.parametrize("flow_table", TABLES)
def test_senders_that_take_turns_on_one_cpu(flow_table: str) -> None:
    """A PREEMPT_RT kernel from 6.18 on switches between them in the midst of a program."""
    with Programs(max_flows=1024, flow_table=flow_table) as programs:
        with programs.accounting() as observed, on_cpu(CPU):
            senders = [threading.Thread(target=_send, args=(programs, frame)) for frame in SENDERS]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
        ledger = programs.ledger()
    sent = ROUNDS * REPEAT
    assert ledger.seen.packets == len(SENDERS) * sent
    assert ledger.reasons["not_ip"].packets == 2 * sent
    assert ledger.ethertypes[0x0806].packets + ledger.other_ethertypes.packets == 2 * sent
    assert int(observed[0].records["packets"].sum()) + ledger.reasons["ring_full"].packets == 2 * sent


def _send(programs: Programs, frame: bytes) -> None:
    run = programs.run()
    for _ in range(ROUNDS):
        run(frame, REPEAT)


def _others_inside(programs: Programs, number: int) -> None:
    """As if so many programs were in the midst of writing the data of ``CPU``."""
    ledgers = mmap.mmap(programs.map_fd("ledgers"), LEDGER.itemsize * (CPU + 1))
    np.frombuffer(ledgers, LEDGER)["inside"][CPU] = number


def _observe(programs: Programs) -> Observed:
    with on_cpu(CPU):
        return programs.observe(packet(1), ARP, repeat=3)


def test_packet_that_interrupts_another_is_a_record_of_its_own(guarded: Programs) -> None:
    _observe(guarded)
    _others_inside(guarded, 1)
    interrupting = _observe(guarded)
    assert interrupting.records["packets"].tolist() == [1, 1, 1]
    assert interrupting.records["errno"].tolist() == [errno.EBUSY] * 3
    assert interrupting.reasons == {"not_ip": (3, 3 * len(ARP))}
    ledger = guarded.ledger()
    assert (ledger.ethertypes[0x0806].packets, ledger.other_ethertypes.packets) == (3, 3)
    _others_inside(guarded, 0)
    alone = _observe(guarded)
    assert alone.records["packets"].tolist() == [3]
    assert alone.records["errno"].tolist() == [0]
    assert readable(alone.flows) == [{**readable(interrupting.flows)[0], "errno": 0}]


@pytest.mark.parametrize("flow_table", FLOW_TABLES)
def test_optional_fields_are_those_of_the_packet_itself(flow_table: str) -> None:
    """Those of a packet that was interrupted stay as they are, too."""
    frames = [f.ethernet(*f.tag(f.Q, 9, *f.tag(f.Q, vlan, f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK))))) for vlan in (7, 8)]
    with (
        Programs(max_flows=1024, flow_table=flow_table, preemptible=True, extra_groups=GROUPS) as programs,
        on_cpu(CPU),
    ):
        alone = [programs.observe(frame).records for frame in frames]
        _others_inside(programs, 1)
        interrupting = [programs.observe(frame).records for frame in frames]
    for one, other, vlan in zip(alone, interrupting, (7, 8)):
        assert one["customer_vlan_id"].tolist() == [vlan]
        for name in EXTRA.names or ():
            assert one[name].tolist() == other[name].tolist(), name


def test_nothing_interrupts_where_the_kernel_does_not_let_it() -> None:
    """And nothing is asked: the word that says who is inside is not looked at."""
    with Programs(max_flows=1024) as programs:
        if programs.datapath.preemptible:
            pytest.skip("this is a PREEMPT_RT kernel")
        _others_inside(programs, 1)
        assert _observe(programs).records["packets"].tolist() == [3]


def test_tables_are_as_without_the_guard(guarded: Programs) -> None:
    frames = [packet(number) for number in range(200)]
    with on_cpu(CPU):
        observed = guarded.observe(*frames, ARP, repeat=2)
    assert len(observed.records) == 200
    assert set(observed.records["packets"]) == {2}
    assert not observed.records["errno"].any()
    assert readable(guarded.observe(packet(7)).records) == [flow(src_addr="10.0.0.7")]


@pytest.mark.skipif(not is_realtime(), reason="this is no PREEMPT_RT kernel")
def test_packet_capture_is_refused_in_one_sentence() -> None:
    if requirements.kernel_version(os.uname().release) < INTERRUPTING:
        pytest.skip("this kernel does not let packets interrupt each other")
    with pytest.raises(CaptureError) as error:
        PacketPrograms().load(1 << 20)
    assert "has PREEMPT_RT" in str(error.value)
    assert "\n" not in str(error.value)
