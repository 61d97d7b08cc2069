"""In the workers: score what the tower made of an image, and hand on the tokens that stay."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override
from vllm.multimodal.inputs import PlaceholderRange

from ...models.family import ModelFamily
from ...models.registry import FAMILIES
from ...prompt import MODALITIES, MultimodalPrompt
from ...scorers.base import check_finite, checked_scores, own_rule
from ...selection import keep_of_visuals
from ...word_statistics import WordStatistics
from .engine import check_engine
from .processor import record_field
from .prompts import VisualRecord, WholePrompt, kept_prompt_positions
from .scoring import FirstLayer, identify, of_first_rank
from .setting import make_scorer, server_setting


class CompressedModel:
    """A mixin that stands before the stock class of a model without positions on a grid.

    Attributes:
        has_grid_positions: As in `server_setting`.
    """

    has_grid_positions = False
    config: Any
    language_model: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        check_engine(vllm_config, has_grid_positions=self.has_grid_positions)
        model_config = vllm_config.model_config
        hf_config = model_config.hf_config
        setting = server_setting(hf_config, has_grid_positions=self.has_grid_positions)
        scorer = make_scorer(setting)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self._setting, self._scorer = setting, scorer
        self._model_config = model_config
        family = FAMILIES.find(hf_config.model_type)
        assert family is not None, hf_config.model_type
        self._family: ModelFamily = family()
        generation = model_config.try_get_generation_config()
        # Where a family finds special tokens.
        named = SimpleNamespace(config=hf_config, generation_config=SimpleNamespace(**generation))
        self._structure_ids = self._family.structure_ids(named)
        self._turn_end_ids = self._family.turn_end_ids(named)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the weights, and check that a mapper was trained for this model."""
        loaded: set[str] = super().load_weights(weights)  # type: ignore[misc]
        self._scorer.check_model(lambda: identify(self._model_config, self._first_layer))
        return loaded

    def embed_multimodal(self, **kwargs: Any) -> Sequence[Tensor]:
        """The tokens of each image or video that stay, float [K, D] each."""
        records = [
            VisualRecord.from_tensor(own)
            for name in kwargs  # in the order of the features
            for modality in MODALITIES
            if name == record_field(modality)
            for own in kwargs[name]
        ]
        stock = {
            name: own for name, own in kwargs.items() if name not in map(record_field, MODALITIES)
        }
        features = super().embed_multimodal(**stock)  # type: ignore[misc]
        return tuple(self._kept(own, record) for own, record in zip(features, records, strict=True))

    def _kept(self, features: Tensor, record: VisualRecord) -> Tensor:
        """The tokens of an image or video, [N, D], that stay, [K, D]."""
        whole = WholePrompt.of(self._family, self.config, record)
        return features[self._keep(features, record, whole, torch.arange(len(whole.input_ids)))]

    def _keep(
        self, features: Tensor, record: VisualRecord, whole: WholePrompt, position_ids: Tensor
    ) -> Tensor:
        """Which tokens stay, int64 [K]; `position_ids`, int64 [A, S] or [S], are the prompt's."""
        device = features.device
        if record.kept == len(features):
            return torch.arange(record.kept, device=device)
        config = record.config
        prompt = whole.of_visual(
            record.number,
            position_ids,
            whole.instruction_mask(self._structure_ids, self._turn_end_ids, config),
            functools.partial(self._embed, features),
            device,
        )
        scores = self._score(prompt)
        ((span,),) = prompt.visuals
        rule = own_rule(self._scorer, prompt, config.scorer_name)
        positions = span.positions.to(device)
        keep = keep_of_visuals(
            [span],
            scores[0, positions],
            config,
            embed=lambda: prompt.inputs_embeds[0, positions].float(),
            own_rule=None if rule is None else functools.partial(rule, 0),
        )
        kept = keep.nonzero().flatten()
        assert len(kept) == record.kept, (len(kept), record.kept)
        # Ranks may round differently, but must agree.
        return of_first_rank(kept)

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
        whole = WholePrompt.of(self._family, self.config, record)
        kept = [feature.mm_position.length for feature in features]
        shortened = any(
            count < len(span.positions) for count, span in zip(kept, whole.spans, strict=True)
        )
        if shortened and record.config.position_ids == "compact":
            return torch.arange(len(input_tokens)).expand(3, -1), 0
        positions, delta = self._stock_positions(whole, record)
        return kept_prompt_positions(positions, delta, whole.spans, kept, len(input_tokens))

    def _stock_positions(self, whole: WholePrompt, record: VisualRecord) -> tuple[Tensor, int]:
        """Positions of the whole prompt by the stock class, int64 [3, S], and what follows."""
        features = [
            SimpleNamespace(
                modality=visual.modality,
                mm_position=PlaceholderRange(int(span.positions[0]), len(span.positions)),
                data=_grid_fields(visual.size, visual.modality, visual.seconds_per_grid),
            )
            for visual, span in zip(record.visuals, whole.spans, strict=True)
        ]
        return super().get_mrope_input_positions(whole.input_ids.tolist(), features)  # type: ignore[misc]

    @override
    def _kept(self, features: Tensor, record: VisualRecord) -> Tensor:
        """Features of the kept tokens, and their positions in further columns, [K, D + C]."""
        whole = WholePrompt.of(self._family, self.config, record)
        position_ids, _ = self._stock_positions(whole, record)  # [3, S]
        keep = self._keep(features, record, whole, position_ids)
        places = position_ids[:, whole.spans[record.number].positions]  # [3, N]
        places = places.to(features.device)[:, keep].T.to(torch.int32).contiguous()  # [K, 3]
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
