"""The most launches and synchronisations over the stock model's, by family, setting and batch.

Images and videos of 500 visual tokens; the first pair is for one prompt, the second for four. A
change that needs fewer lowers them.
"""

from __future__ import annotations

Limit = tuple[int, int]
"""Launches and synchronisations."""

LIMITS: dict[str, dict[str, tuple[Limit, Limit]]] = {
    "qwen2_vl": {
        "uniform": ((1, -7), (-68, -34)),
        "attention": ((49, -9), (-19, -36)),
        "attention diverse": ((103, -8), (206, -32)),
        "attention top_p": ((49, -8), (-19, -35)),
        "gated_fusion": ((141, -6), (319, -24)),
        "gated_fusion diverse": ((195, -5), (544, -20)),
        "conv1d": ((110, -9), (47, -36)),
        "conv1d diverse": ((164, -8), (272, -32)),
        "grid": ((151, -9), (88, -36)),
        "grid diverse": ((205, -8), (313, -32)),
    },
    "llava_onevision": {
        "uniform": ((26, 3), (31, 3)),
        "attention": ((71, 1), (77, 1)),
        "attention diverse": ((133, 2), (337, 5)),
        "attention top_p": ((71, 2), (77, 2)),
        "gated_fusion": ((167, 5), (434, 17)),
        "gated_fusion diverse": ((229, 6), (694, 21)),
        "conv1d": ((132, 1), (143, 1)),
        "conv1d diverse": ((194, 2), (403, 5)),
        "grid": ((177, 1), (188, 1)),
        "grid diverse": ((239, 2), (448, 5)),
    },
    "vila": {
        "uniform": ((23, 3), (28, 3)),
        "attention": ((68, 1), (74, 1)),
        "attention diverse": ((122, 2), (299, 5)),
        "attention top_p": ((68, 2), (74, 2)),
        "gated_fusion": ((160, 4), (412, 13)),
        "gated_fusion diverse": ((214, 5), (637, 17)),
        "conv1d": ((129, 1), (140, 1)),
        "conv1d diverse": ((183, 2), (365, 5)),
        "grid": ((170, 1), (181, 1)),
        "grid diverse": ((224, 2), (406, 5)),
    },
    "qwen3_vl": {
        "uniform": ((2, -7), (-66, -34)),
        "attention": ((79, -8), (11, -35)),
        "attention diverse": ((133, -7), (236, -31)),
        "attention top_p": ((79, -7), (11, -34)),
        "gated_fusion": ((241, -4), (419, -22)),
        "gated_fusion diverse": ((295, -3), (644, -18)),
        "conv1d": ((140, -8), (77, -35)),
        "conv1d diverse": ((194, -7), (302, -31)),
        "grid": ((181, -8), (118, -35)),
        "grid diverse": ((235, -7), (343, -31)),
    },
}
