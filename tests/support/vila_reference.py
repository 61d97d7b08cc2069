"""What the original code of VILA1.5 computed, as tests/data/vila/README.md describes it."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import places
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

DATA = places.DATA / "vila"
CHECKPOINT = DATA / "checkpoint"
TOKENS, VOCABULARY = 9, 420
BATCH = ("interleaved", "text", "single")


@cache
def recorded(name: str = "reference") -> dict[str, Tensor]:
    return load_file(DATA / f"{name}.safetensors")


@cache
def described() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / "reference.json").read_text())
    return content


def every_eighth(values: Tensor) -> Tensor:
    """The positions that were recorded: [B, S, …] → [B, K, …]."""
    length = values.shape[1]
    return values[:, sorted({*range(0, length, 8), length - 1})]


def images(prompt: str) -> list[Image.Image]:
    indices = described()["image_indices"][prompt]
    return [Image.open(DATA / "images" / f"img{index}.png") for index in indices]


def prompt_inputs(processor: Any, *prompts: str, **options: Any) -> Any:
    """The processor's inputs of one recorded prompt, or of several as a batch."""
    shown = [image for prompt in prompts for image in images(prompt)]
    texts = [described()["prompts"][prompt] for prompt in prompts]
    return processor(images=shown or None, text=texts, return_tensors="pt", **options)


def expanded_ids(prompt: str, image_id: int) -> list[int]:
    """The recorded ids, with as many placeholders as an image has visual tokens."""
    ids = described()["input_ids"][prompt]
    return [own for number in ids for own in ([image_id] * TOKENS if number == -200 else [number])]


def s2_checkpoint(folder: Path) -> Path:
    """A published checkpoint with S2; its language model is that of the other one."""
    shutil.copytree(CHECKPOINT / "llm", folder / "llm")
    shutil.copytree(DATA / "s2", folder, dirs_exist_ok=True)
    return folder


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).abs().max())


def pixels_of(recorded_pixels: Tensor) -> Tensor:
    """Pixel values from recorded bytes, rescaled and normalised."""
    return ((recorded_pixels.double() * (1 / 255)).to(torch.float32) - 0.5) / 0.5
