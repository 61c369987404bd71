"""Encodes a FlowBatch as Messages of IPFIX or NetFlow, by templates. No socket, no clock, no logging."""

from __future__ import annotations

from netobs.encode.ipfix import DataSet, Encoder, Header
from netobs.encode.template.field import Field
from netobs.encode.template.file import load as load_templates
from netobs.encode.template.file import template_dirs
from netobs.encode.template.template import Template

__all__ = ["DataSet", "Encoder", "Field", "Header", "Template", "load_templates", "template_dirs"]
