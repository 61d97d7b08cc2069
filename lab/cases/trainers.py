"""Transformers' `Trainer` on single prompts, as the training cases use it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainingArguments


@contextmanager
def trainer_of(model: Any, items: Sequence[dict[str, Any]], **options: Any) -> Iterator[Trainer]:
    """A trainer on the CPU that takes one prompt a step.

    Args:
        model: The model to train or to evaluate.
        items: Model inputs with "labels", batched already.
        **options: Of `Trainer` ("compute_metrics", "preprocess_logits_for_metrics") or of
            `TrainingArguments` (everything else).
    """
    names = ("compute_metrics", "preprocess_logits_for_metrics")
    own = {name: options.pop(name) for name in names if name in options}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            max_steps=1,
            report_to=[],
            use_cpu=True,
            remove_unused_columns=False,
            disable_tqdm=True,
            logging_strategy="no",
            **options,
        )
        yield Trainer(
            model,
            arguments,
            train_dataset=list(items),
            eval_dataset=list(items),
            data_collator=lambda batch: dict(batch[0]),
            **own,
        )


def with_labels(inputs: dict[str, Any], count: int = 6) -> dict[str, Any]:
    """The inputs with labels on their last `count` tokens."""
    labels = inputs["input_ids"].clone()
    labels[:, :-count] = -100
    return {**inputs, "labels": labels}
