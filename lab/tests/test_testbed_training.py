"""The testbed's training: its data, its shortcuts against the stock model, and what it leaves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hf_token_compress.data.chat import encode_samples
from hf_token_compress.data.sample import Sample
from lab.testbed.objects.clips import make_things_clip
from lab.testbed.objects.drawn import HELD_OUT_ARTIST, make_drawn_picture
from lab.testbed.objects.names import COLOURS, NAMES
from lab.testbed.objects.picture import Picture
from lab.testbed.objects.questions import clip_questions, picture_questions
from lab.testbed.processor import BEFORE_ANSWER, CLOSING, OPENING
from lab.testbed.training.curriculum import (
    ALL_KINDS,
    Lesson,
    Lessons,
    Stage,
    curriculum,
)
from lab.testbed.training.data_loader import Feed
from lab.testbed.training.export import export
from lab.testbed.training.language import add_adapter, train_language
from lab.testbed.training.projector import Boards
from lab.testbed.training.sources import drawn, store, stored
from lab.testbed.training.vision import (
    clip_tokens,
    picture_tokens,
    pixels_of,
    tower_features,
)
from lab.testbed.training.words import BACKGROUND, ThingVocabulary, patch_classes
from lab.tests import testbed_models
from lab.tiny.forward import answer_logits
from lab.tiny.loop import LoopSettings, averaged_state
from lab.tiny.packing import Packer, sequence_positions

PATCHES = 16


class Tokenizer:
    """A token for every word: enough to pack prompts without the pretrained parts."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {
            "input_ids": [self.known.setdefault(word, len(self.known)) for word in text.split()]
        }


def packers(tokenizer: Any) -> dict[str, Packer]:
    options: dict[str, Any] = {"before_answer": BEFORE_ANSWER}
    return {
        "chat": Packer(tokenizer, OPENING, CLOSING, **options),
        "bare": Packer(tokenizer, OPENING, CLOSING, turn="", **options),
    }


# Pictures and lessons


def test_a_lesson_depends_on_its_number_alone() -> None:
    stages = (Stage(2, "bare", ALL_KINDS), Stage(20, "pictures", ALL_KINDS, 16, 0.5, 0.5))
    one, other = (Lessons(packers(Tokenizer()), stages, pictures=4) for _ in range(2))
    for step in (0, 3, 4, 5, 6):
        lesson = other[step]
        assert_same_lesson(one[step], lesson)
        assert lesson.asked != other[step + 1].asked
    # What came before does not matter: a training that is gone on with sees the same.
    fresh = Lessons(packers(Tokenizer()), stages, pictures=4)
    assert fresh[6].asked == one[6].asked


def assert_same_lesson(one: Lesson, other: Lesson) -> None:
    assert one.asked == other.asked
    assert torch.equal(one.pixels, other.pixels)
    assert torch.equal(one.names, other.names)
    assert torch.equal(one.batch.kept, other.batch.kept)


def test_a_feed_of_other_processes_gives_the_same_in_the_same_order() -> None:
    boards = Boards([], steps=6, pictures=2)
    ahead = Feed(boards, workers=2)
    for step in range(3, 6):
        pixels, names, colours = ahead(step)
        expected = boards[step]
        assert torch.equal(pixels, expected[0])
        assert torch.equal(names, expected[1])
        assert torch.equal(colours, expected[2])


def test_the_curriculum_ends_with_all_kinds_and_dropped_tokens() -> None:
    stages = curriculum(528)
    ends = [stage.until for stage in stages]
    assert ends == sorted(set(ends))
    assert ends[-1] == 528
    assert stages[-1].view == "pictures"
    assert set(stages[-1].kinds) == set(ALL_KINDS)
    assert stages[-1].drop_share > 0


def test_the_held_out_artist_is_not_trained_on() -> None:
    source = drawn("train")
    artists = {thing.source for number in range(40) for thing in source(number).things}
    assert len(artists) > 1
    assert HELD_OUT_ARTIST not in artists


def test_stored_pictures_come_back_and_begin_anew(tmp_path: Path) -> None:
    made = [make_drawn_picture(number) for number in range(3)]
    store(tmp_path / "some.zip", made)
    source = stored(tmp_path / "some.zip")
    for number, picture in enumerate(made):
        found = source(number + 3)
        assert (found.things, found.rows, found.columns) == (
            picture.things,
            picture.rows,
            picture.columns,
        )
        assert (found.vocabulary, found.on_plates) == (picture.vocabulary, picture.on_plates)
        difference = np.abs(np.asarray(found.image, float) - np.asarray(picture.image, float))
        assert difference.mean() < 6  # of 255: they are stored with a little loss


def test_without_stored_pictures_the_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'pictures'"):
        stored(tmp_path / "none.zip")


def test_patches_are_classed_by_what_lies_at_their_centre() -> None:
    for number in range(8):
        picture = make_drawn_picture(number)
        names, colours = patch_classes(picture, PATCHES)
        assert names.shape == colours.shape == (PATCHES**2,)
        for index in range(PATCHES**2):
            expected = thing_at(picture, index % PATCHES * 14 + 7, index // PATCHES * 14 + 7)
            assert (names[index] == BACKGROUND) == (expected is None)
            if expected is not None:
                assert NAMES[names[index]] == expected.name
                assert list(COLOURS)[colours[index]] == expected.colour


def thing_at(picture: Picture, x: int, y: int) -> Any:
    for thing in picture.things:
        left, top, right, bottom = thing.box
        if left <= x < right and top <= y < bottom:
            return thing
    return None


def test_ideal_tokens_say_what_they_are_to_say() -> None:
    """No token is nearer to its aim, and classification finds every name and colour in it."""
    tokenizer = Tokenizer()
    words = torch.randn(400, 96, generator=torch.Generator().manual_seed(0))
    vocabulary = ThingVocabulary(tokenizer, words)
    names, colours = patch_classes(make_drawn_picture(1, rows=4, columns=4), PATCHES)
    ideal = vocabulary.ideal(names, colours)
    shown = names != BACKGROUND
    assert torch.equal(vocabulary.name_scores(ideal[shown]).argmax(-1), names[shown])
    assert torch.equal(vocabulary.colour_scores(ideal[shown]).argmax(-1), colours[shown])
    noise = torch.randn(ideal.shape, generator=torch.Generator().manual_seed(1))
    best, worse = (
        vocabulary.loss(tokens[None], names[None], colours[None])
        for tokens in (ideal, ideal + noise)
    )
    assert best < worse


# With the pretrained parts


@pytest.fixture(scope="module")
def assembled() -> tuple[Any, Any]:
    testbed_models.need_parts()
    return testbed_models.assembled()


@pytest.mark.testbed
@torch.no_grad()
def test_packed_questions_are_answered_as_single_prompts(assembled: tuple[Any, Any]) -> None:
    """The logits of the stock model on what the processor makes of each question, and of clips."""
    model, processor = assembled
    packer = packers(processor.tokenizer)["chat"]
    picture, clip = make_drawn_picture(3), make_things_clip(1)
    asked = picture_questions(picture)[:3]
    project = model.model.multi_modal_projector
    features = tower_features(model, processor, pixels_of([picture.image]))
    tokens = picture_tokens(model, project(features))
    check_first_answers(
        model, processor, packer, tokens, asked, {"modality": "image", "visuals": (picture.image,)}
    )
    features = tower_features(model, processor, pixels_of(clip.images))
    tokens = clip_tokens(model, project(features), len(clip.frames))
    shown = {"modality": "video", "visuals": (tuple(clip.images),)}
    check_first_answers(model, processor, packer, tokens, clip_questions(clip)[:2], shown)


def check_first_answers(
    model: Any, processor: Any, packer: Packer, tokens: Any, asked: Any, shown: dict[str, Any]
) -> None:
    count = tokens.shape[1]
    batch = packer.pack([asked], sequence_positions(count), torch.arange(count)[None])
    logits, labels = answer_logits(model, tokens, batch)
    first = 0
    for question in asked:
        sample = Sample(
            question=question.text, answer=question.answer, kind="", relevant_boxes=(), **shown
        )
        alone = model(**encode_samples(processor, [sample])).logits[0, -1]
        torch.testing.assert_close(logits[first], alone, rtol=1e-4, atol=5e-4)
        answer = processor.tokenizer(f" {question.answer}")["input_ids"]
        assert labels[first : first + len(answer)].tolist() == answer
        first += len(answer) + 1


class Interrupted(Lessons):
    """Lessons that end in the middle, as a killed process does."""

    def __getitem__(self, step: int) -> Lesson:
        if step == 2:
            raise KeyboardInterrupt
        return super().__getitem__(step)


def train_four_updates(
    work: Path, assembled: tuple[Any, Any], kind: type[Lessons] = Lessons
) -> Any:
    stages = (Stage(3, "bare", ALL_KINDS), Stage(4, "pictures", ALL_KINDS, 4))
    settings = LoopSettings(4, 1e-3, warmup=1, save_every=1, report_every=10, ema=0.5)
    model, processor = copy.deepcopy(assembled[0]), assembled[1]
    lessons = kind(packers(processor.tokenizer), stages, pictures=1, questions=2)
    train_language(model, processor, lessons, {}, settings, work)
    return model


@pytest.mark.testbed
def test_an_interrupted_training_ends_as_a_whole_one_and_is_exported(
    tmp_path: Path, assembled: tuple[Any, Any]
) -> None:
    from lab.testbed.assembly import assemble

    model = train_four_updates(tmp_path, assembled)
    whole = averaged_state(tmp_path / "language.pt")
    export(tmp_path / "language.pt", tmp_path / "out")
    (tmp_path / "language.pt").unlink()
    with pytest.raises(KeyboardInterrupt):
        train_four_updates(tmp_path, assembled, Interrupted)
    train_four_updates(tmp_path, assembled)
    for name, value in averaged_state(tmp_path / "language.pt").items():
        assert torch.equal(value, whole[name]), name
    merged, _ = assemble(
        tmp_path / "out" / "adapter", tmp_path / "out" / "projector.safetensors", torch.float32
    )
    ids = assembled[1].tokenizer("A cat is left of the dog.", return_tensors="pt")
    with torch.no_grad():
        expected, actual = model(**ids).logits, merged(**ids).logits
        untrained = assembled[0](**ids).logits
    change = (expected - untrained).norm()
    # What is stored is rounded to bfloat16, which is little beside what was learned.
    assert (actual - expected).norm() < 0.05 * change


@pytest.mark.testbed
def test_only_adapter_projector_and_newline_are_trained(assembled: tuple[Any, Any]) -> None:
    model = copy.deepcopy(assembled[0])
    trained = add_adapter(model)
    assert isinstance(trained, nn.ParameterDict)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name.replace("/", ".") for name in trained}
    assert all(
        "lora_" in name or "multi_modal_projector" in name or name.endswith("image_newline")
        for name in learning
    )
    # The adapter changes nothing before it is trained.
    ids = torch.tensor([[5, 17, 300, 42]])
    with torch.no_grad():
        expected = assembled[0](input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, expected)
