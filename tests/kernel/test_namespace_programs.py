"""The programs of several network namespaces on one set of maps: equal packets are flows of their own."""

from __future__ import annotations

import pytest

from lab import frames as f
from lab.prog_run import Programs, Run, merged
from netobs.datapath.layout import FLOW_TABLES, MAX_NAMESPACES
from netobs.datapath.namespace_programs import NamespacePrograms

NUMBERS = (0, 1, 2, 4, 256, MAX_NAMESPACES)  # a bit of each part, and all
FRAMES = {
    "ipv4": f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp())),
    "icmp": f.ethernet(f.IPV4, f.ipv4(f.ICMP, f.icmp(3, 1))),
    "ipv6 in a vlan": f.ethernet(*f.tag(f.Q, 4094, f.IPV6, f.ipv6(f.UDP, f.udp()))),
}


@pytest.mark.kernel
@pytest.mark.parametrize(("table", "groups"), [*((table, ()) for table in FLOW_TABLES), ("percpu_array", ("ip",))])
def test_equal_packets_of_namespaces_are_flows_of_their_own(table: str, groups: tuple[str, ...]) -> None:
    with Programs(max_flows=1024, flow_table=table, extra_groups=groups) as programs:
        others = {number: NamespacePrograms(programs.datapath, number) for number in NUMBERS[1:]}
        try:
            with programs.accounting() as observed:
                for number in NUMBERS:
                    owner = others.get(number, programs)
                    run = Run(owner.program_fd("netobs_egress"))
                    for frame in FRAMES.values():
                        run(frame, repeat=number % 7 + 1)
        finally:
            for each in others.values():
                each.close()
        flows = merged(observed[0].records)
    assert len(flows) == len(NUMBERS) * len(FRAMES)
    assert {int(number): int(flows["packets"][flows["netns"] == number].sum()) for number in NUMBERS} == {
        number: len(FRAMES) * (number % 7 + 1) for number in NUMBERS
    }
    assert {*flows["vlan_id"].tolist()} == {0, 4094}
    assert {*flows["direction"].tolist()} == {1}
    assert {*flows["dst_port"][flows["protocol"] == f.ICMP].tolist()} == {0x0301}
