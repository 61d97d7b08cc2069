"""The most launches and synchronisations over the stock model's, by family, setting and batch.

Images and videos of 500 visual tokens; the first pair is for one prompt, the second for four. A
change that needs fewer lowers them.
"""

from __future__ import annotations

Limit = tuple[int, int]
"""Launches and synchronisations."""

LIMITS: dict[str, dict[str, tuple[Limit, Limit]]] = {
    "qwen2_vl": {
        "uniform": ((-5, -9), (-75, -36)),
        "attention": ((41, -9), (-28, -36)),
        "attention diverse": ((95, -9), (26, -36)),
        "attention top_p": ((41, -8), (-28, -35)),
        "gated_fusion": ((111, -9), (44, -36)),
        "gated_fusion diverse": ((165, -9), (98, -36)),
        "conv1d": ((70, -9), (1, -36)),
        "conv1d diverse": ((124, -9), (55, -36)),
        "grid": ((133, -9), (69, -36)),
        "grid diverse": ((187, -9), (123, -36)),
    },
    "llava_onevision": {
        "uniform": ((19, 1), (23, 1)),
        "attention top_p": ((62, 2), (67, 2)),
        "gated_fusion diverse": ((193, 1), (200, 1)),
        "grid diverse": ((227, 1), (237, 1)),
    },
    "vila": {
        "uniform": ((17, 1), (21, 1)),
        "attention top_p": ((60, 2), (65, 2)),
        "gated_fusion diverse": ((184, 1), (191, 1)),
        "grid diverse": ((214, 1), (224, 1)),
    },
    "qwen3_vl": {
        "uniform": ((-4, -9), (-73, -36)),
        "attention top_p": ((71, -7), (2, -34)),
        "gated_fusion diverse": ((265, -7), (198, -34)),
        "grid diverse": ((217, -8), (153, -35)),
    },
}
