"""The trained tiny model on real images: the way users will call the library."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from matrix import each_dtype
from pairs import ModelPair, answer, assert_same, masked_inputs
from transformers import (
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    TextIteratorStreamer,
    pipeline,
)

from hf_token_compress import Scorer, TokenCompressionConfig, compress, load_tiny, uncompress
from hf_token_compress.data.scenes import make_scene, scene_questions

pytestmark = [
    pytest.mark.core,
    # Of the prompts whose question stands first.
    pytest.mark.filterwarnings("ignore:A prompt has no question:UserWarning"),
]

SETTING = TokenCompressionConfig(retention_ratio=0.25)
FIRST, SECOND = (make_scene(seed, rows, 4) for seed, rows in ((11, 4), (12, 5)))
QUESTION = scene_questions(FIRST, ["place"])[0]
NEW = 8


@pytest.fixture(scope="module")
def loaded() -> tuple[ModelPair, Qwen2VLProcessor]:
    stock, processor = load_tiny("qwen2-vl")
    return ModelPair(stock, compress(copy.deepcopy(stock), SETTING)), processor


@pytest.fixture
def models(loaded: tuple[ModelPair, Qwen2VLProcessor]) -> ModelPair:
    return loaded[0]


@pytest.fixture
def processor(loaded: tuple[ModelPair, Qwen2VLProcessor]) -> Qwen2VLProcessor:
    return loaded[1]


def user(*parts: Any) -> dict[str, Any]:
    """A user's turn of images and texts."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in parts
    ]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


CHATS: dict[str, list[dict[str, Any]]] = {
    "one_picture": [user(FIRST.image, QUESTION.text)],
    "several_pictures": [user(FIRST.image, SECOND.image, "Which colour is behind the cat?")],
    "several_turns": [
        user(FIRST.image, QUESTION.text),
        assistant(QUESTION.answer),
        user("Is there a dog?"),
    ],
    "a_picture_in_every_turn": [
        user(FIRST.image, QUESTION.text),
        assistant(QUESTION.answer),
        user(SECOND.image, "What is at row 5, column 1?"),
    ],
    "question_first": [user(QUESTION.text, FIRST.image)],
    "text_only": [user("What is red?")],
}
each_chat = pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)


def encode(processor: Qwen2VLProcessor, *chats: list[dict[str, Any]]) -> Any:
    return processor.apply_chat_template(
        list(chats),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


def texts(processor: Qwen2VLProcessor, sequences: torch.Tensor, inputs: Any) -> list[str]:
    return processor.batch_decode(answer(sequences, inputs), skip_special_tokens=True)


def ask(model: Any, processor: Qwen2VLProcessor, chat: list[dict[str, Any]], **options: Any) -> str:
    inputs = encode(processor, chat)
    return texts(processor, model.generate(**inputs, max_new_tokens=NEW, **options), inputs)[0]


def test_it_answers_questions_about_pictures_it_has_not_seen(
    models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    """Place and content; the thresholds leave room for chance over this few questions."""
    right: dict[str, list[bool]] = {"place": [], "colour": [], "where": []}
    for seed in range(100, 115):
        scene = make_scene(seed)
        for question in scene_questions(scene, list(right), seed=seed):
            given = ask(models.stock, processor, [user(scene.image, question.text)])
            right[question.kind].append(given == question.answer)
    for kind, answers in right.items():
        assert sum(answers) >= 11, (kind, answers)


def test_most_answers_survive_at_a_quarter_of_the_tokens(
    models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    same = []
    for seed in range(100, 115):
        scene = make_scene(seed)
        for question in scene_questions(scene, ["place", "where"], seed=seed):
            chat = [user(scene.image, question.text)]
            full = ask(models.stock, processor, chat)
            same.append(ask(models.compressed, processor, chat) == full)
            samples = models.compressed.token_compression.last.samples
            assert samples[0].visual_tokens_after * 4 == samples[0].visual_tokens_before
    assert sum(same) >= 0.7 * len(same)


@each_chat
@each_dtype
def test_ratio_one_is_the_stock_model(
    chat: list[dict[str, Any]], dtype: torch.dtype, processor: Qwen2VLProcessor
) -> None:
    stock, _ = load_tiny("qwen2-vl", dtype=dtype)
    compressed, _ = load_tiny("qwen2-vl", dtype=dtype, token_compression={"retention_ratio": 1.0})
    inputs = encode(processor, chat)
    assert torch.equal(compressed(**inputs).logits, stock(**inputs).logits)
    out = compressed.generate(**inputs, max_new_tokens=NEW)
    assert torch.equal(out, stock.generate(**inputs, max_new_tokens=NEW))


@each_chat
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_quarter_is_the_stock_model_with_dropped_tokens_hidden(
    chat: list[dict[str, Any]],
    options: dict[str, Any],
    models: ModelPair,
    processor: Qwen2VLProcessor,
) -> None:
    inputs = encode(processor, chat)
    out = models.compressed.generate(**inputs, max_new_tokens=NEW, **options)
    hidden = inputs if chat is CHATS["text_only"] else masked_inputs(models, inputs)
    expected = models.stock.generate(**hidden, max_new_tokens=NEW, **options)
    assert torch.equal(out, expected)
    assert answer(out, inputs).shape[1] > 0


@pytest.mark.parametrize("chat", ["several_pictures", "a_picture_in_every_turn"])
def test_every_picture_keeps_some_tokens(
    chat: str, models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    models.compressed(**encode(processor, CHATS[chat]))
    sample = models.compressed.token_compression.last.samples[0]
    sizes = [len(visual.positions) for visual in sample.visuals]
    assert sizes == [64, 80]
    assert sample.visual_tokens_after == 36
    assert all(int(part.sum()) > 0 for part in sample.kept_visual.split(sizes))


def test_a_ragged_batch_gives_the_answers_of_its_rows(
    models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    inputs = encode(processor, *CHATS.values())
    together = models.compressed.generate(**inputs, max_new_tokens=NEW)
    assert torch.equal(together[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    alone = [ask(models.compressed, processor, chat) for chat in CHATS.values()]
    assert texts(processor, together, inputs) == alone


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2-vl-video", "llava-onevision", "vila"])
def test_stock_answers_a_batch_that_is_padded_as_the_processor_does(name: str) -> None:
    """Without being told the side: padding after a prompt would stand before its answer."""
    model, processor = load_tiny(name)
    chats = [CHATS["one_picture"], [user(FIRST.image, "Is there a dog?")]]
    given = []
    for batch in (chats, chats[:1], chats[1:]):
        inputs = processor.apply_chat_template(
            batch,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        given.append(texts(processor, model.generate(**inputs, max_new_tokens=NEW), inputs))
    both, first, second = given
    assert both == first + second


class Watcher(Scorer):
    """Keeps what it is shown, and scores as another scorer does."""

    def __init__(self, inner: Scorer) -> None:
        self.inner = inner
        self.prompts: list[Any] = []

    @property
    def needs(self) -> Any:  # type: ignore[override]
        return self.inner.needs

    def score(self, prompt: Any, **needed: Any) -> torch.Tensor:
        self.prompts.append(prompt)
        return self.inner.score(prompt, **needed)


def asked(processor: Qwen2VLProcessor, prompt: Any) -> str:
    """Text of the rows that count as the question."""
    return processor.decode(prompt.input_ids[0][prompt.instruction_mask[0]])


@pytest.mark.parametrize(
    ("chat", "present", "absent"),
    [
        ("one_picture", [QUESTION.text], ["assistant"]),
        ("several_turns", ["Is there a dog?"], [QUESTION.text, QUESTION.answer]),
        ("a_picture_in_every_turn", ["What is at row 5, column 1?"], [QUESTION.text]),
        ("several_pictures", ["Which colour is behind the cat?"], ["assistant"]),
    ],
)
def test_the_last_turn_of_the_user_asks(
    chat: str,
    present: Sequence[str],
    absent: Sequence[str],
    loaded: tuple[ModelPair, Qwen2VLProcessor],
) -> None:
    models, processor = loaded
    model = copy.deepcopy(models.compressed)
    watcher = Watcher(model.token_compression.scorer)
    model.token_compression.scorer = watcher
    model(**encode(processor, CHATS[chat]))
    question = asked(processor, watcher.prompts[0])
    assert all(text in question for text in present), question
    assert not any(text in question for text in absent), question


def test_a_chat_of_several_calls(models: ModelPair, processor: Qwen2VLProcessor) -> None:
    """Every turn is a call of its own; what is kept follows the question of that turn."""
    chat = [user(FIRST.image, "What is at row 1, column 1?")]
    kept = []
    for question in ("What is at row 4, column 4?", None):
        chat.append(assistant(ask(models.compressed, processor, chat)))
        kept.append(models.compressed.token_compression.last.samples[0].kept_visual)
        if question:
            chat.append(user(question))
    assert not torch.equal(*kept)


def test_the_pipeline_answers(models: ModelPair, processor: Qwen2VLProcessor) -> None:
    pipe = pipeline("image-text-to-text", model=models.compressed, processor=processor)
    chat = CHATS["one_picture"]
    options: dict[str, Any] = {"max_new_tokens": NEW, "return_full_text": False}
    given = pipe(text=chat, **options)[0]["generated_text"]
    assert given == ask(models.compressed, processor, chat)
    assert models.compressed.token_compression.last.samples[0].visual_tokens_after == 16
    full = pipe(text=chat, max_new_tokens=NEW)[0]["generated_text"]
    assert full[-1] == {"role": "assistant", "content": given}
    ratio = pipe(text=chat, generate_kwargs={"token_compression": 1.0}, **options)
    assert ratio[0]["generated_text"] == ask(models.stock, processor, chat)


def test_the_pipeline_answers_from_a_saved_folder(
    models: ModelPair, processor: Qwen2VLProcessor, tmp_path: Path
) -> None:
    models.compressed.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    pipe = pipeline("image-text-to-text", model=str(tmp_path), dtype="float32")
    chat = CHATS["one_picture"]
    given = pipe(text=chat, max_new_tokens=NEW, return_full_text=False)[0]["generated_text"]
    assert given == ask(models.compressed, processor, chat)
    assert pipe.model.token_compression.config == SETTING


def test_a_text_streamer_gives_the_answer_alone(
    models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    inputs = encode(processor, CHATS["one_picture"])
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    options = {**inputs, "max_new_tokens": NEW, "streamer": streamer}
    thread = Thread(target=models.compressed.generate, kwargs=options)
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    assert streamed == ask(models.compressed, processor, CHATS["one_picture"])


def test_stop_strings_look_at_the_answer_alone(
    models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    """The prompt holds the word too; only its appearance in the answer stops."""
    scene_cell = FIRST.cells[5]
    chat = [user(FIRST.image, f"Where is the {scene_cell.name}?")]
    free = ask(models.compressed, processor, chat)
    assert "," in free
    stopped = ask(
        models.compressed, processor, chat, stop_strings=[","], tokenizer=processor.tokenizer
    )
    assert stopped == free[: free.index(",") + 1]


def test_what_is_kept_depends_on_the_question(
    models: ModelPair, processor: Qwen2VLProcessor
) -> None:
    kept = set()
    for row in (1, 4):
        chat = [user(FIRST.image, f"What is at row {row}, column 2?")]
        models.compressed(**encode(processor, chat))
        sample = models.compressed.token_compression.last.samples[0]
        kept.add(tuple(sample.kept_visual.tolist()))
    assert len(kept) == 2


def test_a_loaded_setting_and_uncompress(processor: Qwen2VLProcessor, models: ModelPair) -> None:
    model, _ = load_tiny("qwen2-vl", token_compression=SETTING)
    inputs = encode(processor, CHATS["one_picture"])
    assert_same(model(**inputs).logits, models.compressed(**inputs).logits)
    assert type(uncompress(model)) is Qwen2VLForConditionalGeneration
    assert torch.equal(model(**inputs).logits, models.stock(**inputs).logits)
