"""Random tiny Cosmos 3 Omni models: Qwen3-VL as the reasoner of a larger model."""

from __future__ import annotations

from .qwen3_vl import Family as Qwen3VL


class Family(Qwen3VL):
    architecture = "Cosmos3Omni"
