"""`Trainer(bf16=True)` trains a float32 model with its mapper."""

from __future__ import annotations

from collections.abc import Iterator

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.tiny import resolve_mapper

from ..common import FAMILIES, QUARTER, WHAT, encode, image, make_pair
from ..outcome import failure, report
from ..trainers import trainer_of, with_labels


def problems() -> Iterator[str]:
    """Train one step with the scorer "attention" and with the mapper."""
    for family in FAMILIES:
        mapper = TokenCompressionConfig(
            retention_ratio=0.25, mapper=resolve_mapper(f"tiny-{family}")
        )
        for setting in (QUARTER, mapper):
            _, model, processor = make_pair(family, setting)
            item = with_labels(encode(processor, (image(1), WHAT)))
            with trainer_of(model, [item] * 2, bf16=True) as trainer:
                try:
                    trainer.train()
                except Exception as error:
                    yield f"{family}, {setting.scorer_name}: {failure(error)}"


if __name__ == "__main__":
    report(problems)
