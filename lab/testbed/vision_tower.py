"""Weights of a ViT-S/14 from an ONNX file, for Transformers' `Dinov2Model`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .parts import reader

IMAGE_SIZE = 224
"""Side of an image or tile in pixels."""

PATCH_SIZE = 14
PATCHES = IMAGE_SIZE // PATCH_SIZE
"""Patches per side."""

CONFIG: dict[str, Any] = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "use_mask_token": False,
}
"""Settings of `Dinov2Config`."""

_BACKBONE = "backbone."
_POSITIONS = "embeddings.position_embeddings"
_RENAMED = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)
_MATRIX_NODE = re.compile(r"/backbone/(encoder/layer\.\d+/.+)/MatMul")


def read_vision_tower(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Names in `Dinov2Model` and float32 weights.

    The position embeddings are [1, 1 + 37 * 37, D], as the backbone was trained; `fit_positions`
    resizes them for `CONFIG`.

    Raises:
        ImportError: The package onnx is not installed.
    """
    onnx = reader("onnx")
    graph = onnx.load(file).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def weight(name: str) -> Tensor:
        return torch.from_numpy(onnx.numpy_helper.to_array(tensors[name]).copy())

    for name in tensors:
        if name.startswith(_BACKBONE):
            yield _model_name(name.removeprefix(_BACKBONE)), weight(name)
    positions: dict[str, Tensor] = {}
    for node in graph.node:
        # The export stores the matrix of a linear layer transposed and without a name.
        if (match := _MATRIX_NODE.fullmatch(node.name)) and node.input[1] in tensors:
            name = match[1].replace("/", ".") + ".weight"
            yield _model_name(name), weight(node.input[1]).T.contiguous()
        if node.name in ("/backbone/embeddings/Reshape_1", "/backbone/embeddings/Concat_6"):
            positions[node.op_type] = weight(node.input[0])
    yield _POSITIONS, torch.cat([positions["Concat"], positions["Reshape"]], dim=1)


def fit_positions(name: str, weight: Tensor) -> Tensor:
    """Resize position embeddings [1, 1 + P, D] for `IMAGE_SIZE`; return other weights unchanged.

    `Dinov2Model` interpolates them in every forward. In LLaVA-OneVision the configured image size
    is also the size of a tile, so they have to fit it from the start.
    """
    if name != _POSITIONS:
        return weight
    side = round((weight.shape[1] - 1) ** 0.5)
    grid = weight[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [1, D, rows, columns]
    grid = nn.functional.interpolate(
        grid, size=(PATCHES, PATCHES), mode="bicubic", align_corners=False
    )
    return torch.cat([weight[:, :1], grid.flatten(2).mT], dim=1)


def _model_name(name: str) -> str:
    for exported, own in _RENAMED:
        name = name.replace(exported, own)
    return name
