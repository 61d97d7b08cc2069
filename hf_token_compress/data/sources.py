"""Where samples come from: memory, a file, or a dataset."""

from __future__ import annotations

from .json_lines import JsonLines
from .sample_source import SampleList, SampleSource
from .tables import HubDataset, TableFile

__all__ = ["HubDataset", "JsonLines", "SampleList", "SampleSource", "TableFile"]
