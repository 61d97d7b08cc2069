"""Calls beside a thread that enters and leaves `disabled()` stay compressed, with own reports."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

from hf_token_compress import TokenCompressionConfig, load_tiny

from ..common import encode
from ..outcome import report

QUESTION = "What is behind the cat?"


def problems() -> Iterator[str]:
    """Count what goes wrong in one thread while another compares with the whole prompt."""
    model, processor = load_tiny(
        "qwen2-vl", token_compression=TokenCompressionConfig(retention_ratio=0.3)
    )
    prompts = [encode(processor, (_noise(number), QUESTION)) for number in (0, 1)]
    done, counts = threading.Event(), Counter[str]()

    def study() -> None:
        for _ in range(40):
            with model.token_compression.disabled():
                model.generate(**prompts[0], max_new_tokens=2)
        done.set()

    def serve() -> None:
        while not done.is_set():
            counts["calls"] += 1
            model.token_compression.last = None
            try:
                model.generate(**prompts[1], max_new_tokens=2)
            except ValueError:
                counts["ValueError"] += 1
                continue
            if model.token_compression.last is None:
                counts["not compressed"] += 1

    threads = [threading.Thread(target=work) for work in (study, serve)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for what in ("ValueError", "not compressed"):
        if counts[what]:
            yield f"{counts[what]} of {counts['calls']} calls: {what}"


def _noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (90 + 30 * seed, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


if __name__ == "__main__":
    report(problems)
