"""In front of the engine: fewer placeholders, and hashes that tell prompts apart.

Which tokens of an image stay depends on the question, so what vLLM knows an image by (its hash, for
the caches of processed inputs, encoder outputs and key-value blocks) covers the whole prompt.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import EmbeddingItems
from vllm.multimodal.processing import PromptReplacement, PromptUpdateDetails

from ...config import TokenCompressionConfig
from ...models.family import ModelFamily, Size
from ...prompt import MODALITIES, Modality
from ...selection import kept_count
from .metrics import count_visual_tokens
from .prompts import PromptVisual, SpecialTokens, VisualRecord, WholePrompt, span_of
from .setting import KEY, request_setting

_SCHEME = 1
"""Part of every hash: to be raised when the same setting would keep other tokens."""

_PROFILING: ContextVar[bool] = ContextVar("profiling", default=False)


@dataclass(frozen=True)
class _Request:
    """What the steps of processing know of a request.

    Attributes:
        prompt_ids: The prompt as it was sent.
        config: Its setting.
    """

    prompt_ids: tuple[int, ...]
    config: TokenCompressionConfig


@dataclass
class ShortenedUpdate(PromptUpdateDetails):
    """Placeholders of the tokens that stay.

    Attributes:
        whole: Visual tokens of the image or video before compression.
    """

    whole: int = 0


def record_field(modality: Modality) -> str:
    """Under which name the records of images or videos travel to the workers."""
    return f"{modality}_{KEY}"


class CompressingProcessor:
    """A mixin that stands before the stock processor of a model.

    Of the vLLM side it relies on: `apply`, `get_dummy_inputs`, `get_dummy_mm_inputs`,
    `_get_mm_hashes`, `_get_cache_missing_items`, `_apply_hf_processor_main`,
    `_get_mm_fields_config`, `_get_prompt_updates` and `_maybe_apply_prompt_updates`.

    Its `info` is a `CompressingInfo`.
    """

    info: Any

    def sizes(self, modality: Modality, processed: Mapping[str, Any]) -> list[Size]:
        """What `ModelFamily.layouts` needs, from the output of the Transformers processor."""
        family: ModelFamily = self.info.family
        return family.sizes(self.info.get_hf_config(), processed, modality, ())

    # 1. The request.

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process a prompt; its setting is that of the server, with the changes of the request."""
        for modality, items in inputs.mm_data_items.items():
            if isinstance(items, EmbeddingItems):
                raise ValueError(
                    f"A compressed model takes {modality}s as pixels, not as embeddings: send the "
                    f"{modality}s themselves."
                )
        given = dict(inputs.hf_processor_mm_kwargs)
        config = self.info.setting
        if (changes := given.pop(KEY, None)) is not None:
            config = request_setting(config, changes, lambda: self.info.scorer)
        given[KEY] = _Request(tuple(inputs.prompt), config)
        inputs = dataclasses.replace(inputs, hf_processor_mm_kwargs=given)
        return super().apply(inputs, timing_ctx)  # type: ignore[misc]

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """The prompt that vLLM measures memory with."""
        inputs = super().get_dummy_inputs(*args, **kwargs)  # type: ignore[misc]
        # A prompt must not end with an image.
        return dataclasses.replace(inputs, prompt=[*inputs.prompt, 0])

    def get_dummy_mm_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """The same, processed; its visual tokens are not counted."""
        token = _PROFILING.set(True)
        try:
            return super().get_dummy_mm_inputs(*args, **kwargs)  # type: ignore[misc]
        finally:
            _PROFILING.reset(token)

    # 2. Its hashes, and all of its images or none from the cache.

    def _get_mm_hashes(self, inputs: Any) -> dict[str, list[str]]:
        given = dict(inputs.hf_processor_mm_kwargs)
        request: _Request = given.pop(KEY)
        stock = super()._get_mm_hashes(  # type: ignore[misc]
            dataclasses.replace(inputs, hf_processor_mm_kwargs=given)
        )
        algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
        prompt = json.dumps(
            [_SCHEME, request.config.to_dict(), request.prompt_ids, stock], sort_keys=True
        )
        return {
            modality: [
                MultiModalHasher.hash_kwargs(
                    algorithm, prompt=prompt, visual=f"{modality} {number}"
                )
                for number in range(len(hashes))
            ]
            for modality, hashes in stock.items()
        }

    def _get_cache_missing_items(self, cache: Any, mm_data_items: Any, mm_hashes: Any) -> Any:
        is_cached, missing = super()._get_cache_missing_items(  # type: ignore[misc]
            cache=cache, mm_data_items=mm_data_items, mm_hashes=mm_hashes
        )
        if all(all(own) for own in is_cached.values()):
            return is_cached, missing
        # The record of each holds the sizes of all.
        for modality, own in is_cached.items():
            if any(mm_data_items[modality][number] is None for number in range(len(own))):
                raise ValueError(
                    f"Some {modality}s of this prompt are no longer cached: send all of them, not "
                    "only their UUIDs."
                )
        return {modality: [False] * len(own) for modality, own in is_cached.items()}, mm_data_items

    # 3. What the workers get.

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        request, given = _split(hf_kwargs)
        processed = super()._apply_hf_processor_main(mm_items, given)  # type: ignore[misc]
        counts = {name: count for name, count in mm_items.get_all_counts().items() if count > 0}
        if counts:
            for modality, records in self._records(request, processed, counts).items():
                processed[record_field(modality)] = [own.to_tensor() for own in records]
        return processed

    def _records(
        self, request: _Request, processed: Mapping[str, Any], counts: Mapping[str, int]
    ) -> dict[Modality, list[VisualRecord]]:
        """The records of all images and videos of a prompt, by modality."""
        hf_config = self.info.get_hf_config()
        input_ids = torch.tensor(request.prompt_ids)[None]  # [1, S]
        found: list[PromptVisual] = []
        kept: list[int] = []
        for modality in MODALITIES:
            mask = self.info.family.placeholders(hf_config, {"input_ids": input_ids}, modality)
            places = mask[0].nonzero().flatten().tolist()
            if len(places) != counts.get(modality, 0):
                raise ValueError(
                    f"The prompt has {len(places)} {modality} placeholders, but "
                    f"{counts.get(modality, 0)} {modality}s: put one placeholder for each."
                )
            if not places:
                continue
            sizes = self.sizes(modality, processed)
            seconds = processed.get("second_per_grid_ts") if modality == "video" else None
            for number, (place, size) in enumerate(zip(places, sizes, strict=True)):
                found.append(
                    PromptVisual(
                        modality,
                        place,
                        size,
                        None if seconds is None else float(seconds[number]),
                    )
                )
                (layout,) = self.info.family.layouts(hf_config, [size], modality)
                kept.append(kept_count(span_of(layout, modality), request.config))
        order = sorted(range(len(found)), key=lambda number: found[number].place)
        visuals = tuple(found[number] for number in order)
        self._check_question(request, visuals)
        records: dict[Modality, list[VisualRecord]] = {}
        for number, source in enumerate(order):
            records.setdefault(visuals[number].modality, []).append(
                VisualRecord(
                    request.prompt_ids, visuals, number, request.config.to_dict(), kept[source]
                )
            )
        return records

    def _check_question(self, request: _Request, visuals: Sequence[PromptVisual]) -> None:
        """Raise `ValueError` if nothing that scorers could read follows the images and videos."""
        family, hf_config = self.info.family, self.info.get_hf_config()
        whole = WholePrompt.of(family, hf_config, request.prompt_ids, visuals)
        special = SpecialTokens.of(family, self.info.ctx.model_config)
        asking = whole.instruction_mask(special, request.config.instruction)
        for span in whole.spans:
            asking[span.positions] = False
        if not asking.any() or visuals[-1].place == len(request.prompt_ids) - 1:
            raise ValueError(
                f"The prompt has no text after its last {visuals[-1].modality}: put the question "
                "there."
            )

    def _get_mm_fields_config(
        self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, Any]:
        _, given = _split(hf_processor_mm_kwargs)
        stock = super()._get_mm_fields_config(hf_inputs, given)  # type: ignore[misc]
        records = {
            record_field(modality): MultiModalFieldConfig.batched(modality, keep_on_cpu=True)
            for modality in MODALITIES
        }
        return {**stock, **records}

    # 4. The placeholders of the tokens that stay.

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        _, given = _split(hf_processor_mm_kwargs)
        stock = super()._get_prompt_updates(mm_items, given, out_mm_kwargs)  # type: ignore[misc]
        return [self._shortened(update, out_mm_kwargs) for update in stock]

    def _shortened(self, update: Any, out_mm_kwargs: Any) -> Any:
        modality = update.modality

        def replacement(number: int) -> ShortenedUpdate:
            whole = update.replacement(number)
            field = out_mm_kwargs[modality][number][record_field(modality)]
            record = VisualRecord.from_tensor(field.data)
            visual = record.visual
            (layout,) = self.info.family.layouts(
                self.info.get_hf_config(), [visual.size], visual.modality
            )
            if len(whole) != layout.count:
                raise ValueError(
                    f"vLLM counts {len(whole)} visual tokens, but the layout of a {modality} of "
                    f"size {visual.size} has {layout.count}: this processor setting cannot be "
                    "compressed."
                )
            return ShortenedUpdate(whole[: record.kept], whole=layout.count)

        return PromptReplacement(modality, update.target, replacement)

    def _maybe_apply_prompt_updates(self, mm_items: Any, mm_res: Any) -> Any:
        result = super()._maybe_apply_prompt_updates(mm_items, mm_res)  # type: ignore[misc]
        if not _PROFILING.get():
            name = self.info.ctx.model_config.served_model_name
            details = [
                update.content
                for items in mm_res.prompt_updates.values()
                for updates in items
                for update in updates[:1]
            ]
            before, after = sum(own.whole for own in details), sum(len(own.full) for own in details)
            count_visual_tokens(str(name), before, after)
        return result


def _split(given: Mapping[str, object]) -> tuple[_Request, dict[str, object]]:
    """The request, and the keyword arguments of the Transformers processor."""
    rest = dict(given)
    request = rest.pop(KEY)
    assert isinstance(request, _Request)
    return request, rest
