"""The maps that only objects with extra fields or insight have, beside those of the flow table."""

from __future__ import annotations

from netobs.datapath.layout import RecordLayout
from netobs.kernel.object import BpfObject, LoadedObject

PACKET_EXTRAS, TCP_PAIRS, FRESH_ENTRIES = "packet_extras", "tcp_pairs", "fresh_entries"
TCP_BUCKET_BYTES = 64
"""struct tcp_bucket."""


class ExtraMaps:
    """``prepare`` -> the programs use them; nobody reads them. ``entries``: of each, by name."""

    def __init__(self, layout: RecordLayout, cpus: int, max_flows: int) -> None:
        """``cpus``: that are possible. ``max_flows``: as many TCP connections find a place, twice as many flows."""
        buckets = 1 << max(max_flows // 2 - 1, 0).bit_length()
        sizes = {}
        if layout.has_extra:
            sizes[PACKET_EXTRAS] = cpus, layout.extra.itemsize
        if layout.has_insight:
            sizes.update({TCP_PAIRS: (buckets, TCP_BUCKET_BYTES), FRESH_ENTRIES: (cpus, layout.metrics.itemsize)})
        self.entries = {name: entries for name, (entries, _) in sizes.items()}
        self.pair_mask = buckets - 1
        """netobs_settings.pair_mask."""
        self._bytes = sum(entries * size for entries, size in sizes.values())

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""
        for name, entries in self.entries.items():
            obj.set_max_entries(name, entries)

    def open_maps(self, obj: LoadedObject) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """The maps belong to the object."""

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
        return self._bytes
