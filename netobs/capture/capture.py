"""Capture, the first half of the Metering Process: packets of the chosen interfaces become Flow Records."""

from __future__ import annotations

import errno
import logging

from netobs.capture import privileges
from netobs.capture.attach import Attachment, attach, has_tcx, may_filter, method_for
from netobs.capture.datapath import Datapath
from netobs.capture.interfaces import Interface, LinkMonitor
from netobs.capture.names import InterfaceNames
from netobs.config import CaptureConfig
from netobs.errors import CaptureError

log = logging.getLogger("netobs.capture")

DIRECTIONS = {"ingress": ("ingress",), "egress": ("egress",), "both": ("ingress", "egress")}


class Capture:
    """Attaches the programs of ``datapath`` to interfaces and follows these. ``links`` is for the loop."""

    def __init__(self, config: CaptureConfig, batch: int = 0) -> None:
        """``batch``: as in ``BatchReader``."""
        self._config = config
        self._selector = config.selector
        self._attachments: dict[int, list[Attachment]] = {}
        self.datapath = Datapath(config, batch)
        self.method = ""
        self.names: dict[int, Interface] = {}
        self.interface_names = InterfaceNames()
        self.links = LinkMonitor()

    def load(self) -> None:
        """Loads and verifies the programs, and finds out how to attach them.

        :raises CaptureError: the host has too little memory, or the kernel refused something.
        """
        self.datapath.load()
        probe = self.datapath.program_fd("netobs_ingress")
        self.method = method_for(self._config.attach, lambda: has_tcx(probe))
        if self.method == "tc" and not may_filter():
            raise CaptureError(*privileges.explain_filters())

    def wanted(self) -> list[Interface]:
        """The interfaces that the configuration selects, of those that the host has now."""
        return [interface for interface in self.links.interfaces() if self._selects(interface)]

    def _selects(self, interface: Interface) -> bool:
        if not self._selector.matches(interface.name):
            return False
        if not interface.is_measurable:
            log.debug("%s: left out, link type %d is not measured", interface.name, interface.arphrd)
            return False
        return True

    def attach(self) -> int:
        """Attaches to all wanted interfaces; returns how many are attached."""
        for interface in self.wanted():
            self.attach_to(interface)
        return len(self._attachments)

    def attach_to(self, interface: Interface) -> None:
        """Attaches to one interface, as far as it is not attached. A failure is logged and harms no other interface."""
        self.names[interface.index] = interface
        self.interface_names.learn(interface.index, interface.name, interface.alias)
        present = self._attachments.get(interface.index, [])
        missing = [
            direction
            for direction in DIRECTIONS[self._config.direction]
            if direction not in [attachment.direction for attachment in present]
        ]
        if not missing:
            return
        layer = "" if interface.has_ethernet else "l3_"
        done: list[Attachment] = []
        try:
            for direction in missing:
                program = self.datapath.program_fd(f"netobs_{layer}{direction}")
                done.append(attach(interface, direction, program, self.method))
        except OSError as error:
            for attachment in done:
                attachment.detach()
            if error.errno != errno.ENODEV:
                log.error("%s: not measured: %s", interface.name, error.strerror)
            return
        self._attachments[interface.index] = [*present, *done]
        log.info("%s: attached by %s, %s", interface.name, self.method, " and ".join(missing))

    def reconfigure(self, config: CaptureConfig) -> None:
        """Goes over to other interfaces and directions. What the rest of ``config`` says is not looked at."""
        self._config, self._selector = config, config.selector
        for interface in self.links.interfaces():
            self._changed(interface)
        for index, attachments in self._attachments.items():
            for attachment in attachments[:]:
                if attachment.direction not in DIRECTIONS[config.direction]:
                    attachment.detach()
                    attachments.remove(attachment)
                    log.info("%s: detached, %s", self.names[index].name, attachment.direction)

    def follow_links(self) -> None:
        """Attaches to interfaces that came, forgets those that went: call when ``links`` is readable."""
        events = self.links.read()
        if events is None:
            log.warning("rtnetlink lost events: listing the interfaces anew")
            self._resynchronise()
            return
        for event in events:
            if event.gone:
                self._forget(event.interface)
            else:
                self._changed(event.interface)

    def _resynchronise(self) -> None:
        present = {interface.index: interface for interface in self.links.interfaces()}
        for index in set(self._attachments) - set(present):
            self._forget(self.names[index])
        for interface in present.values():
            self._changed(interface)

    def _changed(self, interface: Interface) -> None:
        attached = interface.index in self._attachments
        selected = self._selects(interface)
        if selected:
            self.attach_to(interface)
        elif attached:  # renamed to a name that is not selected, or the selection is another one
            self._detach(interface.index)
            self.names.pop(interface.index)
            log.info("%s: detached, no longer selected", interface.name)

    def _forget(self, interface: Interface) -> None:
        if interface.index in self._attachments:
            self._detach(interface.index)
            log.info("%s: gone", interface.name)
        self.names.pop(interface.index, None)
        self.interface_names.retire(interface.index)

    def _detach(self, index: int) -> None:
        for attachment in self._attachments.pop(index):
            attachment.detach()

    @property
    def attached(self) -> list[Interface]:
        """The interfaces that are measured now."""
        return [self.names[index] for index in self._attachments]

    def detach(self) -> None:
        """Takes the programs off all interfaces. What they have counted can still be taken out."""
        for index in list(self._attachments):
            self._detach(index)

    def close(self) -> None:
        """Detaches, and frees the maps and programs."""
        self.detach()
        self.links.close()
        self.datapath.close()


def check_interfaces(config: CaptureConfig, present: list[Interface]) -> str:
    """A warning if nothing matches yet but may later, or an empty string.

    :raises CaptureError: nothing matches, and the configuration has names only: a mistake rather than a plan.
    """
    selector = config.selector
    if any(selector.matches(interface.name) and interface.is_measurable for interface in present):
        return ""
    what = f"capture.interfaces: nothing matches {', '.join(config.interfaces)}"
    if selector.has_patterns:
        return f"{what} now: waiting for such an interface to appear"
    hint = f"the host has {', '.join(interface.name for interface in present)}"
    raise CaptureError(what, hint, may_pass=True)  # at boot, for example, a bond that is made later
