"""Two threads answer on one model, and `disabled()` in one does not reach the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ..common import (
    FAMILIES,
    WHAT,
    WHERE,
    cache_of,
    encode,
    greedy,
    image,
    logits_apart,
    make_pair,
)
from ..outcome import failure, report

ROUNDS = 6


def problems() -> Iterator[str]:
    """Compare answers in two threads with the same answers one after the other."""
    for family in FAMILIES:
        _, model, processor = make_pair(family)
        prompts = [encode(processor, (image(n), text)) for n, text in enumerate((WHAT, WHERE))]
        yield from _side_by_side(family, model, prompts)
        yield from _one_disabled(family, model, prompts)


def _side_by_side(family: str, model: Any, prompts: list[dict[str, Any]]) -> Iterator[str]:
    expected = [greedy(model, prompt, ROUNDS) for prompt in prompts]
    found: list[list[Any]] = [[], []]
    errors: list[Exception] = []

    def answer(number: int) -> None:
        try:
            for _ in range(ROUNDS):
                found[number].append(greedy(model, prompts[number], ROUNDS))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=answer, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors[:1]:
        yield f"{family}: {failure(error)}"
    for number, outputs in enumerate(found):
        worst = max((logits_apart(output, expected[number]) for output in outputs), default=0.0)
        if worst > 1e-3:
            yield f"{family}, thread {number}: logits differ by {worst:.3g}"


def _one_disabled(family: str, model: Any, prompts: list[dict[str, Any]]) -> Iterator[str]:
    inside = threading.Event()

    def uncompressed() -> None:
        with model.token_compression.disabled():
            inside.set()
            for _ in range(8):
                greedy(model, prompts[0], ROUNDS)

    thread = threading.Thread(target=uncompressed)
    thread.start()
    inside.wait()
    held = cache_of(greedy(model, prompts[1], ROUNDS)).get_seq_length()
    thread.join()
    if held >= (whole := prompts[1]["input_ids"].shape[1]):
        yield f"{family}: disabled() in one thread reaches another (cache {held} of {whole})"


if __name__ == "__main__":
    report(problems)
