"""The fast forwards in the training of the tiny models equal the stock models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs import assert_same

from hf_token_compress import load_tiny
from hf_token_compress.data.scenes import clip_questions, make_clip, make_scene, scene_questions
from lab.tiny import (
    onevision_architecture,
    onevision_training,
    qwen2_vl_video,
    vila_architecture,
    vila_forward,
)
from lab.tiny.forward import answer_logits, encode_scenes
from lab.tiny.joint_clips import VisualPath
from lab.tiny.packing import (
    IGNORED,
    Packer,
    drop_visual_tokens,
    grid_positions,
)
from lab.tiny.processor import build_processor, clip_words


@pytest.fixture(scope="module", autouse=True)
def without_gradients() -> Any:
    with torch.no_grad():
        yield


Beginner = tuple[Any, Any, VisualPath]
"""An untrained model, its processor and its visual path."""


@pytest.fixture(scope="module", params=["llava_onevision", "vila"])
def beginner(request: pytest.FixtureRequest) -> Beginner:
    if request.param == "vila":
        processor: Any = vila_architecture.build_processor()
        model = vila_architecture.build_model(processor.tokenizer).eval()
        return model, processor, vila_forward.visual_path(model, processor)
    processor = onevision_architecture.build_processor()
    model = onevision_architecture.build_model(processor.tokenizer).eval()
    return model, processor, onevision_training.visual_path(model, processor.tokenizer)


def asked(processor: Any, shown: dict[str, Any], question: Any) -> Any:
    """Inputs for one question and its answer, made by the processor."""
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
    """Compare the logits that predict the answers, packed and in separate prompts."""
    every = torch.arange(visual.shape[1])[None]
    batch = packer.pack([questions], where, every)
    logits, labels = answer_logits(model, visual, batch)
    assert len(labels) == int((batch.labels != IGNORED).sum()) > 0
    own_logits, own_labels = [], []
    for question in questions:
        inputs = asked(processor, shown, question)
        answer = processor.tokenizer(question.answer, add_special_tokens=False)["input_ids"]
        # The prompt ends with the answer, the end of the turn and a line break.
        first = inputs["input_ids"].shape[1] - len(answer) - 2
        alone = model(**inputs).logits[0]
        own_logits.append(alone[first - 1 : first + len(answer)])
        own_labels.append(inputs["input_ids"][0, first : first + len(answer) + 1])
    assert torch.equal(labels, torch.cat(own_labels))
    torch.testing.assert_close(logits, torch.cat(own_logits), rtol=1e-3, atol=1e-3)


def test_packed_questions_about_an_image_qwen2_vl() -> None:
    model, processor = load_tiny("qwen2-vl")
    scene = make_scene(0, 3, 4)
    visual = encode_scenes(model.model.visual, [scene])
    shown = {"type": "image", "image": scene.image}
    packer = Packer(processor.tokenizer)
    # The processor would enlarge an image with fewer than 64 tokens.
    processor.image_processor.size = {"shortest_edge": 1, "longest_edge": 10**9}
    check_packing(
        model, processor, packer, shown, scene_questions(scene), visual, grid_positions((6, 8))
    )


def test_packed_questions_about_an_image(beginner: Beginner) -> None:
    model, processor, path = beginner
    scene = make_scene(0)
    visual, positions = path.join(path.encode([scene]), 0), path.positions((4, 4), 0)
    shown = {"type": "image", "image": scene.image}
    check_packing(model, processor, path.packer, shown, scene_questions(scene), visual, positions)


@pytest.mark.parametrize(
    ("scenes", "rows", "columns", "frames_per_scene"),
    [(3, 2, 3, 1), (2, 2, 2, 2), (5, 1, 1, 1)],
    ids=["each_for_two_frames", "each_for_four_frames", "more_frames_than_rows"],
)
def test_packed_questions_about_a_clip_qwen2_vl(
    scenes: int, rows: int, columns: int, frames_per_scene: int
) -> None:
    """A frame of visual tokens is two frames of the video, which show one scene."""
    processor = build_processor(clip_words())
    model = qwen2_vl_video.build_model(processor.tokenizer).eval()
    path = qwen2_vl_video.visual_path(model, processor.tokenizer)
    clip = make_clip(0, scenes, rows, columns)
    visual = path.join(
        path.encode(clip.frames).repeat_interleave(frames_per_scene, 0), scenes * frames_per_scene
    )
    positions = path.positions((rows, columns), scenes * frames_per_scene)
    frames = [image for image in clip.images for _ in range(2 * frames_per_scene)]
    processor.video_processor.size = {"shortest_edge": 1, "longest_edge": 10**9}
    shown = {"type": "video", "video": frames}
    check_packing(model, processor, path.packer, shown, clip_questions(clip), visual, positions)


def test_packed_questions_about_a_clip(beginner: Beginner) -> None:
    model, processor, path = beginner
    clip = make_clip(0, 3)
    visual, positions = path.join(path.encode(clip.frames), 3), path.positions((4, 4), 3)
    shown = {"type": "video", "video": clip.images}
    check_packing(model, processor, path.packer, shown, clip_questions(clip), visual, positions)


def test_text_between_visual_tokens(beginner: Beginner) -> None:
    """It equals the tokens between the placeholders in the processor's prompt."""
    model, processor, path = beginner
    clip = make_clip(0, 3)
    shown = {"type": "video", "video": clip.images}
    ids = asked(processor, shown, clip_questions(clip)[0])["input_ids"][0]
    visual = ids == model.config.video_token_index
    first, last = visual.nonzero().flatten()[[0, -1]].tolist()
    between = (~visual[first : last + 1]).nonzero().flatten()
    assert list(path.text(3)) == between.tolist()
    assert list(path.text(0)) == []


def test_the_language_model_comes_from_a_trained_one(beginner: Beginner) -> None:
    """Words that both tokenizers know give the same hidden states."""
    model, processor, _ = beginner
    sources = {"llava_onevision": "qwen2-vl", "vila15": "llava-onevision"}
    source, source_processor = load_tiny(sources[model.config.model_type])
    text = "What is at row 2, column 3?"
    states = []
    for own, own_processor in ((model, processor), (source, source_processor)):
        ids = own_processor.tokenizer(text, return_tensors="pt")["input_ids"]
        states.append(own.model.language_model(input_ids=ids).last_hidden_state)
    assert_same(*states)


@pytest.mark.parametrize(("count", "text"), [(1, []), (136, []), (65, [0, 40, 64])])
def test_text_is_never_dropped(count: int, text: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    kept = [drop_visual_tokens(3, count, generator, text=text) for _ in range(200)]
    visual = count - len(text)
    sizes = {indices.shape[1] - len(text) for indices in kept}
    assert max(sizes) == visual
    assert min(sizes) >= max(1, round(0.1 * visual))
    assert min(sizes) < visual or count == 1
    assert torch.cat([indices.flatten() for indices in kept]).unique().tolist() == list(
        range(count)
    )
    assert all((indices.diff(dim=1) > 0).all() for indices in kept)
    assert all(set(text) <= set(sample) for indices in kept for sample in indices.tolist())
