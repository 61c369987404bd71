"""One network namespace that the daemon measures: its programs, and the interfaces that they are attached to."""

from __future__ import annotations

import socket
from typing import Callable

from netobs.base import background
from netobs.base.errors import CaptureError, NetobsError
from netobs.base.keeper import Keeper
from netobs.base.loop import EventLoop
from netobs.config import CaptureConfig
from netobs.daemon.attaching import Attaching
from netobs.daemon.helper_calls import HelperCalls
from netobs.daemon.namespace_hooks import NamespaceHooks
from netobs.datapath.capture import FLOWS, Capture
from netobs.datapath.datapath import Datapath
from netobs.datapath.namespace_programs import NamespacePrograms
from netobs.datapath.turns import Turns
from netobs.kernel.attach import FLOWS_PLACE
from netobs.kernel.interfaces import LinkMonitor
from netobs.kernel.observation_points import Elsewhere, ObservationPoints


class Namespace:
    """``start`` -> follows its interfaces -> ``leave`` lets it go -> ``is_gone`` -> ``close``."""

    def __init__(
        self,
        name: str,
        number: int,
        opened: tuple[tuple[socket.socket, socket.socket], int],
        calls: HelperCalls,
        capture: Capture,
        config: CaptureConfig,
        loop: EventLoop,
        changed: Callable[[int], None],
        keeper: Keeper,
    ) -> None:
        """``number``: of its flows. ``opened``: by ``Helper.open_two``. ``changed``: as in ``Attaching``. ``keeper``:
        keeps the links for the next process."""
        self.name, self.number = name, number
        self.left_ns = 0
        """When it was left."""
        sockets, self.inode = opened
        links = LinkMonitor(sockets, number)
        self._programs = NamespacePrograms(capture.datapath, number)
        purpose = FLOWS._replace(
            place=FLOWS_PLACE._replace(last=config.anchor == "last"),
            say_refused=lambda interface, why: FLOWS.say_refused(f"{name}/{interface}", why),
            say_missed=lambda where, what: FLOWS.say_missed(f"{name}/{where}", what),
            label=f"{name}/",
        )
        self._hooks = NamespaceHooks(calls, name, sockets[1])
        elsewhere = Elsewhere(number, links, self._hooks, capture.points.interface_names, capture.points.methods)
        self.points = ObservationPoints(
            config.namespaces.interfaces(name),
            config.direction,
            config.attach,
            purpose,
            self._programs.program_fd,
            keeper,
            elsewhere,
        )
        self.points.find_method()
        self.points.placing.use_turns(Turns(capture.datapath, number))
        self.points.on_reuse = capture.points.on_reuse
        self._hooks.settle = self.points.settle
        self._loop = loop
        self._is_followed = False
        self.attaching = Attaching(self.points, loop, lambda _now_ns: None, changed)

    def start(self) -> None:
        """Attaches to its interfaces as soon as the programs are loaded, which a thread does: it takes 80 ms."""
        programs = self._programs

        def loaded(result: NetobsError | None, now_ns: int) -> None:
            if result is None:
                programs.add(usual)
            else:  # attaching says so
                usual.close()
            if self._is_followed:
                self.attaching.start(now_ns)

        try:
            usual = programs.open_usual()
        except CaptureError as error:
            FLOWS.say_refused(self.name, str(error))
            return
        self._is_followed = True
        background.run(self._loop, "namespace", usual.load, loaded)

    def stop(self) -> None:
        """Follows its interfaces no more. The programs stay where they are."""
        self.attaching.stop()
        self._is_followed = False

    def select(self, config: CaptureConfig, now_ns: int) -> None:
        """Switches to other interfaces and directions, and to another way to attach."""
        self.attaching.select(config.namespaces.interfaces(self.name), config, now_ns)

    def swap(self, datapath: Datapath) -> None:
        """Counts in the maps of another ``datapath`` from now on."""
        programs = NamespacePrograms(datapath, self.number)
        self._hooks.outdate()
        self.points.swap(programs.program_fd)
        self._programs.close()
        self._programs = programs
        self.points.placing.use_turns(Turns(datapath, self.number))

    def leave(self) -> None:
        """Follows it no more, and holds nothing of it: sockets would keep it alive after it has lost its name."""
        self.stop()
        self._hooks.close()
        self.points.leave()

    @property
    def is_gone(self) -> bool:
        """After ``leave``: whether its interfaces have taken all programs along."""
        return self.points.is_left_alone

    def close(self, keep: bool = False) -> None:
        """Frees the programs, and the links to interfaces that are gone; with ``keep``, these stay for the next
        process."""
        self._hooks.close()
        if not keep:
            self.points.forget()
        self.points.close(keep)
        self._programs.close()
