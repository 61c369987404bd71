"""What outlives this process, and where: in systemd's store of descriptors, as pins, or nothing does."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Protocol

from netobs.base.keeper import NOTHING, Keeper
from netobs.daemon import fd_store
from netobs.daemon.fd_store import FdStore
from netobs.daemon.systemd import ServiceManager


class ProcessKeeper(Keeper, Protocol):
    """The keeper, and what the end of the process asks of it."""

    def forget(self) -> None:
        """Keeps nothing any more: after a stop."""

    def settle(self, within_ns: int) -> None:
        """Waits until everything is where it is kept, at most ``within_ns``."""

    def close(self) -> None:
        """Closes this process's descriptors. What is kept stays."""


def keeper_for(pin: str, environment: MutableMapping[str, str], service: ServiceManager) -> ProcessKeeper:
    """The keeper of this daemon: systemd, where the unit asks for its store; else pins in the folder ``pin``, as
    capture.pin. Takes over what systemd has passed, and the variables that say so.

    :raises CaptureError: the folder cannot be used.
    """
    former = fd_store.inherited(environment)
    size = fd_store.store_size(environment)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    if size:
        return FdStore(service, former, size)
    for fd in former.values():
        os.close(fd)
    if not pin:
        return NOTHING
    from netobs.kernel.pins import Pins

    return Pins(Path(pin))
