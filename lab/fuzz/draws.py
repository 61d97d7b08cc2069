"""Draw a trial: a model, a batch of prompts, a setting, and a use of the model."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.tiny import available_mappers, resolve_mapper

from .subjects import IMAGES_ONLY, RANDOM, RENUMBERED, TRAINED, kinds

USES = ("labels", "uncached", "static", "beams", "turn", "own_loop")
_QUESTIONS = (
    "what is at row 1 column 3 ?",
    "where is the cat ?",
    "which colour is at row 2 column 2 ?",
    "how many are there ? count all of them , row by row , and say the number .",
    "?",
)


@dataclass(frozen=True)
class Trial:
    """One prompt in a batch, and what is done with it.

    Attributes:
        model: Name of a trained model or of a random family.
        attention: "sdpa" or "eager".
        prompts: The batch.
        chosen: The prompt that is also asked alone.
        padding_side: Of the forward; `generate` gets the batch padded on the left.
        config: The setting.
        per_call: Whether every call gets the setting, not the model.
        use: One of `USES`.
        steps: Tokens to generate.
    """

    model: str
    attention: str
    prompts: tuple[Any, ...]
    chosen: int
    padding_side: str
    config: TokenCompressionConfig
    per_call: bool
    use: str
    steps: int


def draw_trial(seed: int, number: int, models: tuple[str, ...] = ()) -> Trial:
    """The trial of that number; it depends on the arguments alone.

    Args:
        seed: Seed of the run.
        number: Number of the trial.
        models: Names to choose from; by default all. Random models come more often, as they are
            faster.
    """
    rng = random.Random(f"{seed} {number}")
    names = models or (TRAINED if rng.random() < 0.15 else RANDOM)
    model = rng.choice(names)
    draw = _trained_prompts if model in TRAINED else _random_prompts
    prompts = draw(rng, model)
    return Trial(
        model=model,
        attention=rng.choice(("sdpa", "sdpa", "eager")),
        prompts=prompts,
        chosen=rng.randrange(len(prompts)),
        padding_side=rng.choice(("left", "right")),
        config=_config(rng, model),
        per_call=rng.random() < 0.3,
        use=rng.choice(USES),
        steps=rng.randint(1, 4),
    )


def _config(rng: random.Random, model: str) -> TokenCompressionConfig:
    scorers: list[dict[str, Any]] = [
        {"scorer": "attention"},
        {"scorer": "attention", "scorer_options": {"scoring_depth": 1}},
        {"scorer": "uniform"},
        {"scorer": "random", "scorer_options": {"seed": rng.randrange(100)}},
    ]
    mappers = [name for name in available_mappers() if name.split("/")[0] == f"tiny-{model}"]
    scorers += [{"mapper": resolve_mapper(name)} for name in mappers]
    scorer = rng.choice(scorers)
    sums_to_one = scorer.get("scorer") not in ("uniform", "random")
    moving = () if model in RENUMBERED else ("grid",)
    return TokenCompressionConfig(
        retention_ratio=rng.choice((rng.uniform(0.01, 1.0), 0.25, 0.5, 1.0)),
        min_visual_tokens=rng.choice((0, 0, 0, rng.randint(1, 40))),
        max_visual_tokens=rng.choice((None, None, rng.randint(1, 30))),
        min_tokens_per_visual=rng.choice((1, 0, rng.randint(2, 6))),
        min_tokens_per_frame=rng.choice((0, 0, rng.randint(1, 4))),
        top_p=rng.uniform(0.05, 1.0) if sums_to_one and rng.random() < 0.3 else None,
        position_ids=rng.choice(("original", "original", "compact", *moving)),
        instruction=rng.choice(("last_turn", "last_turn", "after_visual", "all_text")),
        **scorer,
    )


def _random_prompts(rng: random.Random, model: str) -> tuple[Any, ...]:
    """Segments as `tests/support/tiny_models.py` has them."""
    own = kinds(model)
    frames = rng.randint(1, 3)  # videos of one batch are equally long
    with_videos = own.videos and rng.random() < 0.5

    def size(is_video: bool, alone: bool) -> tuple[int, ...]:
        if is_video or own.any_size:
            # Some stock models fail on an image of a single visual token.
            rows, columns = rng.randint(1, 7), rng.randint(1, 7)
            columns += rows * columns == 1
            return (frames, rows, columns) if is_video else (rows, columns)
        return rng.choice(own.alone if alone else own.together)

    def prompt() -> tuple[Any, ...]:
        count = rng.choice((0, 1, 1, 1, 2, 2, 3))
        videos = [with_videos and (not own.mixed or rng.random() < 0.6) for _ in range(count)]
        segments: list[Any] = [rng.randint(1, 6)]
        for is_video in videos:
            segments += [size(is_video, videos.count(False) == 1), rng.randint(1, 5)]
            if rng.random() < 0.3:
                segments += ["end", rng.randint(1, 4)]
        # The last four tokens are text, so that labels can stand on them.
        segments.append(rng.randint(2, 6))
        segments += rng.choice((["end", 2], [3]))
        return tuple(segments)

    return tuple(prompt() for _ in range(rng.choice((1, 1, 2, 2, 3, 4))))


def _trained_prompts(rng: random.Random, model: str) -> tuple[Any, ...]:
    """Images (seed, rows, columns), clips (seed, frames, rows, columns) and questions."""
    is_video = model not in IMAGES_ONLY and rng.random() < 0.4
    frames, rows, columns = rng.choice((2, 4)), rng.randint(1, 3), rng.randint(1, 4)

    def visual() -> tuple[int, ...]:
        if is_video:
            return rng.randrange(8), frames, rows, columns
        return rng.randrange(8), rng.randint(1, 4), rng.randint(1, 4)

    def prompt() -> tuple[Any, ...]:
        count = rng.choice((0, 1, 1, 1, 1) if is_video else (0, 1, 1, 1, 2))
        return (*(visual() for _ in range(count)), rng.choice(_QUESTIONS))

    return tuple(prompt() for _ in range(rng.choice((1, 1, 2, 3))))
