"""Measure a trained tiny model on images that training never shows.

    python -m lab.tiny.evaluate MODEL_FOLDER [--held-out ATLAS_FOLDER]

Answers come from the stock Transformers model through its processor and `generate`, and must equal
the expected answer. On pruned prompts the greedy answer is checked token by token, which is the
same test without a generation loop.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_token_compress.data.scenes import KINDS, Question, Scene, make_scene, scene_questions
from hf_token_compress.data.scenes.drawings import Drawings, load_drawings

from ..arguments import add_threads, make_parser, positive, set_threads
from ..loading import load_model
from .forward import encode_images, patches_of
from .packing import Packer, grid_positions
from .scoring import right_answers
from .selection import instruction_attention, relevance, top, uniform

SHAPES = ((4, 4), (4, 5), (5, 4), (5, 5), (4, 6), (6, 6), (5, 8), (8, 8))
PRUNED_SHAPES = ((4, 4), (6, 6))
RATIOS = (0.5, 0.25, 0.125)

Outcome = dict[str, list[bool]]


def asked_scenes(
    count: int, shape: tuple[int, int], drawings: Drawings | None = None
) -> Iterator[tuple[Scene, list[Question]]]:
    """Test scenes, each with one question of every kind that it has."""
    for seed in range(count):
        scene = make_scene(seed, *shape, split="test", drawings=drawings)
        yield scene, scene_questions(scene, KINDS, seed=seed)


@torch.no_grad()
def generated_answers(
    model: Any, processor: Any, scene: Scene, questions: Sequence[Question]
) -> list[str]:
    """Generate answers to several questions about one scene, one prompt per question."""
    conversations = [
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": question.text}],
            }
        ]
        for question in questions
    ]
    prompts = [processor.apply_chat_template(c, add_generation_prompt=True) for c in conversations]
    inputs = processor(
        images=[scene.image] * len(prompts),
        text=prompts,
        return_tensors="pt",
        padding=True,
        padding_side="left",
    )
    output = model.generate(**inputs, max_new_tokens=8)
    return processor.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )


def accuracy_in_full(
    model: Any,
    processor: Any,
    count: int,
    shape: tuple[int, int],
    drawings: Drawings | None = None,
) -> Outcome:
    """Which answers are right with all visual tokens, by kind."""
    outcome: Outcome = defaultdict(list)
    for scene, questions in asked_scenes(count, shape, drawings):
        answers = generated_answers(model, processor, scene, questions)
        for question, answer in zip(questions, answers, strict=True):
            outcome[question.kind].append(answer == question.answer)
    return dict(outcome)


@torch.no_grad()
def accuracy_when_pruned(
    model: Any, processor: Any, count: int, shape: tuple[int, int]
) -> dict[str, Outcome]:
    """Which answers are right by kind, for each way and ratio of keeping visual tokens."""
    packer = Packer(processor.tokenizer)
    grid = (2 * shape[0], 2 * shape[1])
    total = grid[0] * grid[1]
    positions = grid_positions(grid)
    outcomes: dict[str, Outcome] = defaultdict(lambda: defaultdict(list))
    generator = torch.Generator().manual_seed(0)
    for scene, questions in asked_scenes(count, shape):
        tokens = encode_images(model.model.visual, patches_of([scene.image]), grid)
        tokens = tokens.expand(len(questions), -1, -1)
        single = [[question] for question in questions]
        every = torch.arange(total).expand(len(questions), total)
        ranked = {
            "relevant + random": relevance(questions, grid, generator),
            "layer-0 attention": instruction_attention(
                model, tokens, packer.pack(single, positions, every)
            ),
            "random": torch.rand(len(questions), total, generator=generator),
        }
        for ratio in RATIOS:
            keep = max(1, round(ratio * total))
            ways = {way: top(scores, keep) for way, scores in ranked.items()}
            ways["uniform"] = uniform(len(questions), total, keep)
            for way, kept in ways.items():
                batch = packer.pack(single, positions, kept)
                right = right_answers(model, tokens, batch, single)
                for question, (hit,) in zip(questions, right, strict=True):
                    outcomes[f"{way} {ratio:.1%}"][question.kind].append(hit)
    return {name: dict(outcome) for name, outcome in outcomes.items()}


def summary(outcome: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, float]]:
    """Accuracy, standard error and number of questions, by kind.

    The error counts one more right and one more wrong answer, so that a perfect score still has an
    error.
    """
    result = {}
    for kind in KINDS:
        hits = outcome.get(kind, ())
        if hits:
            mean = sum(hits) / len(hits)
            added = (sum(hits) + 1) / (len(hits) + 2)
            error = (added * (1 - added) / (len(hits) + 2)) ** 0.5
            result[kind] = {"accuracy": mean, "standard_error": error, "n": len(hits)}
    return result


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown table with one line per condition: percent ± standard error by kind."""
    lines = ["| |" + "|".join(KINDS) + "|n|", "|---" * (len(KINDS) + 2) + "|"]
    for name, kinds in results.items():
        cells = []
        for kind in KINDS:
            if kind in kinds:
                value, error = kinds[kind]["accuracy"], kinds[kind]["standard_error"]
                cells.append(f"{100 * value:.1f} ± {100 * error:.1f}")
            else:
                cells.append("–")
        count = max(int(value["n"]) for value in kinds.values())
        lines.append(f"|{name}|" + "|".join(cells) + f"|{count}|")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = make_parser("lab.tiny.evaluate", __doc__)
    parser.add_argument("model", help="model folder")
    parser.add_argument("--held-out", type=Path, help="atlas folder of a held-out artist")
    parser.add_argument(
        "--scenes", type=positive, default=300, help="4x4 scenes; a third of other sizes"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the model"
    )
    add_threads(parser)
    options = parser.parse_args(arguments)
    set_threads(options)
    model, processor = load_model(options.model, dtype=options.dtype)

    results = {}
    for shape in SHAPES:
        count = options.scenes if shape == (4, 4) else max(1, options.scenes // 3)
        name = f"{shape[0]}x{shape[1]}, {4 * shape[0] * shape[1]} tokens"
        results[name] = summary(accuracy_in_full(model, processor, count, shape))
        print(table({name: results[name]}).splitlines()[-1], flush=True)
    if options.held_out:
        drawings = load_drawings(options.held_out)
        outcome = accuracy_in_full(model, processor, options.scenes, (4, 4), drawings)
        results["4x4, held-out artist"] = summary(outcome)
    for shape in PRUNED_SHAPES:
        count = options.scenes if shape == (4, 4) else max(1, options.scenes // 3)
        for name, outcome in accuracy_when_pruned(model, processor, count, shape).items():
            results[f"{shape[0]}x{shape[1]}, {name}"] = summary(outcome)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
