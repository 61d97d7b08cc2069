"""Two threads that score at a deeper layer keep the tokens that each keeps alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from hf_token_compress import TokenCompressionConfig, load_tiny, prepare_inputs

from ..common import encode
from ..outcome import report

ROUNDS = 60


def problems() -> Iterator[str]:
    """Prepare two prompts of one length at the same time, again and again."""
    setting = TokenCompressionConfig(retention_ratio=0.25, scorer_options={"scoring_depth": 2})
    model, processor = load_tiny("qwen2-vl", token_compression=setting)
    prompts = [
        encode(processor, (_noise(seed), f"What is behind the {name}?"))
        for seed, name in ((1, "cat"), (2, "dog"))
    ]
    assert prompts[0]["input_ids"].shape == prompts[1]["input_ids"].shape
    with torch.no_grad():
        expected = [prepare_inputs(model, **prompt)["position_ids"] for prompt in prompts]
    counts = Counter[str]()

    def prepare(number: int) -> None:
        for _ in range(ROUNDS):
            try:
                with torch.no_grad():
                    found = prepare_inputs(model, **prompts[number])["position_ids"]
                if not torch.equal(found, expected[number]):
                    counts["wrong tokens kept"] += 1
            except Exception as error:
                counts[type(error).__name__] += 1

    threads = [threading.Thread(target=prepare, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for what, count in counts.items():
        yield f"{count} of {2 * ROUNDS} calls: {what}"


def _noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


if __name__ == "__main__":
    report(problems)
