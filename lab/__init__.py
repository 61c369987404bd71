"""The test laboratory: network namespaces, exactly known traffic, and the collectors that operators use."""

from __future__ import annotations
