"""The most launches and synchronisations over the stock model's, by family, setting and batch.

Images and videos of 500 visual tokens; the first pair is for one prompt, the second for four. A
change that needs fewer lowers them.
"""

from __future__ import annotations

Limit = tuple[int, int]
"""Launches and synchronisations."""

LIMITS: dict[str, dict[str, tuple[Limit, Limit]]] = {
    "qwen2_vl": {
        "uniform": ((100, 40), (184, 91)),
        "attention": ((177, 42), (264, 90)),
        "attention diverse": ((221, 44), (440, 98)),
        "attention top_p": ((188, 45), (308, 102)),
        "gated_fusion": ((339, 50), (678, 107)),
        "gated_fusion diverse": ((383, 52), (854, 115)),
        "conv1d": ((278, 50), (614, 119)),
        "conv1d diverse": ((322, 52), (790, 127)),
        "grid": ((335, 52), (704, 124)),
        "grid diverse": ((379, 54), (880, 132)),
    },
    "llava_onevision": {
        "uniform": ((85, 41), (172, 104)),
        "attention": ((158, 42), (248, 99)),
        "attention diverse": ((207, 44), (444, 107)),
        "attention top_p": ((182, 49), (344, 127)),
        "gated_fusion": ((323, 51), (683, 120)),
        "gated_fusion diverse": ((372, 53), (879, 128)),
        "conv1d": ((259, 50), (598, 128)),
        "conv1d diverse": ((308, 52), (794, 136)),
        "grid": ((317, 53), (692, 137)),
        "grid diverse": ((366, 55), (888, 145)),
    },
    "vila": {
        "uniform": ((83, 37), (167, 88)),
        "attention": ((157, 39), (244, 87)),
        "attention diverse": ((201, 41), (420, 95)),
        "attention top_p": ((168, 42), (288, 99)),
        "gated_fusion": ((316, 47), (655, 104)),
        "gated_fusion diverse": ((360, 49), (831, 112)),
        "conv1d": ((257, 47), (590, 116)),
        "conv1d diverse": ((301, 49), (766, 124)),
        "grid": ((314, 49), (680, 121)),
        "grid diverse": ((358, 51), (856, 129)),
    },
    "qwen3_vl": {
        "uniform": ((100, 41), (184, 95)),
        "attention": ((205, 45), (295, 99)),
        "attention diverse": ((249, 47), (471, 107)),
        "attention top_p": ((216, 48), (339, 111)),
        "gated_fusion": ((400, 56), (748, 122)),
        "gated_fusion diverse": ((444, 58), (924, 130)),
        "conv1d": ((306, 53), (645, 128)),
        "conv1d diverse": ((350, 55), (821, 136)),
        "grid": ((363, 55), (735, 133)),
        "grid diverse": ((407, 57), (911, 141)),
    },
}
