"""The shortcuts that train the tiny models give the numbers of the stock models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import assert_same

from hf_token_compress import load_tiny
from hf_token_compress.scenes import clip_questions, make_clip, make_scene, scene_questions
from hf_token_compress.training.tiny import onevision_architecture, vila_architecture
from hf_token_compress.training.tiny.forward import answer_logits, encode_scenes
from hf_token_compress.training.tiny.onevision_forward import onevision_sight
from hf_token_compress.training.tiny.packing import (
    IGNORED,
    Packer,
    drop_visual_tokens,
    grid_positions,
    sequence_positions,
)
from hf_token_compress.training.tiny.sight import Sight
from hf_token_compress.training.tiny.vila_forward import vila_sight


@pytest.fixture(scope="module", autouse=True)
def without_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=["llava_onevision", "vila"])
def beginner(request: pytest.FixtureRequest) -> tuple[Any, Any, Sight]:
    """A model that sees clips, before its own training, its processor, and how it sees."""
    if request.param == "vila":
        processor: Any = vila_architecture.build_processor()
        model = vila_architecture.build_model(processor.tokenizer).eval()
        return model, processor, vila_sight(model, processor)
    processor = onevision_architecture.build_processor()
    model = onevision_architecture.build_model(processor.tokenizer).eval()
    return model, processor, onevision_sight(model)


def asked(processor: Any, shown: dict[str, Any], question: Any) -> Any:
    """Inputs of one question with its answer, by the processor alone."""
    turns = [
        {"role": "user", "content": [shown, {"type": "text", "text": question.text}]},
        {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
    ]
    return processor.apply_chat_template(
        turns, tokenize=True, return_dict=True, return_tensors="pt"
    )


def check_packing(
    model: Any, processor: Any, packer: Packer, shown: Any, questions: Any, visual: Any, where: Any
) -> None:
    """Logits that predict the answers: packed together, and each in a prompt of its own."""
    every = torch.arange(visual.shape[1])[None]
    batch = packer.pack([questions], where, every)
    logits, labels = answer_logits(model, visual, batch)
    assert len(labels) == int((batch.labels != IGNORED).sum()) > 0
    own_logits, own_labels = [], []
    for question in questions:
        inputs = asked(processor, shown, question)
        answer = processor.tokenizer(question.answer, add_special_tokens=False)["input_ids"]
        # The answer, the end of the turn, and a line break stand last.
        first = inputs["input_ids"].shape[1] - len(answer) - 2
        alone = model(**inputs).logits[0]
        own_logits.append(alone[first - 1 : first + len(answer)])
        own_labels.append(inputs["input_ids"][0, first : first + len(answer) + 1])
    assert torch.equal(labels, torch.cat(own_labels))
    torch.testing.assert_close(logits, torch.cat(own_logits), rtol=1e-4, atol=1e-4)


def test_packed_questions_about_a_picture_qwen2_vl() -> None:
    model, processor = load_tiny("qwen2-vl")
    scene = make_scene(0, 3, 4)
    visual = encode_scenes(model.model.visual, [scene])
    shown = {"type": "image", "image": scene.image}
    packer = Packer(processor.tokenizer)
    # 48 tokens are fewer than the processor's least, so that it would enlarge the picture.
    processor.image_processor.size = {"shortest_edge": 1, "longest_edge": 10**9}
    check_packing(
        model, processor, packer, shown, scene_questions(scene), visual, grid_positions((6, 8))
    )


def check_sight(
    beginner: tuple[Any, Any, Sight], scenes: Any, frames: int, shown: Any, questions: Any
) -> None:
    model, processor, sight = beginner
    tokens, _ = sight.lay_out(sight.encode(scenes), frames)
    packer = Packer(processor.tokenizer, sight.opening, sight.closing)
    positions = sequence_positions(tokens.shape[1])
    check_packing(model, processor, packer, shown, questions, tokens, positions)


def test_packed_questions_about_a_picture(beginner: Any) -> None:
    scene = make_scene(0)
    shown = {"type": "image", "image": scene.image}
    check_sight(beginner, [scene], 0, shown, scene_questions(scene))


def test_packed_questions_about_a_clip(beginner: Any) -> None:
    clip = make_clip(0, 3)
    shown = {"type": "video", "video": clip.images}
    check_sight(beginner, clip.frames, 3, shown, clip_questions(clip))


def test_what_is_text_between_visual_tokens(beginner: Any) -> None:
    """As many tokens are marked as text as the prompt has of it between its placeholders."""
    model, processor, sight = beginner
    clip = make_clip(0, 3)
    _, text = sight.lay_out(sight.encode(clip.frames), 3)
    shown = {"type": "video", "video": clip.images}
    ids = asked(processor, shown, clip_questions(clip)[0])["input_ids"][0]
    visual = ids == model.config.video_token_index
    first, last = visual.nonzero().flatten()[[0, -1]].tolist()
    assert torch.equal(~visual[first : last + 1], text)


def test_the_language_model_comes_from_the_tiny_qwen2_vl(beginner: Any) -> None:
    """The same text gives the same hidden states, for words that both tokenizers know."""
    model, processor, _ = beginner
    source, source_processor = load_tiny("qwen2-vl")
    text = "What is at row 2, column 3?"
    states = []
    for own, own_processor in ((model, processor), (source, source_processor)):
        ids = own_processor.tokenizer(text, return_tensors="pt")["input_ids"]
        states.append(own.model.language_model(input_ids=ids).last_hidden_state)
    assert_same(*states)


@pytest.mark.parametrize(("count", "written"), [(1, []), (136, []), (65, [0, 40, 64])])
def test_dropped_tokens_are_drawn_from_all_visual_ones(count: int, written: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    text = torch.zeros(count, dtype=torch.bool)
    text[written] = True
    kept = [drop_visual_tokens(3, text, generator) for _ in range(200)]
    sizes = {rows.shape[1] - len(written) for rows in kept}
    visual = count - len(written)
    assert max(sizes) == visual
    assert min(sizes) >= max(1, round(0.1 * visual))
    assert min(sizes) < visual or count == 1
    assert torch.cat([rows.flatten() for rows in kept]).unique().tolist() == list(range(count))
    assert all((rows.diff(dim=1) > 0).all() for rows in kept)
    assert all(set(written) <= set(row.tolist()) for rows in kept for row in rows)
