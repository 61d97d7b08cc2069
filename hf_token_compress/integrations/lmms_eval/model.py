"""The model `hf_token_compress` of lmms-eval: every supported family, through chat messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm
from typing_extensions import override

from ...data.chat import Conversation, encode
from .arguments import read_arguments
from .generation import cut_answer, generate_options, generated_lengths, stop_strings
from .loading import find_device, load
from .messages import batch_key, read_messages

_GENERATES_ONLY = (
    "hf_token_compress answers with generated text in one turn: choose a task whose output_type is "
    "generate_until."
)


@dataclass(frozen=True)
class _Batch:
    """Requests that are asked together: their numbers, prompts and generation options."""

    numbers: list[int]
    conversations: list[Conversation]
    task_options: Mapping[str, Any]


class CompressedModel(lmms):
    """A compressed model in lmms-eval, which makes it from `--model_args`.

    Args:
        **model_args: The fields of `LoadingArguments`, and the settings of
            `TokenCompressionConfig`. Those that were saved with the model are the defaults.

    Raises:
        OSError: There is no such model, or the Hub cannot be reached.
        TypeError, ValueError: A name is unknown, or a value does not fit its name or the model.
    """

    is_simple = False

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        arguments, changes = read_arguments(model_args)
        # lmms-eval gathers the results of several processes through it.
        self.accelerator = Accelerator()
        device = self.accelerator.device
        if arguments.device is not None and self.accelerator.num_processes == 1:
            device = find_device(arguments.device)
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self._arguments = arguments
        self._model, self._processor = load(arguments, changes, device)
        self.device = self._model.device

    @override
    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """The answers, in the order of the requests."""
        results: dict[int, GenerationResult] = {}
        tokens, seconds = 0, 0.0
        compression = self._model.token_compression
        with (
            compression.record() as totals,
            tqdm(total=len(requests), desc="Answering", disable=self.rank != 0) as progress,
        ):
            for batch in self._batches(requests):
                start = time.perf_counter()
                answers = self._answer(batch)
                seconds += time.perf_counter() - start
                for number, answer in zip(batch.numbers, answers, strict=True):
                    results[number] = answer
                    tokens += answer.token_counts.output_tokens
                progress.update(len(answers))
        logger.info(f"Token compression: {totals.summary()}")
        # lmms-eval writes these into the results, too.
        visual_tokens = {
            "visual_tokens_before": totals.visual_tokens_before,
            "visual_tokens_after": totals.visual_tokens_after,
        }
        log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, visual_tokens)
        return [results[number] for number in range(len(requests))]

    @override
    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Not supported."""
        raise NotImplementedError(_GENERATES_ONLY)

    @override
    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not supported, and not asked of models that take chat messages."""
        raise NotImplementedError(_GENERATES_ONLY)

    def _batches(self, requests: Sequence[Instance]) -> Iterator[_Batch]:
        """Requests with the same generation options whose visuals fit in one batch."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            options = request.args[2]
            groups.setdefault(repr(sorted(options.items())), []).append(number)
        size = self._arguments.batch_size
        for group in groups.values():
            for start in range(0, len(group), size):
                yield from self._batches_of_one_shape(requests, group[start : start + size])

    def _batches_of_one_shape(
        self, requests: Sequence[Instance], numbers: Sequence[int]
    ) -> Iterator[_Batch]:
        batches: dict[tuple[Any, ...], _Batch] = {}
        for number in numbers:
            _, to_messages, task_options, document, task, split = requests[number].args
            messages = to_messages(self.task_dict[task][split][document])
            chat = read_messages(messages, self._processor, self._arguments.max_num_frames)
            batch = batches.setdefault(batch_key(chat), _Batch([], [], task_options))
            batch.numbers.append(number)
            batch.conversations.append(chat)
        yield from batches.values()

    @torch.inference_mode()
    def _answer(self, batch: _Batch) -> list[GenerationResult]:
        inputs = encode(self._processor, batch.conversations).to(self._model.device)
        output = self._model.generate(**inputs, **generate_options(batch.task_options))  # [B, S]
        new_tokens = output[:, inputs["input_ids"].shape[1] :]  # [B, new]
        texts = self._processor.batch_decode(new_tokens, skip_special_tokens=True)
        lengths = generated_lengths(new_tokens, self._model.generation_config.eos_token_id)
        stops = stop_strings(batch.task_options)
        return [
            GenerationResult(cut_answer(text, stops), TokenCounts(output_tokens=length))
            for text, length in zip(texts, lengths, strict=True)
        ]
