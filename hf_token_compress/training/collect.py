"""Collect what mappers learn from: what they see of prompts, and the relevance of the answers.

    accelerate launch --module hf_token_compress.cli collect --model … --data … --output FOLDER

Any number of processes and machines may work on one folder. After a stop, run it again to resume.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..compression.identity import identify
from ..compression.reading import check_depth, read_prompt
from ..compression.rewriting import with_whole_features
from ..compression.twin import make_twin
from ..data.chat import batches_of_one_shape, encode_samples
from ..data.media import with_frames
from ..data.metrics import is_right
from ..data.sample import Sample
from ..data.sources import SampleSource
from ..mapper import ModelIdentity, relevance_label
from ..mapper.inputs import INPUTS
from ..relevance import relevance
from ..relevance.explain import explained_family, greedy_answers, run_vision
from ..relevance.rules import build_rule
from ..scorers.mapper_inputs import mapper_inputs
from ..writing import clear_parts, write_json
from .distributed import process_state
from .options import CollectOptions
from .shards import (
    COLLECTION_FILE,
    INDEX_FILE,
    CollectedSample,
    Shard,
    ShardFolder,
    SkippedSample,
    collected_inputs,
    read_collection_file,
    shard_path,
    shard_summary,
    write_index,
    write_shard,
)

logger = logging.getLogger(__name__)

WRONG = "answered wrongly"
UNREADABLE = "cannot be read"
TOO_LONG = "too long"
OTHER_MODALITY = "other modality"
NO_RELEVANCE = "no relevance"

_IT_HAS = {"image": "it has an image", "video": "it has a video"}


def collect(
    model: Any,
    processor: Any,
    samples: SampleSource,
    folder: str | Path,
    options: CollectOptions | None = None,
    *,
    base_model: str | None = None,
    after_sample: Callable[[int], None] | None = None,
    found_samples: Callable[[int], None] | None = None,
) -> ShardFolder | None:
    """Ask the model every question, explain the right answers, and write shards.

    Shards that exist already are kept. A sample that cannot be used is logged, counted and skipped.

    Args:
        model: A loaded model of a supported family, compressed or not, on this process's device. A
            twin of it answers, in evaluation mode; the model itself is not touched.
        processor: Its processor.
        samples: The questions.
        folder: Where to write; on one machine, or shared by all.
        options: How to collect.
        base_model: Hub id of the model, for the record; by default what it was loaded from.
        after_sample: Called with the number of samples that are done, for progress bars.
        found_samples: Called instead with those that an earlier run has done.

    Returns:
        The collection, or None where other machines have shards yet to be copied into the folder.

    Raises:
        TypeError: `model` is not a Transformers model, or an option of the rule has the wrong type.
        ValueError: There are no samples, there is no such rule, the model cannot be explained or
            has too few layers, the folder holds a collection with other settings, or not one sample
            could be used.
    """
    options = options or CollectOptions()
    if len(samples) == 0:
        raise ValueError("There are no samples to collect from: the data is empty.")
    # Errors that concern every sample are raised here, not recorded for each of them.
    build_rule(options.rule, options.rule_options)
    explained_family(model)
    check_depth(model, options.scoring_depth)
    state = process_state()
    folder = Path(folder)
    settings = {
        "base_model": identify(model, base_model).to_dict(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "data": samples.describe(),
        "options": options.to_dict(),
    }
    started = _start(folder, settings, state)
    if "frames" not in (started.get("options") or {}):
        options = dataclasses.replace(options, frames=None)
    size = options.shard_size
    shards = [shard_path(folder, number) for number in range(-(-len(samples) // size))]
    collector = _Collector(model, processor, samples, options, collected_inputs(started))
    for shard in range(state.process_index, len(shards), state.num_processes):
        numbers = range(shard * size, min((shard + 1) * size, len(samples)))
        if not _is_done(shards[shard]):
            write_shard(shards[shard], collector.shard(numbers, after_sample))
        elif (count := found_samples or after_sample) is not None:
            count(len(numbers))
    return _finish(folder, shards, state, len(samples))


def _start(folder: Path, settings: Mapping[str, Any], state: Any) -> dict[str, Any]:
    """Write the settings of a new collection, or compare them with those of one that is there.

    Returns:
        What the collection was started with.
    """
    if state.is_local_main_process and not (folder / COLLECTION_FILE).is_file():
        content = {**settings, "inputs": INPUTS, "hf_token_compress_version": __version__}
        write_json(folder / COLLECTION_FILE, content)
    state.wait_for_everyone()
    # Every process checks, so that none waits for another that has failed.
    started = read_collection_file(folder, COLLECTION_FILE)
    options: dict[str, Any] = started.get("options") or {}
    # What is now called metric was once called match, and was "exact" by default.
    if "match" in options:
        options["metric"] = options.pop("match")
        if (options["metric"], settings["options"]["metric"]) == ("exact", "auto"):
            settings["options"]["metric"] = "exact"
    # A collection started without a number of frames continues without one.
    if "frames" not in options and settings["options"].get("frames") == CollectOptions.frames:
        del settings["options"]["frames"]
    for name, value in json.loads(json.dumps(settings)).items():
        difference = _difference(name, value, started.get(name))
        if difference is not None:
            raise ValueError(
                f"The folder {str(folder)!r} holds a collection {difference}: choose another "
                "folder, or delete this one."
            )
    missing = [name for name in INPUTS if name not in collected_inputs(started)]
    if missing:
        logger.warning(
            "The collection in %s was started by an earlier version and continues without %s: to "
            "train a mapper on these too, collect into another folder.",
            folder,
            " and ".join(missing),
        )
    return started


def _finish(folder: Path, shards: Sequence[Path], state: Any, samples: int) -> ShardFolder | None:
    """Write the index once all shards are there."""
    state.wait_for_everyone()
    complete = all(path.is_file() for path in shards)
    if complete and state.is_main_process:
        clear_parts(folder)
        write_index(folder, shards)
    state.wait_for_everyone()
    # The index is where the main process has all shards, and on every machine that shares them.
    if not complete or not (folder / INDEX_FILE).is_file():
        return None
    collection = ShardFolder(folder)
    if len(collection) == 0:
        skipped = collection.index["skipped_samples"][0]
        raise ValueError(
            f"Not one of {samples} samples could be used: the first was skipped because "
            f"{skipped['reason']} ({skipped['detail']})."
        )
    return collection


class _Collector:
    """Turns ranges of sample numbers into shards."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        samples: SampleSource,
        options: CollectOptions,
        inputs: Sequence[str],
    ) -> None:
        self.model, self.processor = model, processor
        self.samples, self.options, self.inputs = samples, options, inputs
        self.family = explained_family(model)
        text = model.config.get_text_config()
        self.positions = getattr(text, "max_position_embeddings", None)

    def shard(self, numbers: Sequence[int], after_sample: Callable[[int], None] | None) -> Shard:
        shard = Shard()
        for start in range(0, len(numbers), self.options.batch_size):
            batch = numbers[start : start + self.options.batch_size]
            readable: list[tuple[int, Sample]] = []
            for number in batch:
                self._read(number, readable, shard)
            for indices in batches_of_one_shape([sample for _, sample in readable]):
                self._collect([readable[index] for index in indices], shard)
            if after_sample is not None:
                after_sample(len(batch))
        shard.samples.sort(key=lambda sample: sample.number)
        shard.skipped.sort(key=lambda sample: sample.number)
        return shard

    def _read(self, number: int, readable: list[Any], shard: Shard) -> None:
        try:
            sample = self.samples[number]
            if sample.modality != self.options.modality:
                self._skip(shard, number, OTHER_MODALITY, _IT_HAS[sample.modality])
                return
            readable.append((number, with_frames(sample, self.processor, self.options.frames)))
        except Exception as error:  # a decoder may raise anything
            self._skip(shard, number, UNREADABLE, error)

    def _collect(self, batch: Sequence[tuple[int, Sample]], shard: Shard) -> None:
        """Collect a batch; one by one where that fails, as one bad sample costs only itself."""
        done = Shard()
        try:
            self._collect_batch(batch, done)
        except (torch.OutOfMemoryError, ValueError) as error:
            # Any other error is not the fault of a sample.
            if len(batch) == 1:
                reason = TOO_LONG if isinstance(error, torch.OutOfMemoryError) else UNREADABLE
                self._skip(shard, batch[0][0], reason, error)
                return
            for item in batch:
                self._collect([item], shard)
            return
        shard.samples.extend(done.samples)
        shard.skipped.extend(done.skipped)

    def _collect_batch(self, batch: Sequence[tuple[int, Sample]], shard: Shard) -> None:
        inputs = self._encode(batch)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        short = []
        for item, length in zip(batch, lengths, strict=True):
            if (excess := self._excess(length)) is not None:
                self._skip(shard, item[0], TOO_LONG, f"its prompt has {length} tokens, {excess}")
            else:
                short.append(item)
        if not short:
            return
        if len(short) < len(batch):
            inputs = self._encode(short)
        # Run the vision part once; answering and explaining get its features.
        vision = run_vision(self.model, self.family, inputs)
        inputs = with_whole_features(self.family, inputs, vision.encoded)
        answers = greedy_answers(self.model, self.family, inputs, self.options.max_new_tokens)
        right = []
        for place, (item, answer) in enumerate(zip(short, answers, strict=True)):
            given = self.processor.decode(answer, skip_special_tokens=True)
            number, sample = item
            if len(answer) == 0:
                self._skip(shard, number, WRONG, "the model gave no answer")
            elif sample.answers and not is_right(given, sample, self.options.metric):
                expected = " or ".join(map(repr, sample.answers))
                self._skip(shard, number, WRONG, f"{given.strip()!r} instead of {expected}")
            else:
                right.append(place)
        if not right:
            return
        items = [short[place] for place in right]
        if len(right) < len(short):
            encoded = vision.encoded_of(right)
            inputs = with_whole_features(self.family, self._encode(items), encoded)
        self._explain(items, inputs, [answers[place] for place in right], shard)

    def _excess(self, length: int) -> str | None:
        """Which limit a prompt of that many tokens exceeds, in words; None for none."""
        longest, answer = self.options.max_prompt_tokens, self.options.max_new_tokens
        if longest is not None and length > longest:
            return f"more than max_prompt_tokens={longest}"
        if self.positions is not None and length + answer > self.positions:
            return (
                f"which with max_new_tokens={answer} are more than the {self.positions} positions "
                "of the model"
            )
        return None

    def _explain(
        self,
        right: Sequence[tuple[int, Sample]],
        inputs: Mapping[str, Any],
        answers: Sequence[Tensor],
        shard: Shard,
    ) -> None:
        options = self.options
        report = relevance(
            self.model,
            inputs,
            answer_ids=answers,
            rule=options.rule,
            rule_options=options.rule_options,
            targets=options.targets,
            recursive=options.recursive,
        )
        twin = make_twin(self.model)
        with twin.running(), torch.no_grad():
            prompt, layer = read_prompt(
                twin.module,
                inputs,
                instruction=options.instruction,
                scoring_depth=options.scoring_depth,
            )
            inputs_of_mappers = mapper_inputs(prompt, layer, options.modality, self.inputs)
        of_samples = zip(right, report.samples, inputs_of_mappers, strict=True)
        for (number, _), explained, seen in of_samples:
            scores = explained.scores.float().cpu()
            try:
                relevance_label(scores)
            except ValueError as error:
                self._skip(shard, number, NO_RELEVANCE, error)
                continue
            if seen is None or seen.count != len(scores):
                self._skip(shard, number, OTHER_MODALITY, "it has both images and videos")
                continue
            shard.samples.append(CollectedSample.of(number, seen, scores))

    def _encode(self, batch: Sequence[tuple[int, Sample]]) -> Any:
        try:
            inputs = encode_samples(self.processor, [sample for _, sample in batch])
        except Exception as error:  # processors raise errors of many kinds
            raise ValueError(str(error) or type(error).__name__) from error
        return inputs.to(self.model.device, self.model.dtype)

    def _skip(self, shard: Shard, number: int, reason: str, detail: object) -> None:
        line = str(detail).splitlines()[0] if str(detail) else type(detail).__name__
        # Wrong answers are common and need no action.
        level = logging.INFO if reason == WRONG else logging.WARNING
        logger.log(level, "Sample %d is skipped: %s (%s).", number, reason, line)
        shard.skipped.append(SkippedSample(number, reason, line))


def _is_done(path: Path) -> bool:
    """Whether a shard is there in full; a damaged one is collected again."""
    if not path.is_file():
        return False
    try:
        shard_summary(path)
    except ValueError as error:
        logger.warning("%s It is collected again.", error)
        return False
    return True


def _difference(name: str, wanted: Any, found: Any) -> str | None:
    """How a started collection differs in a setting; None if it does not."""
    if name == "base_model":
        # Other hardware rounds the fingerprint differently.
        first, second = (ModelIdentity.from_dict(item) for item in (wanted, found))
        same = first.name == second.name and first.difference(second) is None
        return None if same else "of another model"
    if wanted == found:
        return None
    if name == "data":
        return "of other data"
    if name == "dtype":
        return f"in {found}, not {wanted}"
    changed = [key for key in wanted if wanted[key] != (found or {}).get(key)]
    return f"with other options ({', '.join(changed)})"
