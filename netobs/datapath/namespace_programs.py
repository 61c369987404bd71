"""The programs of one more network namespace: they write the same maps, and give its flows another key."""

from __future__ import annotations

import errno

from netobs.base.errors import CaptureError
from netobs.datapath.datapath import Datapath
from netobs.kernel.object import BpfObject

_ETHERNET, _LAYER3 = ("netobs_ingress", "netobs_egress"), ("netobs_l3_ingress", "netobs_l3_egress")


class NamespacePrograms:
    """Those for Ethernet are loaded when the first of them is asked for, as are those for other interfaces: it takes
    40 ms a program, and most namespaces have one kind of interfaces."""

    def __init__(self, datapath: Datapath, number: int) -> None:
        """``number``: as in ``Datapath.open_for_namespace``."""
        self._datapath, self._number = datapath, number
        self._objects: dict[tuple[str, ...], BpfObject] = {}
        self._closed = False

    def open_usual(self) -> BpfObject:
        """Those for Ethernet, for ``add`` as soon as they are loaded, which may be done in a thread.

        :raises CaptureError: as in ``Datapath.open_for_namespace``.
        """
        return self._datapath.open_for_namespace(self._number, _ETHERNET)

    def add(self, usual: BpfObject) -> None:
        """What ``open_usual`` gave is loaded, and belongs to this object from now on."""
        if self._closed or _ETHERNET in self._objects:
            usual.close()
        else:
            self._objects[_ETHERNET] = usual

    def program_fd(self, name: str) -> int:
        """File descriptor of a program; it belongs to the object.

        :raises OSError: the kernel refused it, as it may for one namespace and not for others.
        """
        names = _ETHERNET if name in _ETHERNET else _LAYER3
        try:
            if names not in self._objects:
                obj = self._datapath.open_for_namespace(self._number, names)
                try:
                    obj.load()
                except BaseException:
                    obj.close()
                    raise
                self._objects[names] = obj
            return self._objects[names].program_fd(name)
        except CaptureError as error:
            raise OSError(errno.ENOMEM, str(error)) from error

    def close(self) -> None:
        """Frees the programs that are not attached."""
        self._closed = True
        for each in self._objects.values():
            each.close()
        self._objects.clear()
