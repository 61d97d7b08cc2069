"""A ViT-S/14 out of an ONNX file, under the names of Transformers' Dinov2Model.

The exporter kept the names of biases, norms and scales, but called the weights of linear layers by
numbers, transposed: each is found as what its bias is added to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .parts import require

CONFIG: dict[str, Any] = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "patch_size": 14,
}
"""Keyword arguments of the `Dinov2Config`, but for the size of pictures."""

_BACKBONE = "backbone."
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def vision_tower_tensors(path: Path, dtype: torch.dtype, side: int) -> dict[str, Tensor]:
    """The backbone's weights.

    Args:
        path: The ONNX file.
        dtype: Type of the weights.
        side: Patches a side that position embeddings are wanted for. They are interpolated once,
            as the model would at every call.

    Returns:
        State dict of a `Dinov2Model`.

    Raises:
        ImportError: The package onnx is missing.
    """
    require("onnx")
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    stored = {entry.name: entry for entry in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(stored[name]).copy()).float()

    found = {name: tensor(name) for name in stored if name.startswith(_BACKBONE)}
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        if node.op_type != "Add" or bias not in found:
            continue
        product = made_by[next(name for name in node.input if name != bias)]
        if product.op_type == "MatMul":
            weight = next(name for name in product.input if name in stored)
            found[bias.removesuffix("bias") + "weight"] = tensor(weight).T
    found[f"{_BACKBONE}embeddings.position_embeddings"] = _positions(graph, tensor, stored, side)
    width = CONFIG["hidden_size"]
    found[f"{_BACKBONE}embeddings.mask_token"] = torch.zeros(1, width)  # no picture is masked
    return {_renamed(name): value.to(dtype).contiguous() for name, value in found.items()}


def _positions(graph: Any, tensor: Any, stored: Any, side: int) -> Tensor:
    """(1, 1 + side², D) position embeddings of the class token and of patches.

    They are constants without a name: those of the patches are reshaped to a square first thing,
    and joined with that of the class token.
    """
    for node in graph.node:
        shapes = [list(stored[name].dims) for name in node.input if name in stored]
        if node.op_type == "Reshape" and shapes and len(shapes[0]) == 3:
            patches = tensor(node.input[0])
        if node.op_type == "Concat" and shapes == [[1, 1, CONFIG["hidden_size"]]]:
            of_class = tensor(next(name for name in node.input if name in stored))
    known = round(patches.shape[1] ** 0.5)
    square = patches.view(1, known, known, -1).permute(0, 3, 1, 2)
    square = nn.functional.interpolate(square, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([of_class, square.flatten(2).transpose(1, 2)], dim=1)


def _renamed(name: str) -> str:
    name = name.removeprefix(_BACKBONE)
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name
