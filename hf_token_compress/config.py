"""The user's settings: which visual tokens to keep, and how to choose them."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from packaging.version import InvalidVersion, Version

from ._version import __version__
from .checks import refuse_unknown
from .notices import warn
from .options import check_options, documented, option

PositionIdPolicy = Literal["original", "grid", "compact"]
Selection = Literal["top_k", "diverse"]
InstructionScope = Literal["last_turn", "after_visual", "all_text"]
Modality = Literal["image", "video"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
Targets = Literal["per_token", "sum"]
Network = Literal["conv1d", "grid"]
MapperInputName = Literal["attention", "text", "embedding"]
SettingLike = Mapping[str, Any] | float | str
"""A `TokenCompressionConfig`, its dict, a retention ratio, or a mapper's folder or Hub id."""

SCORING = frozenset({"scorer", "scorer_options", "mapper", "mapper_revision"})
"""Settings that say how tokens are scored."""

DEFAULT_RULE = "edges_absolute"
"""The relevance rule whose removal curves were best on the trained tiny model."""

INSTRUCTION_HELP = (
    'Text that asks the question. "last_turn": the last closed turn after the last visual token; '
    '"after_visual": all text after the last visual token; "all_text": all text.'
)

DEFAULT_SCORER = "gated_fusion"
"""What scores without a mapper: the best untrained scorer (docs/leaderboard.md)."""

_NUMBER = re.compile(r"\s*[0-9.]+\s*%?\s*")
_VERSION_KEY = "hf_token_compress_version"
_AS_BEFORE: Mapping[str, Any] = {"structure_share": 0.0, "selection": "top_k"}
"""Options that saved settings may lack, with values that leave these as they were."""


@documented
@dataclass(frozen=True)
class TokenCompressionConfig(dict[str, Any]):
    """Which visual tokens a prompt keeps.

    It cannot be changed: `dataclasses.replace` makes another one. It is also a dict of its
    settings, because Transformers logs a keyword of `from_pretrained` as JSON if config.json has an
    entry of that name.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range, or two values contradict each other.
    """

    retention_ratio: float = option(
        0.5,
        "Share of the visual tokens to keep. 1.0 keeps all. With top_p it is the upper limit.",
        "(0, 1]",
    )
    min_visual_tokens: int = option(
        16, "Prompts with fewer visual tokens than this are left alone.", "[0, inf)"
    )
    max_visual_tokens: int | None = option(
        None, "Most visual tokens that a prompt keeps. By default there is no maximum.", "[1, inf)"
    )
    min_tokens_per_visual: int = option(
        1,
        "Visual tokens that every image or video keeps. It overrides the ratio and the maximum.",
        "[0, inf)",
    )
    min_tokens_per_frame: int = option(
        0,
        "Visual tokens that every frame of a video keeps. It overrides the ratio and the maximum. "
        "Models that join frames (Qwen2-VL: two and two) count joined frames.",
        "[0, inf)",
    )
    top_p: float | None = option(
        None,
        "Keep the fewest visual tokens whose scores sum to this share of the total. Easy "
        "questions then keep fewer.",
        "(0, 1]",
    )
    structure_share: float = option(
        0.25,
        "Largest share of the kept visual tokens that goes, before scores count, to tokens that "
        "only separate others, such as the newline after each row of an image. 0 treats them as "
        "any other token.",
        "[0, 1]",
    )
    selection: Selection | None = option(
        None,
        '"top_k" keeps the visual tokens with the highest scores; "diverse" those that score high '
        f'and are unlike the ones already kept. By default "diverse" with "{DEFAULT_SCORER}", and '
        '"top_k" with all others.',
    )
    scorer: str | None = option(
        None,
        'Name of the scorer. By default "mapper" if a mapper is named, else '
        f'"{DEFAULT_SCORER}", which needs no training; with top_p, whose scores must be shares, '
        '"attention".',
    )
    scorer_options: dict[str, Any] = option(
        {}, 'Keyword arguments of the scorer, such as seed=1 for "random".'
    )
    mapper: str | None = option(
        None, 'Folder or Hub id of the trained mapper that the scorer "mapper" uses.'
    )
    mapper_revision: str | None = option(None, "Branch, tag or commit of the mapper on the Hub.")
    position_ids: PositionIdPolicy = option(
        "original",
        '"original" keeps the position ids of the whole prompt; "grid" keeps the grid inside each '
        "image and video, and moves what follows up behind the last row or column that is kept; "
        '"compact" numbers the kept tokens 0, 1, 2, … on every axis.',
    )
    instruction: InstructionScope = option("last_turn", INSTRUCTION_HELP)
    pad_to_multiple_of: int | None = option(
        None,
        "Pad prompts to a multiple of this many tokens, so that compiled models and CUDA graphs "
        "see few lengths. By default only prompts that are shorter than others are padded.",
        "[1, inf)",
    )

    def __post_init__(self) -> None:
        check_options(self)
        # A copy, which the caller's changes do not reach.
        object.__setattr__(self, "scorer_options", copy.deepcopy(dict(self.scorer_options)))
        if self.scorer == "mapper" and self.mapper is None:
            raise ValueError(
                "scorer='mapper' needs a trained mapper: pass mapper='<folder or Hub id>', train "
                "one with `hf-token-compress collect` and `train`, or leave scorer out: the "
                "default needs no training."
            )
        if self.mapper is not None and self.scorer not in (None, "mapper"):
            raise ValueError(
                f"mapper={self.mapper!r} is not used by scorer={self.scorer!r}: leave one of the "
                "two out, or use scorer='mapper'."
            )
        if self.top_p is not None and self.selection_name != "top_k":
            raise ValueError(
                "top_p keeps the tokens with the highest scores, but "
                f"selection={self.selection_name!r} does not: leave top_p out, or use "
                "selection='top_k'."
            )
        if self.mapper_revision is not None and self.mapper is None:
            raise ValueError("mapper_revision is given without a mapper: name the mapper too.")
        super().update({**dataclasses.asdict(self), _VERSION_KEY: __version__})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (dict(self),)

    def _refuse_change(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "A TokenCompressionConfig cannot be changed: make another one with dataclasses.replace."
        )

    __setitem__ = __delitem__ = __ior__ = _refuse_change
    clear = popitem = setdefault = update = _refuse_change

    def pop(self, key: str, *default: Any) -> Any:
        """Give `default` for a key that is no setting, as Transformers asks on its way to JSON."""
        if key in self:
            self._refuse_change()
        return super().pop(key, *default)

    @property
    def scorer_name(self) -> str:
        """Name of the scorer that is used, after defaults."""
        if self.scorer is not None:
            return self.scorer
        if self.mapper is not None:
            return "mapper"
        return DEFAULT_SCORER if self.top_p is None else "attention"

    @property
    def selection_name(self) -> Selection:
        """How tokens are chosen from their scores, after defaults."""
        if self.selection is not None:
            return self.selection
        return "diverse" if self.scorer_name == DEFAULT_SCORER else "top_k"

    @property
    def scoring(self) -> tuple[Any, ...]:
        """What the scorer is made from; settings that are equal in it share one."""
        # The dict holds copies, which the caller's changes do not reach.
        options = self["scorer_options"]
        return self.scorer_name, options, self.mapper, self.mapper_revision

    @classmethod
    def coerce(cls, value: SettingLike) -> TokenCompressionConfig:
        """Read a config, its dict, a retention ratio, or a mapper's folder or Hub id.

        Raises:
            TypeError: `value` is none of these.
            ValueError: A setting is unknown or outside its range.
        """
        return value if isinstance(value, cls) else cls.from_dict(_named(value))

    def changed(self, changes: SettingLike) -> TokenCompressionConfig:
        """This setting with changes, in the forms that `coerce` reads; a config replaces it.

        Another scorer or mapper starts from its own defaults, not from the options of this one.

        Raises:
            TypeError, ValueError: As in `coerce`.
        """
        if isinstance(changes, TokenCompressionConfig):
            return changes
        changes = _named(changes)
        other = "mapper" in changes or changes.get("scorer", self.scorer_name) != self.scorer_name
        return self.from_dict({**(self.with_scoring() if other else self), **changes})

    def with_scoring(self, **scoring: Any) -> TokenCompressionConfig:
        """This setting with another scorer or mapper, or with the default one."""
        defaults: dict[str, Any] = {
            "scorer": None,
            "scorer_options": {},
            "mapper": None,
            "mapper_revision": None,
        }
        return dataclasses.replace(self, **{**defaults, **scoring})

    def to(self, *args: Any, **kwargs: Any) -> TokenCompressionConfig:
        """This setting: Accelerate and DDP move the arguments of a call to a device."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types, with the version of the library that wrote them."""
        return dict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TokenCompressionConfig:
        """Read what `to_dict` wrote; what a later version added is named in a warning.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A setting is unknown, or a value is outside its range.
        """
        written_by = settings.get(_VERSION_KEY)
        if written_by is not None:
            if "selection" not in settings and settings.get("mapper") is None:
                # The default scorer was another one.
                settings = {**settings, "scorer": settings.get("scorer") or "attention"}
            settings = {**_AS_BEFORE, **settings}
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = [name for name in settings if name not in {*known, _VERSION_KEY}]
        if not _is_later(written_by):
            refuse_unknown("token_compression", "setting", unknown, known)
        elif unknown:
            warn(
                f"hf_token_compress {__version__} does not know and ignores these settings of "
                f"token_compression (written by version {written_by}): "
                f"{', '.join(sorted(map(str, unknown)))}."
            )
        return cls(**{name: value for name, value in settings.items() if name in known})


def _named(value: SettingLike) -> Mapping[str, Any]:
    """The settings that a dict, a number or a text names."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) and not Path(value).exists():
            raise ValueError(
                f"token_compression={value!r} is text, which names a mapper: pass the share of the "
                "visual tokens to keep as a number, such as 0.25."
            )
        return {"mapper": value}
    if isinstance(value, Real) and not isinstance(value, bool):
        return {"retention_ratio": value}
    found = value if isinstance(value, bool) else type(value).__name__
    raise TypeError(
        "token_compression must be a TokenCompressionConfig, its dict, a retention ratio, or the "
        f"folder or Hub id of a mapper, not {found}."
    )


def _is_later(version: object) -> bool:
    """Whether a version of the library, as a setting names it, is later than this one."""
    try:
        return Version(str(version)) > Version(__version__)
    except InvalidVersion:
        return False
