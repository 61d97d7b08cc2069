"""The models, where their questions come from, and the seeds of both streams of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from hf_token_compress.data.composed import clip_samples, scene_samples
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import CLIP_KINDS, KINDS
from hf_token_compress.data.sources import SampleSource
from hf_token_compress.prompt import Modality

from ..testbed.objects.questions import CLIP_KINDS as OBJECT_CLIP_KINDS
from ..testbed.samples import object_samples
from .rows import RATIOS, Group, Row

Stream = Literal["choosing", "reporting"]
"""Questions that rules were chosen on, and those that figures are reported on."""

TESTBED = "testbed"

# It has not learned to count.
_OBJECT_KINDS = ("place", "attribute", "relation", "presence")


@dataclass(frozen=True)
class Subject:
    """A model, and where its questions come from.

    Attributes:
        model: Name of a tiny model, or "testbed".
        source: "images" or "clips", or of the testbed a source of `object_samples`.
        choosing: First seed of the stream of that name.
        reporting: First seed of the other.
        per_kind: Questions of each kind that rows of the group "main" are asked.
        per_kind_of_others: Questions of each kind that all other rows are asked.
        has_structure: Whether many visual tokens lie on no grid; a video has a single newline.
        frames_per_scene: Of clips of tiny models.
    """

    model: str
    source: str
    choosing: int
    reporting: int
    per_kind: int = 200
    per_kind_of_others: int = 200
    has_structure: bool = False
    frames_per_scene: int = 1

    @property
    def name(self) -> str:
        """What tables call it, and its file."""
        return f"{self.model} {self.source}"

    @property
    def modality(self) -> Modality:
        """What its questions show."""
        return "video" if self.source == "clips" else "image"

    @property
    def dtype(self) -> str:
        """Of the model; the testbed's is that of its files."""
        return "bfloat16" if self.model == TESTBED else "float32"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of its questions."""
        clips = self.source == "clips"
        if self.model == TESTBED:
            return OBJECT_CLIP_KINDS if clips else _OBJECT_KINDS
        return CLIP_KINDS if clips else KINDS

    def seed(self, stream: Stream) -> int:
        """The first seed of a stream."""
        return self.choosing if stream == "choosing" else self.reporting

    def asked(self, group: Group) -> int:
        """Questions of each kind that rows of a group are asked."""
        return self.per_kind if group == "main" else self.per_kind_of_others

    def takes(self, row: Row, ratio: float) -> bool:
        """Whether a row is measured with a ratio."""
        if row.structure_share > 0 and not row.ours and not self.has_structure:
            return False  # the same as without
        # An answer of the testbed takes long.
        wanted = RATIOS if row.group == "main" or self.model != TESTBED else RATIOS[1:]
        return ratio in wanted


_FEW: dict[str, Any] = {"per_kind": 25, "per_kind_of_others": 25}
_TILES: dict[str, Any] = {**_FEW, "has_structure": True}

SUBJECTS: tuple[Subject, ...] = (
    Subject("tiny-qwen2-vl", "images", 3_300_000, 8_000_000),
    Subject("tiny-llava-onevision", "images", 3_300_000, 8_100_000, has_structure=True),
    Subject("tiny-vila", "images", 3_300_000, 8_200_000),
    Subject("tiny-qwen2-vl-video", "images", 3_300_000, 8_300_000),
    Subject(TESTBED, "drawings", 6_000, 8_400_000, **{**_TILES, "per_kind": 100}),
    Subject("tiny-llava-onevision", "clips", 3_300_000, 8_500_000),
    Subject("tiny-vila", "clips", 3_300_000, 8_600_000),
    # This model joins two frames.
    Subject("tiny-qwen2-vl-video", "clips", 3_300_000, 8_700_000, frames_per_scene=2),
    Subject(TESTBED, "rendered", 6_000, 8_800_000, **_TILES),
    Subject(TESTBED, "held-out-artist", 6_000, 8_900_000, **_TILES),
    Subject(TESTBED, "clips", 6_000, 9_000_000, **_FEW),
)
"""All of them, in the order in which they take turns. Seeds are never used elsewhere."""


class Pool(SampleSource):
    """The first questions of a subject: one of each kind after the other.

    Args:
        samples: All its questions, the kinds taken in turn.
        about: What they are.
        count: How many of them.
    """

    def __init__(self, samples: Sequence[Sample], about: dict[str, Any], count: int) -> None:
        self._samples, self._about, self._count = samples, about, count

    @override
    def __len__(self) -> int:
        return self._count

    @override
    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    @override
    def describe(self) -> dict[str, Any]:
        return self._about


def questions_of(subject: Subject, seed: int) -> list[Sample]:
    """All questions of a subject, the kinds taken in turn.

    Raises:
        ImportError: The testbed's renderer is not installed.
    """
    kinds, count = subject.kinds, subject.per_kind
    if subject.model == TESTBED:
        samples = object_samples(kinds, count, source=subject.source, seed=seed)
    elif subject.source == "clips":
        samples = clip_samples(kinds, count, seed=seed, frames_per_scene=subject.frames_per_scene)
    else:
        samples = scene_samples(kinds, count, seed=seed)
    by_kind = ([own for own in samples if own.kind == kind] for kind in kinds)
    return [own for turn in zip(*by_kind, strict=True) for own in turn]
