"""Calibrate: a mapper from a few dozen of the user's own prompts, in memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compression.mixin import TokenCompressionMixin
from ..data.sample import Sample
from ..data.sources import SampleList
from ..mapper import RelevanceMapper
from .options import CollectOptions, TrainOptions

if TYPE_CHECKING:
    from .train import Epoch

_STEPS = 500
_BATCH = 16
_FEWEST_EPOCHS = 30


def calibrate(
    model: Any,
    processor: Any,
    samples: Iterable[Sample | tuple[Any, str] | tuple[Any, str, str]],
    *,
    collect_options: CollectOptions | None = None,
    train_options: TrainOptions | None = None,
    after_sample: Callable[[int], None] | None = None,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> RelevanceMapper:
    """Train a mapper on a few dozen prompts; a compressed model scores with it from now on.

    Args:
        model: A loaded model of a supported family.
        processor: Its processor.
        samples: (image or list of images, question) or (images, question, right answer) each, or
            `Sample`s.
        collect_options: How to collect.
        train_options: How to train; by default as `few_samples_options` says.
        after_sample: As in `collect`.
        after_epoch: As in `train_mapper`.

    Returns:
        The mapper, for `mapper.save_pretrained(folder)` or `mapper.push_to_hub(repo_id)`.

    Raises:
        ImportError: Accelerate is not installed.
        TypeError: A sample is neither.
        ValueError: There are fewer than two samples that the model can use.
        RuntimeError: Its processes run on several machines.
    """
    # These need Accelerate, and resolving the name `calibrate` must not.
    from .collect import collect
    from .distributed import from_main_process
    from .train import train_mapper

    source = SampleList([as_sample(sample) for sample in samples], "calibration")
    with tempfile.TemporaryDirectory(prefix="hf-token-compress-") as own:
        folder = from_main_process(lambda: own)
        collection = collect(
            model,
            processor,
            source,
            f"{folder}/collection",
            collect_options,
            after_sample=after_sample,
        )
        if collection is None:
            raise RuntimeError(
                "Calibrating works on one machine, but the processes run on several: use `collect` "
                "and `train_mapper` with folders of your choice."
            )
        options = train_options or few_samples_options(len(collection))
        mapper = train_mapper(collection, f"{folder}/mapper", options, after_epoch=after_epoch)
    mapper.source = None
    if isinstance(model, TokenCompressionMixin):
        model.token_compression.use_mapper(mapper)
    return mapper


def few_samples_options(samples: int) -> TrainOptions:
    """How to train on so few samples that a network would memorize them.

    A "grid" network starts from the attention itself. It sees every training sample 8000 /
    `samples` times, but 30 to 500 times, with random flips, noise and dropped heads. The last
    weights are kept: the loss on the few validation samples is mostly noise.
    """
    # An epoch has at least one step, however few the samples.
    epochs = math.ceil(_STEPS * _BATCH / max(_BATCH, samples))
    return TrainOptions(
        network_options={"start_from_attention": True},
        epochs=max(_FEWEST_EPOCHS, epochs),
        train_batch_size=_BATCH,
        validation_fraction=0.1,
        keep_best=False,
        weight_decay=0.1,
        random_flip=True,
        head_dropout=0.3,
        noise=0.5,
    )


def as_sample(sample: Any) -> Sample:
    """Turn what users pass to `calibrate` into a sample."""
    if isinstance(sample, Sample):
        return sample
    if not isinstance(sample, Sequence) or len(sample) not in (2, 3) or isinstance(sample, str):
        raise TypeError(
            "A sample to calibrate with is (image or list of images, question) or (images, "
            f"question, answer), not {type(sample).__name__}."
        )
    images, question, *answer = sample
    if not isinstance(question, str) or not all(isinstance(text, str) for text in answer):
        raise TypeError("The question and the answer of a sample to calibrate with must be text.")
    listed = images if isinstance(images, list | tuple) else [images]
    visuals = tuple(str(image) if isinstance(image, Path) else image for image in listed)
    return Sample("image", visuals, question, answer[0] if answer else None)
