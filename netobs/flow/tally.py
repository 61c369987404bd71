"""How many Flow Records, and what they carry: the unit of every account after the flow cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from netobs.flow.records import MessageBlock, Records

if TYPE_CHECKING:
    import numpy.typing as npt


class Counted(Protocol):
    """Data Records with what each carries. ``packets``, ``octets``: shape ``(n,)``, int64."""

    @property
    def packets(self) -> npt.NDArray[np.int64]: ...

    @property
    def octets(self) -> npt.NDArray[np.int64]: ...

    def __len__(self) -> int: ...


@dataclass
class Tally:
    """Flow Records and the wire packets and IP octets that they carry."""

    flows: int = 0
    packets: int = 0
    octets: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.flows + other.flows, self.packets + other.packets, self.octets + other.octets)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.flows - other.flows, self.packets - other.packets, self.octets - other.octets)

    def within(self, other: Tally) -> Tally:
        """Of each number the smaller one."""
        return Tally(min(self.flows, other.flows), min(self.packets, other.packets), min(self.octets, other.octets))

    @classmethod
    def of(cls, data_set: Counted) -> Tally:
        """What ``data_set`` carries."""
        return cls(len(data_set), int(data_set.packets.sum()), int(data_set.octets.sum()))

    @classmethod
    def of_records(cls, records: Records) -> Tally:
        """What ``records`` carry."""
        return cls(len(records), int(records["packets"].sum()), int(records["octets"].sum()))

    @classmethod
    def of_messages(cls, block: MessageBlock, start: int, stop: int) -> Tally:
        """What the Messages ``start`` to ``stop`` of ``block`` carry."""
        part = slice(start, stop)
        return cls(int(block.flows[part].sum()), int(block.packets[part].sum()), int(block.octets[part].sum()))
