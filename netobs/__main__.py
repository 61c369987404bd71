"""``python -m netobs``."""

from __future__ import annotations

from netobs.cli import main

main()
