"""The most launches and synchronisations over the stock model's, by family, setting and batch.

Images and videos of 500 visual tokens; the first pair is for one prompt, the second for four. A
change that needs fewer lowers them.
"""

from __future__ import annotations

Limit = tuple[int, int]
"""Launches and synchronisations."""

LIMITS: dict[str, dict[str, tuple[Limit, Limit]]] = {
    "qwen2_vl": {
        "uniform": ((93, 39), (177, 90)),
        "attention": ((140, 39), (227, 87)),
        "attention diverse": ((184, 41), (403, 95)),
        "attention top_p": ((151, 42), (271, 99)),
        "gated_fusion": ((233, 42), (569, 99)),
        "gated_fusion diverse": ((277, 44), (745, 107)),
        "conv1d": ((198, 40), (290, 91)),
        "conv1d diverse": ((242, 42), (466, 99)),
        "grid": ((239, 40), (331, 91)),
        "grid diverse": ((283, 42), (507, 99)),
    },
    "llava_onevision": {
        "uniform": ((78, 40), (165, 103)),
        "attention": ((122, 39), (212, 96)),
        "attention diverse": ((171, 41), (408, 104)),
        "attention top_p": ((146, 46), (308, 124)),
        "gated_fusion": ((220, 43), (577, 112)),
        "gated_fusion diverse": ((269, 45), (773, 120)),
        "conv1d": ((180, 40), (275, 100)),
        "conv1d diverse": ((229, 42), (471, 108)),
        "grid": ((225, 40), (320, 100)),
        "grid diverse": ((274, 42), (516, 108)),
    },
    "vila": {
        "uniform": ((76, 36), (160, 87)),
        "attention": ((120, 36), (207, 84)),
        "attention diverse": ((164, 38), (383, 92)),
        "attention top_p": ((131, 39), (251, 96)),
        "gated_fusion": ((213, 39), (549, 96)),
        "gated_fusion diverse": ((257, 41), (725, 104)),
        "conv1d": ((178, 37), (270, 88)),
        "conv1d diverse": ((222, 39), (446, 96)),
        "grid": ((219, 37), (311, 88)),
        "grid diverse": ((263, 39), (487, 96)),
    },
    "qwen3_vl": {
        "uniform": ((93, 40), (177, 94)),
        "attention": ((174, 43), (264, 97)),
        "attention diverse": ((218, 45), (440, 105)),
        "attention top_p": ((185, 46), (308, 109)),
        "gated_fusion": ((341, 49), (686, 115)),
        "gated_fusion diverse": ((385, 51), (862, 123)),
        "conv1d": ((232, 44), (327, 101)),
        "conv1d diverse": ((276, 46), (503, 109)),
        "grid": ((273, 44), (368, 101)),
        "grid diverse": ((317, 46), (544, 109)),
    },
}
