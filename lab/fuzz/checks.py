"""What must be equal: the compressed model against the stock one, a sample alone against a batch.

Nothing is compared with what the same call gave before. Each check yields a line for everything
that is wrong.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from hf_token_compress import compress, prepare_inputs

from ..cases.common import KEEP_ALL
from ..cases.outcome import failure
from .draws import Trial
from .subjects import (
    ENDLESS,
    Conversation,
    ModelPair,
    Subject,
    carried,
    extended,
    moved_up,
    right_padded,
    sample_states,
    subject,
)

_LABELLED = 3
_PREFIX_MODELS = ("paligemma",)
"""Families whose prompts see themselves in both directions: recomputed, what follows a prompt would
be part of it."""


def problems(trial: Trial) -> list[str]:
    """Everything that is wrong in one trial; errors count."""
    found = []
    batch = Batch(trial)
    use = _text_only if batch.is_text_only else _USES[trial.use]
    if use in (_turn, _own_loop) and trial.model in _PREFIX_MODELS:
        use = _uncached
    checks = [_keep_all, use]
    if not batch.is_text_only:
        checks[:0] = [_budgets, _prepared, _alone]
        if batch.subject.family.hiding_differs is None:
            checks.append(_hidden)
            is_random = batch.subject.processor is None
            if use is _turn and is_random and trial.config.position_ids == "original":
                checks.append(_next_images)
    for check in checks:
        try:
            with torch.no_grad():
                found += [f"{check.__name__[1:]}: {line}" for line in check(batch)]
        except Exception as error:
            if not _is_known(error, batch.subject.family):
                found.append(f"{check.__name__[1:]}: {failure(error)}")
    return found


def _is_known(error: Exception, family: Any) -> bool:
    """Whether the stock model is known to fail so."""
    return any(re.search(fault.message, str(error)) for fault in family.faults.values())


class Batch:
    """A trial's models and inputs, and the compressed forward.

    Attributes:
        left: Inputs padded on the left.
        inputs: The same, padded as the trial says.
        is_text_only: Whether no prompt has an image or video.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.subject: Subject = subject(trial.model, trial.attention)
        self.left = self.subject.inputs(trial.prompts)
        right = trial.padding_side == "right"
        self.inputs = right_padded(self.left) if right else self.left
        per_call = {"token_compression": trial.config}
        self.options: dict[str, Any] = per_call if trial.per_call else {}
        compress(self.subject.compressed, KEEP_ALL if trial.per_call else trial.config)
        self.is_text_only = not any(name.startswith("pixel_values") for name in self.left)

    @functools.cached_property
    def output(self) -> Any:
        """The compressed forward of `inputs`."""
        return self.forward(self.inputs)

    def forward(self, inputs: dict[str, Any], **options: Any) -> Any:
        """The compressed forward of a batch."""
        return self.subject.compressed(**inputs, **options, **self.options)

    def answer(self, inputs: dict[str, Any], **options: Any) -> Any:
        """The compressed model's answer."""
        return self.generate(self.subject.compressed, inputs, **options, **self.options)

    @property
    def samples(self) -> Any:
        """The reports of its samples."""
        return self.output.compression_report.samples

    def apart(self, actual: Tensor, expected: Tensor) -> str | None:
        """How far two tensors are apart, in words; None if they are equal within the tolerance."""
        if actual.shape != expected.shape:
            return f"shape {list(actual.shape)}, not {list(expected.shape)}"
        tolerance = self.subject.tolerance
        if torch.allclose(actual, expected, rtol=tolerance, atol=tolerance):
            return None
        return f"apart by {float((actual - expected).abs().max()):.3g}"

    def own_logits(self, number: int) -> Tensor:
        """Logits of one sample of the compressed forward, [kept, V]."""
        logits = self.output.logits
        mask = self.inputs["attention_mask"].bool()
        if logits.shape[1] == mask.shape[1] and self.nothing_dropped:
            return logits[number, mask[number]]
        return sample_states(logits, number, self.inputs, self.samples)

    @property
    def nothing_dropped(self) -> bool:
        """Whether every sample keeps all of its visual tokens."""
        return all(bool(sample.kept_visual.all()) for sample in self.samples)

    def generate(self, model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        """Generate as many tokens as the trial says, with their logits."""
        return model.generate(
            **inputs,
            max_new_tokens=self.trial.steps,
            do_sample=False,
            eos_token_id=None,
            suppress_tokens=self.subject.special_ids,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )

    def prepared(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Inputs with which the stock model does what the compressed model does."""
        return prepare_inputs(self.subject.compressed, **inputs, **options, **self.options)

    def same_answers(self, actual: Any, expected: Any) -> Iterator[str]:
        """Compare greedy answers step by step, until logits that are as good as equal part them."""
        steps = self.trial.steps
        ids, other = actual.sequences[:, -steps:], expected.sequences[:, -steps:]
        for step, (logits, wanted) in enumerate(zip(actual.logits, expected.logits, strict=True)):
            if line := self.apart(logits, wanted):
                yield f"logits of token {step} {line}"
                return
            if not torch.equal(ids[:, step], other[:, step]):
                return


def _keep_all(batch: Batch) -> Iterator[str]:
    """Keep-all = stock, to the bit."""
    logits = batch.subject.keeping_all(**batch.inputs).logits
    if not torch.equal(logits, batch.subject.stock(**batch.inputs).logits):
        yield "logits differ"


def _budgets(batch: Batch) -> Iterator[str]:
    """The tokens that are kept follow from the scores and the setting."""
    config = batch.trial.config
    for number, sample in enumerate(batch.samples):
        kept = set(sample.kept_visual.nonzero().flatten().tolist())
        count = len(sample.kept_visual)
        if sample.scores is None or count < config.min_visual_tokens:
            wanted = set(range(count))
        else:
            wanted = _selected(sample, config)
        if kept != wanted:
            yield f"sample {number} keeps {sorted(kept)}, not {sorted(wanted)}"
        text = batch.inputs["attention_mask"][number].bool()
        text[sample.visual_indices] = False
        visual = sample.visual_indices[sample.kept_visual]
        expected = torch.cat([text.nonzero().flatten(), visual]).sort().values
        if not torch.equal(sample.kept_indices, expected):
            yield f"sample {number} does not keep all of its text"


def _selected(sample: Any, config: Any) -> set[int]:
    """Visual tokens of one prompt to keep, in plain Python."""
    scores = sample.scores.tolist()
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    budget = max(1, round(config.retention_ratio * len(scores))) if scores else 0
    if config.max_visual_tokens is not None:
        budget = min(budget, config.max_visual_tokens)
    if config.top_p is not None and sum(scores) > 0:
        reached, needed = 0.0, 0
        while reached < config.top_p * sum(scores) and needed < len(scores):
            reached += scores[order[needed]]
            needed += 1
        budget = min(budget, needed)
    kept: set[int] = set()
    first = 0
    for visual in sample.visuals:
        own = range(first, first + len(visual.positions))
        kept.update([token for token in order if token in own][: config.min_tokens_per_visual])
        if visual.modality == "video":
            for frame in range(visual.grids[0].shape[0] if visual.grids else 0):
                cells = {first + int(i) for grid in visual.grids for i in grid.index[frame].ravel()}
                inside = [token for token in order if token in cells]
                kept.update(inside[: config.min_tokens_per_frame])
        first += len(visual.positions)
    rest = [token for token in order if token not in kept]
    return kept | set(rest[: max(0, budget - len(kept))])


def _prepared(batch: Batch) -> Iterator[str]:
    """Compressed = stock on the prepared inputs."""
    logits = batch.output.logits
    prepared = batch.prepared(batch.inputs)
    expected = batch.subject.stock(**prepared).logits
    if batch.trial.padding_side == "left" and not torch.equal(logits, expected):
        yield f"logits {batch.apart(logits, expected) or 'differ in the last bits'}"
    for number, sample in enumerate(batch.samples):
        own = expected[number, prepared["attention_mask"][number].bool()]
        if len(own) != len(sample.kept_indices):
            yield f"sample {number} has {len(own)} tokens, not {len(sample.kept_indices)}"
        elif line := batch.apart(batch.own_logits(number), own):
            yield f"sample {number} {line}"


def _hidden(batch: Batch) -> Iterator[str]:
    """Compressed = stock on the whole prompt with the dropped tokens hidden."""
    expected = batch.subject.stock(**_hidden_inputs(batch)).logits
    for number, sample in enumerate(batch.samples):
        if line := batch.apart(batch.own_logits(number), expected[number, sample.kept_indices]):
            yield f"sample {number} {line}"


def _hidden_inputs(batch: Batch) -> dict[str, Tensor]:
    mask = torch.zeros_like(batch.inputs["attention_mask"])
    positions = batch.subject.family.position_ids(batch.subject.stock, batch.inputs).clone()
    # Where there are four axes, the first only says where sequences begin.
    axes = positions[1:] if positions.ndim == 3 and len(positions) == 4 else positions
    for number, sample in enumerate(batch.samples):
        mask[number, sample.kept_indices] = 1
        if batch.trial.config.position_ids == "grid":
            visuals = [own.positions for own in sample.visuals]
            axes[..., number, :] = moved_up(axes[..., number, :], mask[number], visuals)
        if batch.trial.config.position_ids == "compact" and not bool(sample.kept_visual.all()):
            axes[..., number, sample.kept_indices] = torch.arange(len(sample.kept_indices))
    return {**batch.inputs, "attention_mask": mask, "position_ids": positions}


def _alone(batch: Batch) -> Iterator[str]:
    """A sample alone = the sample in a batch."""
    trial, chosen = batch.trial, batch.trial.chosen
    if len(trial.prompts) == 1:
        return
    alone = Batch(replace(trial, prompts=(trial.prompts[chosen],), chosen=0))
    inside = batch.samples[chosen]
    if alone.is_text_only:
        logits = batch.subject.stock(**alone.inputs).logits[0]
    else:
        (outside,) = alone.samples
        if inside.scores is not None and outside.scores is not None:
            if line := batch.apart(inside.scores, outside.scores):
                yield f"scores {line}"
            unlike = inside.kept_visual != outside.kept_visual
            scores = inside.scores[unlike]
            # Tokens whose scores are as good as equal may change places.
            if len(scores) and scores.max() - scores.min() <= 1e-4 * scores.abs().max():
                return
        if not torch.equal(inside.kept_visual, outside.kept_visual):
            yield "keeps other tokens"
            return
        logits = alone.output.logits[0]
    if line := batch.apart(batch.own_logits(chosen), logits):
        yield f"logits {line}"


def _text_only(batch: Batch) -> Iterator[str]:
    """A batch without images is stock's business."""
    stock, compressed = batch.subject.stock, batch.subject.compressed
    if not torch.equal(compressed(**batch.inputs).logits, stock(**batch.inputs).logits):
        yield "logits differ"
    actual, expected = batch.generate(compressed, batch.left), batch.generate(stock, batch.left)
    if not torch.equal(actual.sequences, expected.sequences):
        yield "answers differ"


def _labels(batch: Batch) -> Iterator[str]:
    """With labels: the loss of the stock model on the prepared inputs, logits as wide as labels."""
    real = batch.inputs["attention_mask"].bool()
    from_end = real.flip(1).cumsum(1).flip(1)
    answer = real & (from_end <= _LABELLED)
    labelled = {**batch.inputs, "labels": batch.inputs["input_ids"].masked_fill(~answer, -100)}
    output = batch.forward(labelled)
    if output.logits.shape[1] != labelled["labels"].shape[1]:
        yield f"{output.logits.shape[1]} logits for {labelled['labels'].shape[1]} labels"
    loss = batch.subject.stock(**batch.prepared(labelled)).loss
    if line := batch.apart(output.loss, loss):
        yield f"loss {line}"


def _uncached(batch: Batch) -> Iterator[str]:
    """An answer with a cache = one without = the stock model's on the prepared inputs."""
    cached = batch.answer(batch.left)
    prepared = batch.prepared(batch.left)
    for line in batch.same_answers(cached, batch.generate(batch.subject.stock, prepared)):
        yield f"against stock: {line}"
    without = batch.answer(batch.left, use_cache=False)
    yield from batch.same_answers(cached, without)
    if not torch.equal(cached.sequences[:, : batch.left["input_ids"].shape[1]], _ids(batch)):
        yield "the sequences do not begin with the prompt"


def _static(batch: Batch) -> Iterator[str]:
    """An answer with a static cache = one without a cache."""
    text = batch.subject.stock.config.get_text_config()
    cache = StaticCache(config=text, max_cache_len=_ids(batch).shape[1] + batch.trial.steps)
    static = batch.answer(batch.left, **carried(cache))
    without = batch.answer(batch.left, use_cache=False)
    yield from batch.same_answers(static, without)


def _beams(batch: Batch) -> Iterator[str]:
    """Beams = the stock model's on the prepared inputs."""
    actual = batch.answer(batch.left, num_beams=2)
    prepared = batch.prepared(batch.left)
    expected = batch.generate(batch.subject.stock, prepared, num_beams=2)
    start = prepared["input_ids"].shape[1]
    if not torch.equal(actual.sequences[:, _ids(batch).shape[1] :], expected.sequences[:, start:]):
        yield "answers differ"


def _turn(batch: Batch) -> Iterator[str]:
    """A text turn on the cache = all of it computed anew by the stock model."""
    cache = DynamicCache(config=batch.subject.stock.config.get_text_config())
    first = batch.answer(batch.left, **carried(cache))
    answer = first.sequences[:, _ids(batch).shape[1] :]
    question = torch.randint(3, 40, (len(answer), 3), generator=torch.Generator().manual_seed(0))
    more = torch.cat([answer, question], dim=1)
    whole = extended(batch.left, more)
    turn = {"input_ids": whole["input_ids"], "attention_mask": whole["attention_mask"]}
    second = batch.answer(turn, **carried(cache))
    recomputed = extended(batch.prepared(batch.left), more)
    yield from batch.same_answers(second, batch.generate(batch.subject.stock, recomputed))


def _next_images(batch: Batch) -> Iterator[str]:
    """A turn with new images = the conversation by the stock model, dropped tokens hidden."""
    stock, compressed = batch.subject.stock, batch.subject.compressed
    prompts = batch.trial.prompts
    pair = ModelPair(stock, compressed)
    chat = Conversation(pair, stock.config.model_type, stock.dtype)
    cache = DynamicCache(config=stock.config.get_text_config())
    for turn in range(2):
        start = chat.kept.shape[1]
        chat.say(prompts, seed=turn)
        inputs = {**chat.tokens, **chat.visuals, **carried(cache)}
        output = compressed.generate(**inputs, **ENDLESS, **batch.options)
        chat.drop(output.compression_report.samples, start)
        answer = output.sequences[:, inputs["input_ids"].shape[1] :]
        for number, own in enumerate(answer if turn else ()):
            expected = chat.recomputed(number)
            for step, (logits, wanted) in enumerate(
                zip(output.logits, expected.logits, strict=True)
            ):
                if line := batch.apart(logits[number], wanted[0]):
                    yield f"sample {number}, logits of token {step} {line}"
                    break
                if own[step] != expected.sequences[0, step - len(answer[0])]:
                    break
        chat.hear(answer)


def _own_loop(batch: Batch) -> Iterator[str]:
    """Forwards over new tokens with the cache = all of it computed anew by the stock model."""
    prepared = batch.prepared(batch.left)
    output = batch.forward(batch.left, use_cache=True)
    new = _ids(batch)[:, :0]
    for _ in range(batch.trial.steps):
        new = torch.cat([new, output.logits[:, -1:].argmax(-1) % 40], dim=1)
        cache = output["cache"] if "cache" in output else output["past_key_values"]
        output = batch.subject.compressed(
            input_ids=new[:, -1:],
            attention_mask=extended(batch.left, new)["attention_mask"],
            **carried(cache),
        )
    expected = batch.subject.stock(**extended(prepared, new)).logits[:, -1]
    if line := batch.apart(output.logits[:, -1], expected):
        yield f"logits {line}"


def _ids(batch: Batch) -> Tensor:
    return batch.left["input_ids"]


_USES: dict[str, Callable[[Batch], Iterator[str]]] = {
    "labels": _labels,
    "uncached": _uncached,
    "static": _static,
    "beams": _beams,
    "turn": _turn,
    "own_loop": _own_loop,
}
