"""Random tiny Qwen2.5-VL models: patches are sorted into windows first."""

from __future__ import annotations

from ._grids import Grids


class Family(Grids):
    architecture = "Qwen2_5_VL"
    vision_options = {"window_size": 16, "fullatt_block_indexes": [1]}
    processor_class = "Qwen2_5_VLProcessor"
