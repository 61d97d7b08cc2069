"""In the workers: score what the tower made of an image, and hand on the tokens that stay."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override
from vllm.multimodal.inputs import PlaceholderRange

from ...config import TokenCompressionConfig
from ...prompt import MODALITIES, MultimodalPrompt
from ...scorers.base import NotFiniteError, check_finite, checked_scores, own_rule
from ...selection import keep_of_visuals
from ...word_statistics import WordStatistics
from .engine import check_engine
from .info import family_of
from .processor import record_field
from .prompts import (
    PromptVisual,
    SpecialTokens,
    VisualRecord,
    WholePrompt,
    kept_prompt_positions,
)
from .scoring import FirstLayer, identify, of_first_rank
from .setting import make_scorer, server_setting

_logger = logging.getLogger("hf_token_compress")

_REMEMBERED_PROMPTS = 16

_PIXELS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}
"""What Qwen-VL models take of images and videos, and what tells whose it is."""


@dataclass(frozen=True)
class _LaidOut:
    """A prompt with all its visual tokens.

    Attributes:
        whole: Its tokens.
        instruction: Its instruction tokens, bool [S].
        position_ids: int64 [A, S] or [S].
        delta: What the position after it is more than its length.
    """

    whole: WholePrompt
    instruction: Tensor
    position_ids: Tensor
    delta: int


def groups_within(counts: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs (start, stop) of items that count no more than `most` together, or one item alone."""
    start = total = 0
    for number, count in enumerate(counts):
        if number > start and total + count > most:
            yield start, number
            start, total = number, 0
        total += count
    yield start, len(counts)


class CompressedModel:
    """A mixin that stands before the stock class of a model without positions on a grid.

    Attributes:
        has_grid_positions: As in `server_setting`.
    """

    has_grid_positions = False
    config: Any
    language_model: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        model_config = vllm_config.model_config
        hf_config = model_config.hf_config
        setting = server_setting(hf_config, has_grid_positions=self.has_grid_positions)
        check_engine(vllm_config, setting, has_grid_positions=self.has_grid_positions)
        scorer = make_scorer(setting)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self._setting, self._scorer = setting, scorer
        self._model_config = model_config
        self._family = family_of(hf_config)
        self._special = SpecialTokens.of(self._family, model_config)
        self._encoded_at_once = vllm_config.scheduler_config.max_num_encoder_input_tokens
        # Images of a prompt are encoded one after another, at times in different steps.
        self._laid_out = functools.lru_cache(maxsize=_REMEMBERED_PROMPTS)(self._lay_out)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the weights, and check that a mapper was trained for this model."""
        loaded: set[str] = super().load_weights(weights)  # type: ignore[misc]
        self._scorer.check_model(lambda: identify(self._model_config, self._first_layer))
        return loaded

    def embed_multimodal(self, **kwargs: Any) -> Sequence[Tensor]:
        """The tokens of each image or video that stay, float [K, D] each."""
        # vLLM sends images and videos apart.
        (name,) = (own for own in map(record_field, MODALITIES) if own in kwargs)
        records = [VisualRecord.from_tensor(own) for own in kwargs.pop(name)]
        prompts = [self._prompt_of(own) for own in records]
        counts = [
            len(prompt.whole.spans[own.number].positions)
            for prompt, own in zip(prompts, records, strict=True)
        ]
        kept: list[Tensor] = []
        # vLLM's limit of what is encoded at once counts the tokens that stay.
        for start, stop in groups_within(counts, self._encoded_at_once):
            items = self._items(kwargs, start, stop)
            features = super().embed_multimodal(**items)  # type: ignore[misc]
            kept += map(self._kept, features, records[start:stop], prompts[start:stop])
        return tuple(kept)

    def _items(self, kwargs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """The arguments of some of the images or videos."""
        return {name: values[start:stop] for name, values in kwargs.items()}

    def _prompt_of(self, record: VisualRecord) -> _LaidOut:
        return self._laid_out(record.prompt_ids, record.visuals)

    def _lay_out(self, prompt_ids: tuple[int, ...], visuals: tuple[PromptVisual, ...]) -> _LaidOut:
        whole = WholePrompt.of(self._family, self.config, prompt_ids, visuals)
        instruction = whole.instruction_mask(self._special, self._setting.instruction)
        return _LaidOut(whole, instruction, *self._whole_positions(whole, visuals))

    def _whole_positions(
        self, whole: WholePrompt, visuals: Sequence[PromptVisual]
    ) -> tuple[Tensor, int]:
        """Positions of the whole prompt, int64 [S] or [A, S], and `delta` of `_LaidOut`."""
        return torch.arange(len(whole.input_ids)), 0

    def _kept(self, features: Tensor, record: VisualRecord, laid_out: _LaidOut) -> Tensor:
        """The tokens of an image or video, [N, D], that stay, [K, D]."""
        return features[self._keep(features, record, laid_out)]

    def _keep(self, features: Tensor, record: VisualRecord, laid_out: _LaidOut) -> Tensor:
        """Which tokens of an image or video stay, int64 [K]."""
        device = features.device
        if record.kept == len(features):
            return torch.arange(record.kept, device=device)
        prompt = laid_out.whole.of_visual(
            record.number,
            laid_out.position_ids,
            laid_out.instruction,
            functools.partial(self._embed, features),
            device,
        )
        try:
            scores = self._score(prompt)
        except NotFiniteError as error:
            # Numbers overflowed, and stock vLLM would return garbage. To raise here would end the
            # engine, and with it the requests of others.
            _logger.error("Token compression keeps evenly spread tokens of a request: %s", error)
            kept = torch.linspace(0, len(features) - 1, record.kept, device=device).round().long()
        else:
            kept = self._select(prompt, scores, record.config)
        assert len(kept) == record.kept, (len(kept), record.kept)
        # Ranks may round differently, but must agree.
        return of_first_rank(kept)

    def _select(
        self, prompt: MultimodalPrompt, scores: Tensor, config: TokenCompressionConfig
    ) -> Tensor:
        """Which tokens of the only image or video stay, int64 [K], by the scores, [1, R]."""
        ((span,),) = prompt.visuals
        rule = own_rule(self._scorer, prompt, config.scorer_name)
        positions = span.positions.to(scores.device)
        keep = keep_of_visuals(
            [span],
            scores[0, positions],
            config,
            embed=lambda: prompt.inputs_embeds[0, positions].float(),
            own_rule=None if rule is None else functools.partial(rule, 0),
        )
        return keep.nonzero().flatten()

    def _score(self, prompt: MultimodalPrompt) -> Tensor:
        """The scores of a prompt of its own, float32 [1, R]."""
        scorer = self._scorer
        prompt.check_instruction()

        def layer(query_mask: Tensor, rotary: bool) -> Any:
            return self._first_layer.scoring_layer(
                prompt.inputs_embeds[0],
                prompt.position_ids.squeeze(-2),
                query_mask[0],
                rotary=rotary,
            )

        needed: dict[str, Any] = {}
        if "scoring_layer" in scorer.needs:
            needed["scoring_layer"] = layer(scorer.query_mask(prompt), rotary=True)
        if "unrotated_layer" in scorer.needs:
            needed["unrotated_layer"] = layer(prompt.query_mask, rotary=False)
        if "word_statistics" in scorer.needs:
            needed["word_statistics"] = self._word_statistics
        name = self._setting.scorer_name
        scores = checked_scores(scorer.score(prompt, **needed), prompt, name)
        check_finite(scores, prompt.visual_mask, name)
        return scores

    def _embed(self, features: Tensor, input_ids: Tensor, visual_mask: Tensor) -> Tensor:
        """What enters the decoder, float [R, D]."""
        # Placeholders may lie outside the vocabulary.
        embeds = self.language_model.embed_input_ids(input_ids.masked_fill(visual_mask, 0))
        embeds[visual_mask] = features.to(embeds)
        return embeds

    @functools.cached_property
    def _first_layer(self) -> FirstLayer:
        return FirstLayer(self.language_model.model)

    @functools.cached_property
    def _word_statistics(self) -> WordStatistics:
        device = next(self.language_model.parameters()).device
        ids = torch.arange(self.config.get_text_config().vocab_size, device=device)
        return WordStatistics.over(ids, self.language_model.embed_input_ids)


class CompressedGridModel(CompressedModel):
    """The same for models with positions of time, height and width.

    Where every token of the text lies is known from the sizes of the images. Where a visual token
    lies is known once it is kept: its position travels beside its features, and takes its place
    when the features do.
    """

    has_grid_positions = True

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        # Which tokens of this step are visual, int64 [K], and where they lie, int64 [3, K].
        self._places: tuple[Tensor, Tensor] | None = None

    def get_mrope_input_positions(
        self, input_tokens: Sequence[int], mm_features: Sequence[Any]
    ) -> tuple[Tensor, int]:
        """Positions of the shorter prompt, int64 [3, K], and the distance to those that follow."""
        features = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        if not features:
            return super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc]
        record = VisualRecord.from_tensor(features[0].data[record_field(features[0].modality)].data)
        laid_out = self._prompt_of(record)
        spans = laid_out.whole.spans
        kept = [feature.mm_position.length for feature in features]
        shortened = any(
            count < len(span.positions) for count, span in zip(kept, spans, strict=True)
        )
        if shortened and record.config.position_ids == "compact":
            return torch.arange(len(input_tokens)).expand(3, -1), 0
        return kept_prompt_positions(
            laid_out.position_ids, laid_out.delta, spans, kept, len(input_tokens)
        )

    @override
    def _whole_positions(
        self, whole: WholePrompt, visuals: Sequence[PromptVisual]
    ) -> tuple[Tensor, int]:
        features = [
            SimpleNamespace(
                modality=visual.modality,
                mm_position=PlaceholderRange(int(span.positions[0]), len(span.positions)),
                data=_grid_fields(visual.size, visual.modality, visual.seconds_per_grid),
            )
            for visual, span in zip(visuals, whole.spans, strict=True)
        ]
        return super().get_mrope_input_positions(whole.input_ids.tolist(), features)  # type: ignore[misc]

    @override
    def _items(self, kwargs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        items = super()._items(kwargs, start, stop)
        for pixels, grids in _PIXELS.items():
            if pixels in kwargs:
                # The patches of all images lie one after another.
                ends = [0, *accumulate(kwargs[grids].prod(-1).tolist())]
                items[pixels] = kwargs[pixels][ends[start] : ends[stop]]
        return items

    @override
    def _kept(self, features: Tensor, record: VisualRecord, laid_out: _LaidOut) -> Tensor:
        """Features of the kept tokens, and their positions in further columns, [K, D + C]."""
        positions = laid_out.whole.spans[record.number].positions
        places = laid_out.position_ids[:, positions].to(features.device)  # [3, N]
        keep = self._keep(features, record, laid_out)
        places = places[:, keep].T.to(torch.int32).contiguous()  # [K, 3]
        # The bits of the numbers, since not every dtype has all integers.
        return torch.cat([features[keep], places.view(features.dtype)], dim=1)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """What enters the decoder; positions of visual tokens are taken from their features."""
        self._places = None
        if multimodal_embeddings is not None and len(multimodal_embeddings) > 0:
            assert is_multimodal is not None
            width = self.config.get_text_config().hidden_size
            columns = torch.cat([own[:, width:] for own in multimodal_embeddings])  # [K, C]
            places = columns.contiguous().view(torch.int32).T.long()  # [3, K]
            self._places = is_multimodal.nonzero().flatten(), places
            multimodal_embeddings = [own[:, :width] for own in multimodal_embeddings]
        return super().embed_input_ids(  # type: ignore[misc]
            input_ids, multimodal_embeddings, is_multimodal=is_multimodal
        )

    def forward(
        self, input_ids: Tensor | None, positions: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """The stock forward, with visual tokens at their own positions."""
        if self._places is not None and self._setting.position_ids == "original":
            index, places = self._places
            # In place, because CUDA graphs read positions where vLLM put them.
            positions[:, index.to(positions.device)] = places.to(positions)
        self._places = None
        return super().forward(input_ids, positions, *args, **kwargs)  # type: ignore[misc]


def _grid_fields(
    size: Sequence[int], modality: str, seconds_per_grid: float | None
) -> Mapping[str, Any]:
    """What the stock class reads of an image or video to place its tokens."""
    fields = {f"{modality}_grid_thw": SimpleNamespace(data=torch.tensor(size))}
    if seconds_per_grid is not None:
        fields["second_per_grid_ts"] = SimpleNamespace(data=torch.tensor(seconds_per_grid))
    return fields
