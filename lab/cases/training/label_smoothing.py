"""`Trainer(label_smoothing_factor=…)` trains: logits line up with the caller's labels."""

from __future__ import annotations

from collections.abc import Iterator

from ..common import FAMILIES, KEEP_ALL, QUARTER, WHAT, encode, image, make_pair
from ..outcome import failure, report
from ..trainers import trainer_of, with_labels


def problems() -> Iterator[str]:
    """Compare losses with the stock model's where all tokens are kept."""
    for family in FAMILIES:
        for setting in (KEEP_ALL, QUARTER):
            stock, compressed, processor = make_pair(family, setting)
            item = with_labels(encode(processor, (image(1), WHAT)))
            losses = []
            for model in (stock, compressed):
                options = {"label_smoothing_factor": 0.1, "learning_rate": 0.0}
                with trainer_of(model, [item] * 2, **options) as trainer:
                    try:
                        losses.append(trainer.train().training_loss)
                    except Exception as error:
                        which = "stock" if model is stock else "compressed"
                        yield f"{family} at {setting.retention_ratio}, {which}: {failure(error)}"
            if len(losses) == 2 and setting is KEEP_ALL and abs(losses[0] - losses[1]) > 1e-4:
                yield f"{family}: the losses are {losses}"


if __name__ == "__main__":
    report(problems)
