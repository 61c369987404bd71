"""What one session keeps while it works."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Sequence
from typing import Any

from netobs.export.in_flight import Shipment
from netobs.export.keeping import Spooling
from netobs.export.kept.recovery import ANNOUNCEMENT, NOTHING, ROWS, SPOOLED, Place, Recovered
from netobs.export.kept.rows import GONE, WAITS
from netobs.export.protocol import D, H
from netobs.export.queue import Part
from netobs.flow.records import MessageBlock
from netobs.flow.tally import Tally

__all__ = ["Kept", "Place"]


class Kept(Recovered[H, D]):
    """The kept state of one session. Each method that changes it does so at once, as seen by a later process."""

    def _change(self, all_numbers: bool, mark: tuple[int, int, int] = (0, 0, 0), **changes: int) -> None:
        """Stores the account and ``changes``, then marks rows: first row, number of rows, state.

        ``all_numbers``: whether more of the account has changed than what was sent.
        """
        if self._behind is not None:
            shipment, start = self._behind
            self._behind = None
            self._advance(shipment, start, False)
        at, rows, state = mark
        self._hot = self._counted(self._hot._replace(mark_at=at, mark_rows=rows, mark_state=state, **changes))
        if all_numbers:
            self._cold = self._account.numbers()
        self._state.change(self._hot, self._cold if all_numbers else None)
        if rows:
            self._rows.mark(*mark)

    @property
    def batch(self) -> int:
        """The number of the last batch that was taken whole."""
        return self._hot.batch

    def append(self, data_sets: Sequence[D], now_ns: int, batch: int) -> list[Part[D]]:
        """Takes ``data_sets``, which the account has seen, whole or not at all; ``batch``: their number, or 0."""
        parts = [part for data_set in data_sets for part in self._rows.append(data_set, now_ns)]
        self._change(True, end=self._rows.end, batch=batch or self._hot.batch)
        return parts

    @property
    def origin(self) -> tuple[int, int]:
        """Which session this is, and the end of its rows: while that stays, it says which rows were given away."""
        return self._place.number + 1, self._rows.end

    def take_over(self, given: Sequence[Part[D]], origin: tuple[int, int]) -> list[Part[D]]:
        """As ``append``, for what the session of ``origin`` gives up."""
        parts = [part for each in given for part in self._rows.append(each.data_set, each.since_ns)]
        self._change(True, end=self._rows.end, taken_place=origin[0], taken_end=origin[1])
        return parts

    def ship(self, shipment: Shipment[H, D]) -> None:
        """``shipment`` is about to be sent."""
        sequence = shipment.header.sequence
        if shipment.part is not None:
            self._change(False, shipped=ROWS, at=shipment.part.at, rows=len(shipment.part), sequence=sequence)
        elif shipment.batch is not None:
            segment, message = shipment.batch.number, shipment.batch.start
            if self._reliable and self._hot.segment:
                segment, message = self.spool_place
            self._change(False, shipped=SPOOLED, sequence=sequence, segment=segment, message=message,
                         **self._left(shipment))  # fmt: skip
        else:
            self._change(False, shipped=ANNOUNCEMENT, rows=shipment.records, sequence=sequence)

    def advance(self, shipment: Shipment[H, D], start: int, all_numbers: bool) -> None:
        """The Messages of ``shipment`` from ``start`` to its index are in the account.

        What was sent by ``send`` is stored as well at the end of the shipment, or before any other change: its record
        says all that is to know.
        """
        if not self._reliable and not all_numbers and shipment.index < len(shipment.block):
            self._behind = self._behind or (shipment, start)
            return
        if self._behind is not None:
            start, self._behind = self._behind[1], None
        self._advance(shipment, start, all_numbers)

    def _advance(self, shipment: Shipment[H, D], start: int, all_numbers: bool) -> None:
        if shipment.is_announcement:
            header = shipment.header.advance(shipment.records, 1) if shipment.index else shipment.header
            self._change(all_numbers, rows=0, shipped=NOTHING if shipment.index else ANNOUNCEMENT,
                         sequence=header.sequence)  # fmt: skip
            return
        before, now = shipment.rows_before(start), shipment.rows_before(shipment.index)
        sequence = shipment.header.advance(now, shipment.index).sequence
        if shipment.part is not None:
            at, state = shipment.part.at, self._sent_state if self._reliable else GONE
            self._change(all_numbers, (at + before, now - before, state), at=at + now, rows=len(shipment.part) - now,
                         sequence=sequence)  # fmt: skip
        elif shipment.batch is not None:
            if self._reliable:
                self._account.unacknowledged += Tally.of_messages(shipment.block, start, shipment.index)
                self._change(True, sequence=sequence, **self._left(shipment))
            else:
                self._change(True, sequence=sequence, message=shipment.batch.start + shipment.index)

    def _left(self, shipment: Shipment[H, D]) -> dict[str, Any]:
        """What ``shipment``, of the spool, has still to send; only a connection's end leaves a doubt about it."""
        left = Tally.of_messages(shipment.block, shipment.index, len(shipment.block)) if self._reliable else Tally()
        return {"rows": left.flows, "packets": left.packets, "octets": left.octets}

    def take_back(self) -> None:
        """What was shipped, and did not go out, waits again."""
        self._change(False, shipped=NOTHING, rows=0)

    def acknowledged(self, shipment: Shipment[H, D], start: int, stop: int) -> None:
        """The Messages ``start`` to ``stop`` of ``shipment`` have arrived."""
        if shipment.part is not None:
            at, rows = shipment.rows_before(start), shipment.rows_before(stop) - shipment.rows_before(start)
            self._rows.mark(shipment.part.at + at, rows, GONE)
        elif shipment.batch is not None:
            self._account.unacknowledged -= Tally.of_messages(shipment.block, start, stop)
            self._change(True, segment=shipment.batch.number, message=shipment.batch.start + stop)

    def resend(self, shipment: Shipment[H, D], start: int, stop: int) -> None:
        """The Messages ``start`` to ``stop`` of ``shipment``, which were sent, wait again, as the account says."""
        if shipment.part is not None:
            at, rows = shipment.rows_before(start), shipment.rows_before(stop) - shipment.rows_before(start)
            self._change(True, (shipment.part.at + at, rows, WAITS))
        elif shipment.batch is not None:
            self._account.unacknowledged -= Tally.of_messages(shipment.block, start, stop)
            self._change(True)

    def forget(self, part: Part[D]) -> None:
        """``part`` waits no longer, as the account says."""
        self._change(True, (part.at, len(part), GONE))

    def begin_spooling(self, part: Part[D], segment: int, message: int) -> None:
        """The disk is about to get ``part``, as Messages from ``message`` of ``segment`` on. For the spool's thread."""
        self._state.spooling = Spooling(part.at, len(part), segment, message)

    def end_spooling(self, part: Part[D] | None) -> None:
        """The disk has ``part`` now, as the account says; None: it has nothing of it."""
        if part is not None:
            self.forget(part)
        self._state.spooling = None

    @property
    def spool_place(self) -> tuple[int, int]:
        """Number of the segment and of its Message from which on the spool is to be sent; segment 0: unknown."""
        return self._hot.segment, self._hot.message

    def settle(self) -> None:
        """Stores the account, if more has changed in it than what was sent."""
        if self._account.numbers() != self._cold:
            self._change(True)

    # The socket.

    @property
    def port(self) -> int:
        """The source port of the former process over UDP, or 0."""
        return self._hot.port

    def former_socket(self) -> socket.socket | None:
        """The UDP socket of the former process, if it was kept."""
        fd = self._keeper.former(self._names[2])
        return socket.socket(fileno=socket.dup(fd)) if fd is not None else None

    def begin_session(self, sock: socket.socket | None, observation_domain: int) -> int:
        """A Transport Session begins, over UDP with ``sock``; returns its first Sequence Number.

        That is 0, except where it goes on from the former process: between the same addresses and ports.
        """
        if sock is None:
            self._change(False, sequence=0, session=0, port=0, shipped=NOTHING)
            return 0
        self._keeper.keep(self._names[2], sock.fileno())
        ends: tuple[Any, ...] = (sock.getsockname(), sock.getpeername(), observation_domain)
        session = zlib.crc32(repr(ends).encode()) | 1 << 32
        goes_on = not self._session_found and session == self._hot.session
        self._session_found = True
        sequence = self._hot.sequence if goes_on else 0
        self._change(False, sequence=sequence, session=session, port=ends[0][1], shipped=NOTHING)
        return sequence

    def send(self, sock: socket.socket, block: MessageBlock, start: int, stop: int, tally: Tally) -> int:
        """See ``SendRecord``."""
        return self._record.send(sock, block, start, stop, tally)

    def close(self) -> None:
        """The process ends, and the next one goes on."""
        self.settle()
        self._rows.close()

    def drop(self) -> None:
        """Nothing is left to keep."""
        self._rows.close()
        for name in self._names:
            self._keeper.drop(name)
