"""Encoding: from a FlowBatch to Messages of IPFIX or NetFlow, as templates say. No socket, no clock, no logging."""

from __future__ import annotations

from netobs.encode.ipfix import DataSet, Encoder, Header
from netobs.encode.template import Field, Template
from netobs.encode.template_file import load as load_templates
from netobs.encode.template_file import template_dirs

__all__ = ["DataSet", "Encoder", "Field", "Header", "Template", "load_templates", "template_dirs"]
