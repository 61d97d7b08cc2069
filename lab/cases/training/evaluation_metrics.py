"""`Trainer.evaluate` reports the compressed model's accuracy: predictions line up with labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from hf_token_compress import TokenCompressionConfig

from ..common import FAMILIES, KEEP_ALL, WHAT, WHERE, encode, extended, image, make_pair
from ..outcome import failure, report
from ..trainers import trainer_of

HALF = TokenCompressionConfig(retention_ratio=0.5, min_visual_tokens=0)


def problems() -> Iterator[str]:
    """The labels are the stock model's own answers, so that its accuracy is 1."""
    for family in FAMILIES:
        for setting in (KEEP_ALL, HALF):
            stock, model, processor = make_pair(family, setting)
            items = [_answered(stock, processor, number) for number in range(3)]
            options = {
                "compute_metrics": _accuracy,
                "preprocess_logits_for_metrics": _predictions,
            }
            expected = _true_accuracy(model, items)
            name = f"{family} at {setting.retention_ratio}"
            with trainer_of(model, items, **options) as trainer:
                try:
                    found = trainer.evaluate()["eval_accuracy"]
                except Exception as error:
                    yield f"{name}: {failure(error)}"
                    continue
            if abs(found - expected) > 1e-6:
                yield f"{name}: reports {found:.3f}, its true accuracy is {expected:.3f}"


def _answered(stock: Any, processor: Any, number: int) -> dict[str, Any]:
    inputs = encode(processor, (image(number), WHAT if number else WHERE))
    length = inputs["input_ids"].shape[1]
    answer = stock.generate(**inputs, max_new_tokens=3)[:, length:]
    whole = extended(inputs, answer)
    labels = whole["input_ids"].clone()
    labels[:, :length] = -100
    return {**whole, "labels": labels}


def _accuracy(evaluated: Any) -> dict[str, float]:
    predicted, labels = evaluated.predictions[:, :-1], evaluated.label_ids[:, 1:]
    counted = labels != -100
    return {"accuracy": float((predicted[:, : labels.shape[1]][counted] == labels[counted]).mean())}


def _predictions(logits: Any, labels: Any) -> Any:
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)


@torch.no_grad()
def _true_accuracy(model: Any, items: list[dict[str, Any]]) -> float:
    """Share of answer tokens that are the likeliest; they stand last, kept tokens or not."""
    right: list[bool] = []
    for item in items:
        count = int((item["labels"] != -100).sum())
        predicted = model(**item).logits[0, -count - 1 : -1].argmax(-1)
        right += (predicted == item["labels"][0, -count:]).tolist()
    return sum(right) / len(right)


if __name__ == "__main__":
    report(problems)
