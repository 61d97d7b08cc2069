"""The shortcuts that train the tiny models give the numbers of the stock models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import assert_same

from hf_token_compress import load_tiny
from hf_token_compress.scenes import clip_questions, make_clip, make_scene, scene_questions
from hf_token_compress.training.tiny import onevision_architecture as onevision
from hf_token_compress.training.tiny import qwen2_vl_video
from hf_token_compress.training.tiny.forward import answer_logits, encode_scenes
from hf_token_compress.training.tiny.onevision_forward import (
    clip_tokens,
    encode_tiles,
    image_tokens,
    tile_pixels,
)
from hf_token_compress.training.tiny.packing import (
    IGNORED,
    Packer,
    drop_visual_tokens,
    grid_positions,
    sequence_positions,
)
from hf_token_compress.training.tiny.processor import build_processor, clip_words


@pytest.fixture(scope="module", autouse=True)
def without_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny_onevision() -> Any:
    processor = onevision.build_processor()
    return onevision.build_model(processor.tokenizer).eval(), processor


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
    torch.testing.assert_close(logits, torch.cat(own_logits), rtol=1e-3, atol=1e-3)


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


def test_packed_questions_about_a_picture_llava_onevision(tiny_onevision: Any) -> None:
    model, processor = tiny_onevision
    scene = make_scene(0)
    visual = image_tokens(model, encode_tiles(model, tile_pixels([scene.image])))
    packer = Packer(processor.tokenizer, onevision.OPENING, onevision.CLOSING)
    positions = sequence_positions(visual.shape[1])
    shown = {"type": "image", "image": scene.image}
    check_packing(model, processor, packer, shown, scene_questions(scene), visual, positions)


@pytest.mark.parametrize(
    ("boards", "rows", "columns", "hold"),
    [(3, 2, 3, 1), (2, 2, 2, 2), (5, 1, 1, 1)],
    ids=["each_for_two_frames", "each_for_four_frames", "more_frames_than_rows"],
)
def test_packed_questions_about_a_clip_qwen2_vl(
    boards: int, rows: int, columns: int, hold: int
) -> None:
    """A frame of visual tokens shows one board: two frames of the video."""
    processor = build_processor(clip_words())
    model = qwen2_vl_video.build_model(processor.tokenizer).eval()
    path = qwen2_vl_video.visual_path(model, processor.tokenizer)
    clip = make_clip(0, boards, rows, columns)
    visual = path.join(path.encode(clip.frames).repeat_interleave(hold, 0), boards * hold)
    positions = path.positions((rows, columns), boards * hold)
    frames = [image for image in clip.images for _ in range(2 * hold)]
    processor.video_processor.size = {"shortest_edge": 1, "longest_edge": 10**9}
    shown = {"type": "video", "video": frames}
    check_packing(model, processor, path.packer, shown, clip_questions(clip), visual, positions)


def test_packed_questions_about_a_clip(tiny_onevision: Any) -> None:
    model, processor = tiny_onevision
    clip = make_clip(0, 3)
    visual = clip_tokens(model, encode_tiles(model, tile_pixels(clip.images)), 3)
    packer = Packer(processor.tokenizer, onevision.OPENING, onevision.CLOSING)
    positions = sequence_positions(visual.shape[1])
    shown = {"type": "video", "video": clip.images}
    check_packing(model, processor, packer, shown, clip_questions(clip), visual, positions)


def test_the_language_model_comes_from_the_tiny_qwen2_vl(tiny_onevision: Any) -> None:
    """The same text gives the same hidden states, for words that both tokenizers know."""
    model, processor = tiny_onevision
    source, source_processor = load_tiny("qwen2-vl")
    text = "What is at row 2, column 3?"
    states = []
    for own, own_processor in ((model, processor), (source, source_processor)):
        ids = own_processor.tokenizer(text, return_tensors="pt")["input_ids"]
        states.append(own.model.language_model(input_ids=ids).last_hidden_state)
    assert_same(*states)


@pytest.mark.parametrize("count", [1, 65, 136])
def test_dropped_tokens_are_drawn_from_all(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    kept = [drop_visual_tokens(3, count, generator) for _ in range(200)]
    sizes = {rows.shape[1] for rows in kept}
    assert max(sizes) == count
    assert min(sizes) >= max(1, round(0.1 * count))
    assert torch.cat([rows.flatten() for rows in kept]).unique().tolist() == list(range(count))
    assert all((rows.diff(dim=1) > 0).all() for rows in kept)
