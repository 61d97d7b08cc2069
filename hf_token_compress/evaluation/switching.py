"""Run one model with many settings, in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..compression import compress, uncompress
from ..compression.inputs import is_placeholder, present_modalities
from ..compression.setting import Setting, build_setting
from ..config import TokenCompressionConfig
from ..data.sample import Sample
from ..models.registry import model_family
from ..prompt import Modality
from ..scorers import Scorer
from ..scorers.mapper import MapperScorer
from .digests import weights_digest
from .settings import TRUTH, EvaluationSetting
from .truth import TruthScorer


class SwitchedModel:
    """A model that runs with one setting after the other.

    Scorers are built once. Inside `attached`, the model is compressed; after it, it is as before.

    Args:
        model: An uncompressed model of a supported family.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.family = model_family(type(model))
        self._truth = TruthScorer()
        self._built: list[tuple[EvaluationSetting, Setting]] = []
        self._digests: dict[int, str] = {}

    def prepare(
        self, settings: Iterable[EvaluationSetting], modalities: Iterable[Modality]
    ) -> None:
        """Build the scorers of settings.

        Raises:
            MapperNotFoundError: There is no such mapper.
            TypeError, ValueError: There is no such scorer or option, or it does not fit the model
                or what the samples show.
        """
        for setting in settings:
            if setting.scorer is None or self._find(setting) is not None:
                continue
            built = Setting(setting.config, self._scorer(setting))
            if isinstance(built.scorer, MapperScorer):
                for modality in modalities:
                    built.scorer.mappers.for_modality(modality)
            if id(built.scorer) not in self._digests:
                self._digests[id(built.scorer)] = _digest(built.scorer)
            self._built.append((setting, built))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Around the calls of `running`."""
        # Any cheap scorer will do: no call runs with it.
        compress(self.model, TokenCompressionConfig(scorer="uniform"))
        try:
            yield
        finally:
            uncompress(self.model)

    @contextmanager
    def running(self, setting: EvaluationSetting, samples: Sequence[Sample]) -> Iterator[Any]:
        """The model with a setting, for a batch of these samples."""
        compression = self.model.token_compression
        built = self._find(setting)
        if built is None:
            with compression.disabled():
                yield self.model
            return
        self._truth.samples = samples
        compression.use_setting(self.model, built)
        yield self.model

    def needs_pixels(self, setting: EvaluationSetting) -> bool:
        """Whether features of the vision tower are not enough for a setting."""
        built = self._find(setting)
        return built is None or "vision_attention" in built.scorer.needs

    def visual_tokens(self, inputs: Mapping[str, Any]) -> list[int]:
        """Visual tokens of each uncompressed prompt of a batch."""
        counts = [0] * len(inputs["input_ids"])
        for modality in present_modalities(self.family, dict(inputs)):
            mask: Tensor = is_placeholder(self.model, self.family, dict(inputs), modality)  # [B, S]
            counts = [sum(pair) for pair in zip(counts, mask.sum(1).tolist(), strict=True)]
        return counts

    def digest(self, setting: EvaluationSetting) -> str:
        """A text that changes with the weights of the setting's mapper; "" without one."""
        built = self._find(setting)
        return "" if built is None else self._digests[id(built.scorer)]

    def _find(self, setting: EvaluationSetting) -> Setting | None:
        return next((built for known, built in self._built if known == setting), None)

    def _scorer(self, setting: EvaluationSetting) -> Scorer:
        if setting.scorer == TRUTH:
            return self._truth
        for known, built in self._built:
            if known.scorer == setting.scorer and known.config.scoring == setting.config.scoring:
                return built.scorer
        return build_setting(self.model, setting.config).scorer


def _digest(scorer: Scorer) -> str:
    if not isinstance(scorer, MapperScorer):
        return ""
    return weights_digest(scorer.mappers.mappers.values())
