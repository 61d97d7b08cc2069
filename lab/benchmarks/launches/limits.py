"""The most launches and synchronisations over the stock model's, by family, setting and batch.

Images and videos of 500 visual tokens; the first pair is for one prompt, the second for four. A
change that needs fewer lowers them.
"""

from __future__ import annotations

Limit = tuple[int, int]
"""Launches and synchronisations."""

LIMITS: dict[str, dict[str, tuple[Limit, Limit]]] = {
    "qwen2_vl": {
        "uniform": ((-7, -9), (-77, -36)),
        "attention": ((37, -9), (-32, -36)),
        "attention diverse": ((91, -9), (22, -36)),
        "attention top_p": ((37, -8), (-32, -35)),
        "gated_fusion": ((107, -9), (40, -36)),
        "gated_fusion diverse": ((161, -9), (94, -36)),
        "conv1d": ((66, -9), (-3, -36)),
        "conv1d diverse": ((120, -9), (51, -36)),
        "grid": ((129, -9), (65, -36)),
        "grid diverse": ((183, -9), (119, -36)),
    },
    "llava_onevision": {
        "uniform": ((17, 1), (21, 1)),
        "attention top_p": ((59, 2), (64, 2)),
        "gated_fusion diverse": ((189, 1), (196, 1)),
        "grid diverse": ((223, 1), (233, 1)),
    },
    "vila": {
        "uniform": ((15, 1), (19, 1)),
        "attention top_p": ((56, 2), (61, 2)),
        "gated_fusion diverse": ((180, 1), (187, 1)),
        "grid diverse": ((210, 1), (220, 1)),
    },
    "qwen3_vl": {
        "uniform": ((-6, -9), (-75, -36)),
        "attention top_p": ((67, -7), (-2, -34)),
        "gated_fusion diverse": ((260, -7), (193, -34)),
        "grid diverse": ((213, -8), (149, -35)),
    },
}
