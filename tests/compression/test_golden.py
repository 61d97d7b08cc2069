"""Compressed calls against plain loops: kept tokens, rewritten inputs, positions and features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_cells import NETWORKS, OPTIONS, Cell, observe, stock_model
from matrix import full_only
from plain_compression import expected_inputs, expected_kept, whole_features
from tiny_models import tiny_family

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.scorers import build_scorer

pytestmark = pytest.mark.core

FAMILIES = ("qwen2_vl", "llava_onevision", "vila15", "qwen3_vl")
SCORERS = (
    "attention",
    "attention_without_rope",
    "cdpruner",
    "gated_fusion",
    "random",
    "uniform",
    "visionzip",
    *NETWORKS,
)


def _fits(scorer: str, option: str) -> bool:
    """Whether the setting makes sense with the scorer."""
    shares = scorer not in ("gated_fusion", "random", "uniform", "cdpruner")
    ranks = scorer in ("uniform", "cdpruner")
    changes = OPTIONS[option]
    return (shares or "top_p" not in changes) and not (ranks and "diverse" in changes.values())


def _cells() -> list[Any]:
    """One cell of most kinds by default, more with `--matrix`."""
    default = [
        Cell(
            "qwen2_vl", "ragged_videos", "gated_fusion", "minimum_and_diverse", "forward", "right"
        ),
        Cell("qwen2_vl", "ragged", "grid", "grid_positions"),
        Cell("qwen2_vl", "one_image", "attention", "compact_positions", "uncached"),
        Cell("llava_onevision", "ragged", "attention", "structure_and_top_p", "forward"),
        Cell("llava_onevision", "ragged_videos", "uniform", "minimums", "ratios"),
        Cell("llava_onevision", "one_image", "attention", "structure_first", "uncached"),
        Cell("vila15", "ragged_videos", "attention", "minimum_of_frame", "labels", "right"),
        Cell("vila15", "several_images", "conv1d", "maximum", "instruction_mask"),
        Cell("qwen3_vl", "ragged", "attention", "minimum_of_prompt", "labels"),
        Cell("qwen3_vl", "several_videos", "cdpruner", "everything", "forward"),
    ]
    rest: dict[Cell, None] = {}
    for family in FAMILIES:
        titles = [own for own in tiny_family(family).prompts if own != "text_only"]
        for title in titles:
            for scorer in SCORERS:
                rest[Cell(family, title, scorer)] = None
                rest[Cell(family, title, scorer, "quarter", "forward", "right")] = None
            rest[Cell(family, title, "attention", dtype=torch.bfloat16)] = None
        for title in ("ragged", "ragged_videos"):
            for option in OPTIONS:
                for scorer in ("attention", "gated_fusion"):
                    rest[Cell(family, title, scorer, option)] = None
                    rest[Cell(family, title, scorer, option, "forward", "right")] = None
            for call in ("uncached", "labels", "ratios", "instruction_mask"):
                for side in ("left", "right"):
                    for option in ("half", "grid_positions", "compact_positions"):
                        rest[Cell(family, title, "attention", option, call, side)] = None
    others = [cell for cell in rest if cell not in default and _fits(cell.scorer, cell.option)]
    return [*(pytest.param(own, id=_name(own)) for own in default)] + [
        full_only(own, id=_name(own)) for own in others
    ]


def _name(cell: Cell) -> str:
    return "-".join(str(part) for part in cell)


@pytest.mark.parametrize("cell", _cells())
@torch.no_grad()
def test_equals_plain_loops(cell: Cell) -> None:
    stock, inputs, observed = stock_model(cell.family, cell.dtype), cell.inputs, observe(cell)
    mask = inputs["attention_mask"].bool()
    features = {
        modality: whole_features(stock, inputs, modality)
        for modality in ("image", "video")
        if any(own.modality == modality for each in observed.report.samples for own in each.visuals)
    }
    # 1. The tokens that are kept.
    setting = dict(cell.config)
    setting["selection"] = TokenCompressionConfig(**setting).selection_name
    ratios = cell.call_options.get("token_compression") or [setting["retention_ratio"]] * len(mask)
    unread = {modality: iter(own) for modality, own in features.items()}
    samples, kept_features = [], {modality: [] for modality in features}
    for number, (report, ratio) in enumerate(zip(observed.report.samples, ratios, strict=True)):
        own = [next(unread[visual.modality]) for visual in report.visuals]  # [N, D] each
        kept = report.kept_visual.nonzero().flatten().tolist()
        last = int(mask[number].nonzero()[-1])
        if report.visuals and not _chooses(cell.scorer):
            embeddings = torch.cat(own).float()
            scores = report.scores if report.scores is not None else torch.zeros(len(embeddings))
            expected = expected_kept(
                scores, report.visuals, embeddings, **{**setting, "retention_ratio": ratio}
            )
            places = report.visual_indices.tolist()
            expected += [at for at, place in enumerate(places) if place == last]
            assert kept == sorted(set(expected)), f"sample {number}"
        is_kept = mask[number].clone()
        is_kept[report.visual_indices] = report.kept_visual
        positions = is_kept.nonzero().flatten().tolist()
        assert report.kept_indices.tolist() == positions
        samples.append((report.visuals, positions))
        for visual, whole in zip(report.visuals, own, strict=True):
            kept_features[visual.modality].append(whole[is_kept[visual.positions]])
    # 2. The inputs of the stock model.
    forward = cell.call not in ("prepare", "uncached")
    expected_given = expected_inputs(
        stock,
        inputs,
        samples,
        position_ids=setting.get("position_ids", "original"),
        tail=forward and not bool(mask[:, -1].all()),
        uncached=cell.call == "uncached",
    )
    for name, value in expected_given.items():
        found = observed.inputs[name]
        if name == "position_ids":
            # Nobody reads those of padding.
            shorter = observed.inputs["attention_mask"]
            found, value = found * shorter, value * shorter
        assert torch.equal(found, value), name
    assert not [name for name in observed.inputs if "pixel" in name or "grid" in name]
    # 3. The features.
    for modality, expected_own in kept_features.items():
        output = observed.inputs["mm_encoder_outputs"][modality]
        for found, wanted in zip(output.pooler_output, expected_own, strict=True):
            assert torch.equal(found, wanted)


def _chooses(name: str) -> bool:
    """Whether a scorer chooses tokens itself."""
    return name not in NETWORKS and build_scorer(name, {}).selects
