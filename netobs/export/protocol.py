"""The interface of encoders for the Exporting Process. Export does not import encode: the daemon joins the two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from netobs.flow.records import MessageBlock
from netobs.flow.report import Report

if TYPE_CHECKING:
    import numpy.typing as npt


class Header(Protocol):
    """A Transport Session's fields of the Message Header."""

    @property
    def export_time_s(self) -> int: ...

    @property
    def sequence(self) -> int: ...

    @property
    def observation_domain(self) -> int: ...

    def advance(self, records: int, messages: int = 0) -> Any:
        """The header after ``messages`` more Messages with ``records`` Data Records.

        IPFIX and NetFlow v5 number Data Records, NetFlow v9 numbers Messages.
        """


class DataSet(Protocol):
    """Data Records of one Template. ``rows``, ``packets``, ``octets``: shape ``(n,)``; the last two int64."""

    @property
    def kind(self) -> int:
        """Which of the encoder's kinds of Data Set it is, for ``Encoder.restored``; for IPFIX, the Template ID."""

    @property
    def rows(self) -> npt.NDArray[np.void]: ...

    @property
    def packets(self) -> npt.NDArray[np.int64]: ...

    @property
    def octets(self) -> npt.NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> Any:
        """The rows from ``start`` to ``stop``, without a copy."""


H = TypeVar("H", bound=Header)
D = TypeVar("D", bound=DataSet)
H_contra = TypeVar("H_contra", bound=Header, contravariant=True)


class Encoder(Protocol[H_contra, D]):
    """Builds whole Messages; without state, so that several sessions may share one."""

    @property
    def fingerprint(self) -> str:
        """The same for every encoder, in any process, that makes the same Messages from the same rows."""

    def restored(
        self, kind: int, rows: npt.NDArray[np.uint8], packets: npt.NDArray[np.int64], octets: npt.NDArray[np.int64]
    ) -> D:
        """The Data Set of ``kind`` whose rows were these octets, in memory that is not copied."""

    def template_messages(self, header: H_contra, max_message_size: int) -> list[bytes]:
        """All Templates of flows. Raises TemplateError if a Template or one of its Data Records does not fit."""

    def announcement(
        self, report: Report, header: H_contra, max_message_size: int, templates: bool = True
    ) -> list[tuple[bytes, int]]:
        """Messages with options records, with ``templates`` also all Templates; and the Data Records in each.

        The first has the Sequence Number of ``header``. Raises TemplateError like ``template_messages``.
        """

    def data_messages(self, data_set: D, header: H_contra, max_message_size: int) -> MessageBlock:
        """``data_set`` as Messages; the first has the Sequence Number of ``header``."""
