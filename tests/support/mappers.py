"""Small random mappers, and random inputs for them."""

from __future__ import annotations

from typing import Any

import torch

from hf_token_compress.mapper import MapperConfig, MapperInput, ModelIdentity, RelevanceMapper

HEADS = 3
IDENTITY = ModelIdentity(
    name="someone/some-model",
    revision="0123abc",
    model_type="qwen2_vl",
    hidden_size=48,
    layers=3,
    heads=HEADS,
    fingerprint=(1.0,) + (0.0,) * 31,
)
NETWORKS: dict[str, dict[str, Any]] = {
    "conv1d": {"channels": [4, 8]},
    "grid": {"channels": 8, "blocks": 2},
}


def make_mapper(network: str = "grid", seed: int = 0, **options: Any) -> RelevanceMapper:
    """A small mapper with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = {"network": network, "network_options": NETWORKS[network], **options}
        return RelevanceMapper(MapperConfig(IDENTITY, **config)).eval()


def make_input(*grids: tuple[int, int, int], loose: int = 0, seed: int = 0) -> MapperInput:
    """Random inputs for visual tokens on grids (frames, rows, columns), and `loose` more."""
    generator = torch.Generator().manual_seed(seed)
    indices = []
    count = 0
    for frames, rows, columns in grids:
        size = frames * rows * columns
        indices.append(torch.arange(count, count + size).view(frames, rows, columns))
        count += size
    count += loose
    logits = torch.randn(2, HEADS, count, generator=generator) * 2 - 6
    text, embedding = torch.randn(2, 2, count, generator=generator)
    return MapperInput(logits.clamp(max=0.0), tuple(indices), text, embedding)
