"""The user's settings: which visual tokens to keep, and how to choose them."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, get_args

from ._version import __version__
from .checks import check_choice, check_count, check_keyword_arguments, check_share

PositionIdPolicy = Literal["original", "compact"]
InstructionScope = Literal["last_turn", "after_visual", "all_text"]

_VERSION_KEY = "hf_token_compress_version"


@dataclass(frozen=True)
class TokenCompressionConfig(dict[str, Any]):
    """How many visual tokens a prompt keeps, and by which scores.

    It cannot be changed: `dataclasses.replace` makes another one. It is a dict of its settings too,
    because Transformers writes a keyword of `from_pretrained` to its log as JSON where config.json
    has an entry of that name.

    Args:
        retention_ratio: Share of a prompt's visual tokens that is kept, in (0, 1]. 1.0 keeps all.
            With `top_p` it is the most that is kept.
        min_visual_tokens: Prompts with fewer visual tokens than this are left alone, at least 0.
        max_visual_tokens: Cap on the visual tokens that a prompt keeps, at least 1; None for none.
        min_tokens_per_visual: Visual tokens that every image or video of a prompt keeps, at
            least 0. It outweighs the ratio and the cap where they ask for fewer.
        min_tokens_per_frame: Visual tokens that every frame of a video keeps, at least 0. It
            outweighs the ratio and the cap too. Models that join frames (Qwen2-VL: two and two)
            count joined ones.
        top_p: If given, a prompt keeps the fewest visual tokens whose scores sum to this share of
            the total, in (0, 1], so that an easy question keeps fewer.
        scorer: Name of the scorer, one of `hf_token_compress.scorers.available_scorers()`. By
            default "mapper" where a mapper is named, else "attention", which needs no training.
        scorer_options: Keyword arguments of the scorer, for instance `{"seed": 1}` for "random".
        mapper: Folder or Hub id of the trained mapper that the scorer "mapper" uses.
        mapper_revision: Branch, tag or commit of `mapper` on the Hub.
        position_ids: "original" keeps the position ids that the tokens have in the whole prompt;
            "compact" renumbers them 0, 1, 2, … on every axis.
        instruction: The text rows that ask the question. "last_turn": the last closed turn after
            the last visual token; "after_visual": all text after the last visual token;
            "all_text": every text token.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is outside its range, or two values contradict each other.
    """

    retention_ratio: float = 0.5
    min_visual_tokens: int = 16
    max_visual_tokens: int | None = None
    min_tokens_per_visual: int = 1
    min_tokens_per_frame: int = 0
    top_p: float | None = None
    scorer: str | None = None
    scorer_options: dict[str, Any] = field(default_factory=dict)
    mapper: str | None = None
    mapper_revision: str | None = None
    position_ids: PositionIdPolicy = "original"
    instruction: InstructionScope = "last_turn"

    def __post_init__(self) -> None:
        check_share("retention_ratio", self.retention_ratio)
        if self.top_p is not None:
            check_share("top_p", self.top_p)
        check_count("min_visual_tokens", self.min_visual_tokens, at_least=0)
        check_count("min_tokens_per_visual", self.min_tokens_per_visual, at_least=0)
        check_count("min_tokens_per_frame", self.min_tokens_per_frame, at_least=0)
        if self.max_visual_tokens is not None:
            check_count("max_visual_tokens", self.max_visual_tokens, at_least=1)
        for name in ("scorer", "mapper", "mapper_revision"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a string or None, not {type(value).__name__}.")
        check_keyword_arguments("scorer_options", self.scorer_options)
        check_choice("position_ids", self.position_ids, get_args(PositionIdPolicy))
        check_choice("instruction", self.instruction, get_args(InstructionScope))
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

    def to_json(self) -> str:
        """All settings as JSON text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)

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

    @classmethod
    def from_json(cls, text: str) -> TokenCompressionConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: `text` is not a JSON object, or a value is outside its range.
        """
        try:
            settings = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"The token compression settings are not valid JSON ({error}); the file may be cut "
                "off."
            ) from error
        if not isinstance(settings, dict):
            raise ValueError(
                "The token compression settings must be a JSON object, not a "
                f"{type(settings).__name__}."
            )
        return cls.from_dict(settings)
