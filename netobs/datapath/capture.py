"""Capture, the first half of the Metering Process: packets of the chosen interfaces become Flow Records."""

from __future__ import annotations

import logging
from collections.abc import Collection

from netobs.base.errors import CaptureError
from netobs.base.keeper import NOTHING, Keeper
from netobs.config import CaptureConfig
from netobs.datapath.datapath import Datapath
from netobs.datapath.turns import Turns
from netobs.kernel import kernel_clock
from netobs.kernel.attach import FLOWS_PLACE, FilterPlace
from netobs.kernel.interfaces import Interface
from netobs.kernel.observation_points import ObservationPoints
from netobs.kernel.placing import Purpose

log = logging.getLogger("netobs.capture")


class RemovedHooks:
    """Counts the links and filters of ours that somebody has removed, in all network namespaces, and logs each."""

    def __init__(self) -> None:
        self.count = 0

    def say(self, where: str, what: str) -> None:
        """``where``: interface and direction; ``what``: link or filter."""
        self.count += 1
        log.warning("%s was not measured for a while: somebody removed the %s", where, what)


REMOVED = RemovedHooks()
FLOWS = Purpose(
    "netobs_",
    say_refused=lambda name, why: log.error("%s: not measured: %s", name, why),
    say_missed=REMOVED.say,
)


class Capture:
    """The ``datapath`` that counts flows, and the ``points`` that its programs are attached to."""

    def __init__(
        self,
        config: CaptureConfig,
        batch: int = 0,
        extra_groups: Collection[str] = (),
        keeper: Keeper = NOTHING,
        place: FilterPlace = FLOWS_PLACE,
    ) -> None:
        """``batch``, ``extra_groups``, ``keeper``: as in ``Datapath``. ``place``: of the programs as filters."""
        self._batch, self._extra_groups, self._keeper = batch, extra_groups, keeper
        self.datapath = Datapath(config, batch, extra_groups, keeper)
        self.points = ObservationPoints(
            config.selector,
            config.direction,
            config.attach,
            FLOWS._replace(place=place._replace(last=config.anchor == "last")),
            self.datapath.program_fd,
            keeper,
        )
        self.points.placing.use_turns(Turns(self.datapath))

    def load(self) -> None:
        """Loads and verifies the programs, and finds out how to attach them.

        :raises CaptureError: the host has too little memory, or the kernel refused something.
        """
        self.datapath.load()
        kernel_clock.follow()
        self.points.find_method()

    def load_beside(self, config: CaptureConfig) -> Datapath:
        """Other programs and maps, for ``replace``. The caller closes them if they are not used.

        :raises CaptureError: they cannot be loaded.
        """
        datapath = Datapath(config, self._batch, self._extra_groups, self._keeper)
        try:
            datapath.load_beside()
        except BaseException:
            datapath.close()
            raise
        return datapath

    def replace(self, datapath: Datapath) -> None:
        """Counts with ``datapath`` from now on. Its ``take_former`` takes the rest out of the present one."""
        datapath.succeed(self.datapath)
        self.datapath = datapath
        self.points.swap(datapath.program_fd)
        self.points.placing.use_turns(Turns(datapath))

    def close(self, keep: bool = False) -> None:
        """Detaches, and frees the maps and programs; with ``keep``, they stay for the next process."""
        self.points.close(keep)
        if not keep:
            self.datapath.keep_nothing()
        self.datapath.close()


def check_interfaces(config: CaptureConfig, present: list[Interface]) -> str:
    """A warning if nothing matches yet but may later, or an empty string.

    :raises CaptureError: nothing matches, and the configuration has only names, which is probably a mistake.
    """
    selector = config.selector
    if any(selector.matches(interface.name) and interface.is_measurable for interface in present):
        return ""
    what = f"capture.interfaces: nothing matches {', '.join(config.interfaces)}"
    if selector.has_patterns:
        return f"{what} now: waiting for such an interface to appear"
    hint = f"the host has {', '.join(interface.name for interface in present)}"
    raise CaptureError(what, hint, may_pass=True)  # at boot, for example, a bond that is made later
