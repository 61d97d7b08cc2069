"""Which part of a compressed call a line belongs to."""

from __future__ import annotations

from collections.abc import Sequence

PHASES = (
    "vision",
    "layout",
    "scoring",
    "selection",
    "rewriting",
    "report",
    "language model",
    "other",
)

_OF_FUNCTIONS = {
    "get_image_features": "vision",
    "get_video_features": "vision",
    "_score": "scoring",
    "_select": "selection",
    "_sample_reports": "report",
}
_OF_FILES = (
    ("hf_token_compress/models/vila/modeling.py", "language model"),
    ("hf_token_compress/selection/", "selection"),
    ("hf_token_compress/scorers/", "scoring"),
    ("hf_token_compress/mapper/", "scoring"),
    ("hf_token_compress/kernels/", "scoring"),
    ("hf_token_compress/relevance/", "scoring"),
    ("hf_token_compress/compression/reading.py", "scoring"),
    ("hf_token_compress/compression/fast_path.py", "scoring"),
    ("hf_token_compress/compression/probe.py", "scoring"),
    ("hf_token_compress/compression/rewriting.py", "rewriting"),
    ("hf_token_compress/compression/labels.py", "rewriting"),
    ("hf_token_compress/compression/widening.py", "rewriting"),
    ("hf_token_compress/compression/report.py", "report"),
    ("hf_token_compress/compression/totals.py", "report"),
    ("hf_token_compress/compression/host.py", "layout"),
    ("hf_token_compress/compression/inputs.py", "layout"),
    ("hf_token_compress/models/", "layout"),
    ("hf_token_compress/rewrite.py", "rewriting"),
    ("hf_token_compress/grid_positions.py", "rewriting"),
    ("hf_token_compress/compression/compressor.py", "other"),
)
"""Beginnings of paths, of which the innermost frame that has one decides."""


def phase_of(frames: Sequence[tuple[str, str]]) -> str:
    """The phase of a stack of (file, function), innermost first."""
    for file, function in frames:
        if function in _OF_FUNCTIONS:
            return _OF_FUNCTIONS[function]
        for beginning, phase in _OF_FILES:
            if file.startswith(beginning):
                return phase
    # The stock forward, under the mixin's or alone.
    return (
        "language model" if any(own.startswith("transformers/") for own, _ in frames) else "other"
    )
