"""Read the setting of a server and of a request, and refuse what vLLM cannot serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...compression.setting import check_selection, scorer_of
from ...config import SCORING, SettingLike, TokenCompressionConfig
from ...scorers import Scorer

KEY = "token_compression"
"""What the setting is called in config.json, in `hf_overrides` and in `mm_processor_kwargs`."""

_OF_SERVER = SCORING | {"position_ids", "instruction", "top_p", "pad_to_multiple_of"}
"""Settings that a request cannot change."""

_COMPUTED = frozenset({"scoring_layer", "unrotated_layer", "word_statistics"})
"""What a scorer may need here."""


def server_setting(hf_config: Any, *, has_grid_positions: bool) -> TokenCompressionConfig:
    """The setting of a server.

    Args:
        hf_config: Configuration of the model, with the entries of `hf_overrides`.
        has_grid_positions: Whether visual tokens have positions of their own: time, height, width.

    Raises:
        TypeError, ValueError: There is none, or vLLM cannot serve it.
    """
    saved = getattr(hf_config, KEY, None)
    if saved is None:
        raise ValueError(
            "A compressed architecture needs token_compression in config.json or hf_overrides: add "
            "for instance 'token_compression': 0.25 to hf_overrides."
        )
    config = TokenCompressionConfig.coerce(saved)
    if config.top_p is not None:
        raise ValueError(
            "vLLM must know how many tokens stay before it encodes an image, but with top_p their "
            "scores decide that: use retention_ratio or max_visual_tokens instead."
        )
    if config.pad_to_multiple_of is not None:
        raise ValueError("vLLM does not pad prompts: leave pad_to_multiple_of out.")
    allowed = ("original", "compact") if has_grid_positions else ("compact",)
    if config.position_ids not in allowed:
        raise ValueError(
            f"vLLM cannot number the tokens of {hf_config.model_type} by "
            f"position_ids={config.position_ids!r}: use {' or '.join(map(repr, allowed))}."
        )
    return config


def request_setting(
    server: TokenCompressionConfig, changes: SettingLike, scorer: Callable[[], Scorer]
) -> TokenCompressionConfig:
    """The setting of a request that changes the server's.

    Args:
        server: The setting of the server.
        changes: What the request changes.
        scorer: Gives the scorer of the server, which allows some selections only.

    Raises:
        TypeError, ValueError: A setting is unknown, outside its range, the server's alone, or not
            for this scorer.
    """
    if isinstance(changes, str):
        changes = {"mapper": changes}
    config = server.changed(changes)
    for name in sorted(_OF_SERVER):
        if getattr(config, name) != getattr(server, name):
            raise ValueError(
                f"A request cannot change {name}: start the server with it, in "
                "hf_overrides={'token_compression': …}."
            )
    if config.selection_name != server.selection_name:
        check_selection(config, scorer())
    return config


def make_scorer(config: TokenCompressionConfig) -> Scorer:
    """The scorer of a server.

    Raises:
        MapperNotFoundError: There is no such mapper.
        ValueError: There is no such scorer, or it needs what vLLM does not have.
    """
    scorer = scorer_of(config)
    check_selection(config, scorer)
    missing = scorer.needs - _COMPUTED
    if missing:
        raise ValueError(
            f"The scorer {config.scorer_name!r} needs {' and '.join(sorted(missing))}, which vLLM "
            "does not have: choose another one, such as 'attention' or 'mapper'."
        )
    if scorer.scoring_depth > 0:
        raise ValueError(
            f"The scorer {config.scorer_name!r} reads decoder layer {scorer.scoring_depth}, but in "
            "vLLM only layer 0 runs before the prompt is cut: leave scoring_depth at 0."
        )
    return scorer
