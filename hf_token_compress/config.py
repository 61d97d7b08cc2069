"""The user's settings: which visual tokens to keep, and how to choose them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ._version import __version__
from .options import check_options, documented, option

PositionIdPolicy = Literal["original", "compact"]
InstructionScope = Literal["last_turn", "after_visual", "all_text"]
Modality = Literal["image", "video"]
Targets = Literal["per_token", "sum"]
Network = Literal["conv1d", "grid"]

DEFAULT_RULE = "edges_absolute"
"""The relevance rule whose removal curves were best on the trained tiny model."""

INSTRUCTION_HELP = (
    'Text that asks the question. "last_turn": the last closed turn after the last visual token; '
    '"after_visual": all text after the last visual token; "all_text": all text.'
)

_VERSION_KEY = "hf_token_compress_version"


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
    scorer: str | None = option(
        None,
        'Name of the scorer. By default "mapper" if a mapper is named, else "attention", which '
        "needs no training.",
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
        '"original" keeps the position ids of the whole prompt; "compact" numbers the kept tokens '
        "0, 1, 2, … on every axis.",
    )
    instruction: InstructionScope = option("last_turn", INSTRUCTION_HELP)

    def __post_init__(self) -> None:
        check_options(self)
        if self.scorer == "mapper" and self.mapper is None:
            raise ValueError(
                "scorer='mapper' needs a trained mapper: pass mapper='<folder or Hub id>', train "
                "one with `hf-token-compress collect` and `train`, or use scorer='attention', "
                "which needs no training."
            )
        if self.mapper is not None and self.scorer not in (None, "mapper"):
            raise ValueError(
                f"mapper={self.mapper!r} is not used by scorer={self.scorer!r}: leave one of the "
                "two out, or use scorer='mapper'."
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
        return "mapper" if self.mapper is not None else "attention"

    @classmethod
    def coerce(
        cls, value: TokenCompressionConfig | Mapping[str, Any] | str
    ) -> TokenCompressionConfig:
        """Read a config, its dict, or a mapper's folder or Hub id.

        Raises:
            TypeError: `value` is none of these.
            ValueError: A setting is outside its range.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        if isinstance(value, str):
            return cls(mapper=value)
        raise TypeError(
            "token_compression must be a TokenCompressionConfig, its dict, or the folder or Hub id "
            f"of a mapper, not {type(value).__name__}."
        )

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types, with the version of the library that wrote them."""
        return dict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TokenCompressionConfig:
        """Read what `to_dict` wrote; keys that this version does not know are named in a warning.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is outside its range.
        """
        written_by = settings.get(_VERSION_KEY)
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(map(str, set(settings) - known - {_VERSION_KEY}))
        if unknown:
            source = f" (written by version {written_by})" if written_by else ""
            warnings.warn(
                f"hf_token_compress {__version__} does not know and ignores these settings of "
                f"token_compression{source}: {', '.join(unknown)}.",
                UserWarning,
                stacklevel=2,
            )
        return cls(**{name: value for name, value in settings.items() if name in known})
