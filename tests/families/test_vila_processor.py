"""Text, images and videos in the form on which VILA1.5 was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoProcessor, PreTrainedTokenizerFast
from vila_reference import CHECKPOINT, DATA, TOKENS, described, prompt_inputs

import hf_token_compress  # noqa: F401 - registers VILA1.5 with the Auto classes
from hf_token_compress.models.vila import VilaProcessor
from hf_token_compress.models.vila.conversation import CHAT_TEMPLATES, choose_conversation

pytestmark = pytest.mark.core

SENTENCEPIECE = SentencePieceProcessor(str(CHECKPOINT / "llm/tokenizer.model"))
PROCESSOR: Any = AutoProcessor.from_pretrained(CHECKPOINT)
IMAGE_ID, VIDEO_ID = 420, 421
DOT = Image.new("RGB", (2, 2))


def byte_processor(name: str, tmp_path: Path, **tokens: int) -> Any:
    """A processor with a byte-level tokenizer that starts texts with `<|begin_of_text|>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|pad|>"]
    backend.add_special_tokens(marks)
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        special_tokens=[("<|begin_of_text|>", backend.token_to_id("<|begin_of_text|>"))],
    )
    folder = tmp_path / name
    shutil.copytree(CHECKPOINT, folder)
    for old in (folder / "llm").glob("*token*"):
        old.unlink()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|pad|>",
    ).save_pretrained(folder / "llm")
    return AutoProcessor.from_pretrained(folder)


def piece_by_piece(prompt: str) -> list[int]:
    """As the original code does: one tokenizer call for each text between images."""
    ids = [1]
    for number, chunk in enumerate(prompt.split("<image>")):
        ids += [IMAGE_ID] * TOKENS * bool(number)
        ids += SENTENCEPIECE.encode(chunk) if chunk else []
    return ids


parts = st.sampled_from(
    ["<image>", "<image>", " ", "\n", "USER:", "a dog", " what", "A", ".", "é", " <image>\n"]
)


@given(st.lists(parts, min_size=1, max_size=9).map("".join))
def test_texts_are_tokenized_piece_by_piece(prompt: str) -> None:
    images = [DOT] * prompt.count("<image>")
    inputs = PROCESSOR(images=images or None, text=prompt)
    assert inputs["input_ids"][0] == piece_by_piece(prompt)


def test_a_byte_level_tokenizer_needs_no_spaces(tmp_path: Path) -> None:
    processor = byte_processor("vila", tmp_path)
    prompt = "USER: <image>\n what<image><image>?"
    chunks = [processor.tokenizer.encode(chunk)[1:] for chunk in prompt.split("<image>")]
    visual = [processor.image_token_id] * TOKENS
    start = [processor.tokenizer.bos_token_id]
    expected = start + chunks[0] + visual + chunks[1] + visual + visual + chunks[3]
    assert processor(images=[DOT] * 3, text=prompt)["input_ids"][0] == expected


def test_prompts_are_padded_on_the_left() -> None:
    inputs = prompt_inputs(PROCESSOR, "text", "video", padding=True)
    padding = inputs["attention_mask"].shape[1] - len(described()["input_ids"]["text"])
    assert inputs["attention_mask"][0, :padding].sum() == 0
    assert inputs["attention_mask"][0, padding:].all()


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_images_of_any_mode(mode: str) -> None:
    image = Image.open(DATA / "images/img0.png").convert(mode)
    pixels = PROCESSOR(images=image, text="<image>", return_tensors="pt")["pixel_values"]
    resized = np.asarray(image.convert("RGB").resize((70, 70), Image.Resampling.BICUBIC))
    expected = torch.from_numpy(resized.copy()).permute(2, 0, 1).double() / 255 * 2 - 1
    torch.testing.assert_close(pixels[0].double(), expected, rtol=0, atol=1e-6)


def test_images_are_resized_bicubically_whatever_the_checkpoint_says(tmp_path: Path) -> None:
    folder = tmp_path / "vila"
    shutil.copytree(CHECKPOINT, folder)
    path = folder / "vision_tower/preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings.update(
        resample=2, do_resize=False, do_convert_rgb=None, size={"height": 9, "width": 9}
    )
    path.write_text(json.dumps(settings))
    image = Image.open(DATA / "images/img0.png").convert("RGBA")
    options: dict[str, Any] = {"images": image, "text": "<image>", "return_tensors": "pt"}
    pixels = AutoProcessor.from_pretrained(folder)(**options)["pixel_values"]
    assert torch.equal(pixels, PROCESSOR(**options)["pixel_values"])


# Conversations

VICUNA_SYSTEM = described()["prompts"]["text"].split(" USER: ")[0]
LLAMA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
IMAGE_PART = {"type": "image"}
TALK = [
    {"role": "user", "content": [IMAGE_PART, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    {"role": "user", "content": "And its colour?"},
]
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
OPEN = {
    "vicuna_v1": f"{VICUNA_SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A dog.</s>"
    "USER: And its colour? ASSISTANT:",
    "llama_3": f"<|begin_of_text|>{HEADER.format('system')}{LLAMA_SYSTEM}<|eot_id|>"
    f"{HEADER.format('user')}<image>\nWhat is it?<|eot_id|>"
    f"{HEADER.format('assistant')}A dog.<|eot_id|>"
    f"{HEADER.format('user')}And its colour?<|eot_id|>{HEADER.format('assistant')}",
    "hermes-2": "<|im_start|>system\nAnswer the questions.<|im_end|>"
    "<|im_start|>user\n<image>\nWhat is it?<|im_end|><|im_start|>assistant\nA dog.<|im_end|>"
    "<|im_start|>user\nAnd its colour?<|im_end|><|im_start|>assistant\n",
}
CLOSED = {
    "vicuna_v1": f"{VICUNA_SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A dog.</s>",
    "llama_3": f"<|begin_of_text|>{HEADER.format('system')}{LLAMA_SYSTEM}<|eot_id|>"
    f"{HEADER.format('user')}<image>\nWhat is it?<|eot_id|>"
    f"{HEADER.format('assistant')}A dog.<|end_of_text|>",
    "hermes-2": "<|im_start|>system\nAnswer the questions.<|im_end|>"
    "<|im_start|>user\n<image>\nWhat is it?<|im_end|><|im_start|>assistant\nA dog.<|im_end|>",
}
each_conversation = pytest.mark.parametrize("name", CHAT_TEMPLATES)


@each_conversation
def test_conversations(name: str) -> None:
    options = {"chat_template": CHAT_TEMPLATES[name]}
    asked = PROCESSOR.apply_chat_template(TALK, add_generation_prompt=True, **options)
    assert asked == OPEN[name]
    assert PROCESSOR.apply_chat_template(TALK[:2], **options) == CLOSED[name]


@each_conversation
def test_a_system_message_replaces_the_default_one(name: str) -> None:
    own = [{"role": "system", "content": "Be brief."}, *TALK]
    options: dict[str, Any] = {"chat_template": CHAT_TEMPLATES[name], "add_generation_prompt": True}
    text = PROCESSOR.apply_chat_template(own, **options)
    default = {"vicuna_v1": VICUNA_SYSTEM, "llama_3": LLAMA_SYSTEM}
    expected = OPEN[name].replace(default.get(name, "Answer the questions."), "Be brief.")
    assert text == expected


def test_prompts_equal_those_of_the_original_code() -> None:
    user = {"type": "text", "text": " Please describe the image."}
    talk = [{"role": "user", "content": [IMAGE_PART, user]}]
    prompt = PROCESSOR.apply_chat_template(talk, add_generation_prompt=True)
    assert prompt == described()["prompts"]["single"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Efficient-Large-Model/VILA1.5-3b", "vicuna_v1"),
        ("Efficient-Large-Model/VILA1.5-3b-s2", "vicuna_v1"),
        ("/data/vila1.5-13b", "vicuna_v1"),
        ("Efficient-Large-Model/Llama-3-VILA1.5-8B", "llama_3"),
        ("Efficient-Large-Model/Llama-3-VILA1.5-8B-Fix", "llama_3"),
        ("models/llama3-vila", "llama_3"),
        ("Efficient-Large-Model/VILA1.5-40b", "hermes-2"),
        ("somewhere/mine", "vicuna_v1"),
    ],
)
def test_the_conversation_is_chosen_by_name(name: str, expected: str) -> None:
    assert choose_conversation(name, {}) == expected


def test_the_conversation_is_chosen_by_tokenizer_without_a_known_name() -> None:
    assert choose_conversation("mine", {"<|eot_id|>": 5}) == "llama_3"
    assert choose_conversation("mine", {"<|im_end|>": 5}) == "hermes-2"
    assert choose_conversation("vila1.5-3b", {"<|eot_id|>": 5}) == "vicuna_v1"


def test_the_processor_of_a_llama_3(tmp_path: Path) -> None:
    processor = byte_processor("Llama-3-VILA1.5-8B", tmp_path)
    assert processor.chat_template == CHAT_TEMPLATES["llama_3"]
    assert PROCESSOR.chat_template == CHAT_TEMPLATES["vicuna_v1"]
    prompt = processor.apply_chat_template(TALK[:1], add_generation_prompt=True)
    ids = processor(images=DOT, text=prompt)["input_ids"][0]
    begin = processor.tokenizer.bos_token_id
    # As in training, there are two: one from the tokenizer and one in the prompt.
    assert ids[:2] == [begin, begin]
    assert ids[2] != begin
    tokenized = processor.apply_chat_template(
        [{"role": "user", "content": [{**IMAGE_PART, "image": DOT}, *TALK[0]["content"][1:]]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    assert tokenized["input_ids"][0] == ids
    plain = processor(images=DOT, text=prompt, add_special_tokens=False)["input_ids"][0]
    assert plain == ids[1:]


# Videos

FRAMES = [Image.open(DATA / "images" / f"img{number}.png") for number in range(3)]
QUESTION = "USER: <video>What happens? ASSISTANT:"


def test_a_video_is_its_frames_with_line_breaks() -> None:
    inputs = PROCESSOR(videos=[FRAMES], text=QUESTION, return_tensors="pt")
    written = QUESTION.replace("<video>", "<image>\n" * 3)
    images = PROCESSOR(images=FRAMES, text=written, return_tensors="pt")
    ids = inputs["input_ids"]
    assert torch.equal(ids.masked_fill(ids == VIDEO_ID, IMAGE_ID), images["input_ids"])
    assert int((ids == VIDEO_ID).sum()) == 3 * TOKENS
    assert "pixel_values" not in inputs
    assert torch.equal(inputs["pixel_values_videos"][0], images["pixel_values"])


def test_images_and_videos_in_a_batch() -> None:
    texts = ["<image>\n and <video>?", "<video>", "nothing", "<image>"]
    inputs = PROCESSOR(
        images=[[FRAMES[0]], [FRAMES[2]]],
        videos=[FRAMES[:2], FRAMES[1:]],
        text=texts,
        padding=True,
        return_tensors="pt",
        return_mm_token_type_ids=True,
    )
    ids = inputs["input_ids"]
    assert (ids == IMAGE_ID).sum(1).tolist() == [TOKENS, 0, 0, TOKENS]
    assert (ids == VIDEO_ID).sum(1).tolist() == [2 * TOKENS, 2 * TOKENS, 0, 0]
    types = (ids == IMAGE_ID).long() + 2 * (ids == VIDEO_ID).long()
    assert torch.equal(inputs["mm_token_type_ids"], types)
    alone = torch.cat(
        [PROCESSOR(images=f, text="<image>", return_tensors="pt")["pixel_values"] for f in FRAMES]
    )
    assert torch.equal(inputs["pixel_values"], alone[[0, 2]])
    assert torch.equal(inputs["pixel_values_videos"], torch.stack([alone[:2], alone[1:]]))


def moving(frames: int) -> np.ndarray[Any, Any]:
    """Frames of one shade each: [frames, H, W, 3]."""
    shades = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(shades, (frames, 8, 8, 3)).copy()


def shades(inputs: Any) -> list[int]:
    first = inputs["pixel_values_videos"][0, :, 0, 0, 0]
    return ((first + 1) * 127.5).round().int().tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 2, 5, 8, 11, 14, 17, 20]),
        ({"num_frames": 3}, [0, 10, 20]),
        ({"num_frames": 21}, list(range(21))),
        ({"num_frames": 1}, [0]),
        ({"do_sample_frames": False}, list(range(21))),
        ({"videos_kwargs": {"num_frames": 3}}, [0, 10, 20]),
        ({"videos_kwargs": {"do_sample_frames": False}}, list(range(21))),
    ],
)
def test_frames_are_sampled_evenly(options: dict[str, Any], expected: list[int]) -> None:
    inputs = PROCESSOR(videos=moving(21), text="<video>", return_tensors="pt", **options)
    assert shades(inputs) == expected


def test_a_short_video_gives_all_its_frames() -> None:
    inputs = PROCESSOR(videos=moving(5), text="<video>", return_tensors="pt")
    assert shades(inputs) == list(range(5))


FORMS: dict[str, Any] = {
    "array": moving(3),
    "tensor": torch.from_numpy(moving(3)),
    "list_of_arrays": list(moving(3)),
    "list_of_images": [Image.fromarray(frame) for frame in moving(3)],
    "list_of_videos": [moving(3)],
    "nested": [[[Image.fromarray(frame) for frame in moving(3)]]],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_a_video(form: Any) -> None:
    inputs = PROCESSOR(videos=form, text="<video>", return_tensors="pt")
    assert inputs["pixel_values_videos"].shape == (1, 3, 3, 70, 70)
    assert shades(inputs) == [0, 1, 2]


def test_a_video_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = [Image.new("RGB", (32, 32), (40 * number,) * 3) for number in range(6)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    for form in (str(path), path):
        inputs = PROCESSOR(videos=form, text="<video>", num_frames=3, return_tensors="pt")
        assert shades(inputs) == pytest.approx([0, 80, 200], abs=6)


def test_a_chat_with_a_video() -> None:
    content = [{"type": "video", "video": moving(3)}, {"type": "text", "text": "What happens?"}]
    inputs = PROCESSOR.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    prompt = f"{VICUNA_SYSTEM} {QUESTION}"
    expected = PROCESSOR(videos=moving(3), text=prompt, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["pixel_values_videos"], expected["pixel_values_videos"])


def test_videos_without_text() -> None:
    inputs = PROCESSOR(videos=[moving(2), moving(2)], return_tensors="pt")
    assert list(inputs) == ["pixel_values_videos"]
    assert inputs["pixel_values_videos"].shape == (2, 2, 3, 70, 70)


def test_lists_without_return_tensors() -> None:
    inputs = PROCESSOR(images=FRAMES[0], videos=moving(2), text="<image><video>")
    tensors = PROCESSOR(
        images=FRAMES[0], videos=moving(2), text="<image><video>", return_tensors="pt"
    )
    assert inputs["input_ids"] == tensors["input_ids"].tolist()
    assert np.array_equal(np.asarray(inputs["pixel_values_videos"]), tensors["pixel_values_videos"])
    assert np.array_equal(np.asarray(inputs["pixel_values"]), tensors["pixel_values"])


def test_marks_that_do_not_match_the_videos() -> None:
    with one_sentence(ValueError, "<video>"):
        PROCESSOR(videos=moving(2), text="<video> <video>")
    with one_sentence(ValueError, "<image>"):
        PROCESSOR(images=DOT, videos=moving(2), text="<video>")
    with one_sentence(ValueError, "num_frames"):
        PROCESSOR(videos=[moving(2), moving(5)], text="<video><video>")
    with one_sentence(TypeError, "video"):
        PROCESSOR(videos=3, text="<video>")


def test_a_saved_processor_loads_with_its_class(tmp_path: Path) -> None:
    PROCESSOR.save_pretrained(tmp_path)
    again = VilaProcessor.from_pretrained(tmp_path)
    assert type(again.image_processor) is type(PROCESSOR.image_processor)
    assert "pixel_values_videos" in again.model_input_names
