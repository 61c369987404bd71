"""The programs again, with the same maps: for one more network namespace, whose flows they give another key, or for a
hook on which there are two of them for a moment."""

from __future__ import annotations

import errno

from netobs.base.errors import CaptureError
from netobs.datapath.datapath import Datapath
from netobs.kernel.object import BpfObject

_ETHERNET, _LAYER3 = ("netobs_ingress", "netobs_egress"), ("netobs_l3_ingress", "netobs_l3_egress")


class NamespacePrograms:
    """Those for Ethernet are loaded when the first of them is asked for, as are those for other interfaces: it takes
    40 ms a program, and most namespaces have one kind of interfaces."""

    def __init__(self, datapath: Datapath, number: int, turn: int = 0) -> None:
        """``number``, ``turn``: as in ``Datapath.open_again``."""
        self._datapath, self._number, self._turn = datapath, number, turn
        self._objects: dict[tuple[str, ...], BpfObject] = {}
        self._closed = False

    def open_usual(self) -> BpfObject:
        """Those for Ethernet, for ``add`` as soon as they are loaded, which may be done in a thread.

        :raises CaptureError: as in ``Datapath.open_again``.
        """
        return self._datapath.open_again(self._number, _ETHERNET, self._turn)

    def add(self, usual: BpfObject) -> None:
        """What ``open_usual`` gave is loaded, and belongs to this object from now on."""
        if self._closed or _ETHERNET in self._objects:
            usual.close()
        else:
            self._objects[_ETHERNET] = usual

    def load_usual(self) -> None:
        """Loads those for Ethernet.

        :raises CaptureError: they cannot be loaded.
        """
        self._loaded(_ETHERNET)

    def program_fd(self, name: str) -> int:
        """File descriptor of a program; it belongs to the object.

        :raises OSError: the kernel refused it, as it may for one namespace and not for others.
        """
        try:
            return self._loaded(_ETHERNET if name in _ETHERNET else _LAYER3).program_fd(name)
        except CaptureError as error:
            raise OSError(errno.ENOMEM, str(error)) from error

    def _loaded(self, names: tuple[str, ...]) -> BpfObject:
        if names not in self._objects:
            obj = self._datapath.open_again(self._number, names, self._turn)
            try:
                obj.load()
            except BaseException:
                obj.close()
                raise
            self._objects[names] = obj
        return self._objects[names]

    def close(self) -> None:
        """Frees the programs that are not attached."""
        self._closed = True
        for each in self._objects.values():
            each.close()
        self._objects.clear()
