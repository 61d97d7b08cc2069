"""Images of objects and questions about them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from errors import one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_token_compress.data.scenes import Question
from lab.testbed.objects import cutouts as cutout_files
from lab.testbed.objects import renderer
from lab.testbed.objects.clips import make_object_clip
from lab.testbed.objects.drawn import (
    HELD_OUT_ARTIST,
    TRAIN_ARTISTS,
    make_drawn_scene,
)
from lab.testbed.objects.names import COLOURS, DRAWN_NAMES, NAMES, NUMBERS, SOLIDS
from lab.testbed.objects.photographed import make_photographed_scene
from lab.testbed.objects.questions import (
    CLIP_KINDS,
    KINDS,
    ask,
    ask_clip,
    clip_questions,
    scene_questions,
)
from lab.testbed.objects.rendered import MAX_SOLIDS, make_rendered_scene
from lab.testbed.objects.scene import SIDE, ObjectScene, SceneObject
from lab.tests import testbed_models

LAYOUTS = st.one_of(
    st.fixed_dictionaries({"rows": st.integers(1, 4), "columns": st.integers(1, 4)}),
    st.fixed_dictionaries({"objects": st.integers(1, 8)}),
    st.just({}),
)
SCENES = st.builds(
    lambda number, layout: make_drawn_scene(number, **layout), st.integers(0, 9999), LAYOUTS
)


def pixels(scene: ObjectScene) -> np.ndarray:
    return np.asarray(scene.image)


# Images


def test_a_number_in_a_split_is_one_image() -> None:
    one, same = (make_drawn_scene(5) for _ in range(2))
    assert one.objects == same.objects
    assert np.array_equal(pixels(one), pixels(same))
    for other in (make_drawn_scene(6), make_drawn_scene(5, "train")):
        assert other.objects != one.objects


@settings(max_examples=40)
@given(scene=SCENES)
def test_objects_lie_in_their_boxes(scene: ObjectScene) -> None:
    assert scene.image.size == (SIDE, SIDE)
    for obj in scene.objects:
        left, top, right, bottom = obj.box
        assert 0 <= left < right <= SIDE
        assert 0 <= top < bottom <= SIDE
        if scene.rows is not None:
            assert obj.row == int(obj.centre[1] * scene.rows / SIDE) + 1
            assert obj.column == int(obj.centre[0] * scene.columns / SIDE) + 1
    boxes = [obj.box for obj in scene.objects]
    cover = np.zeros((SIDE, SIDE), int)
    for left, top, right, bottom in boxes:
        cover[top:bottom, left:right] += 1
    assert cover.max() == 1


@settings(max_examples=40)
@given(scene=SCENES)
def test_plates_have_their_colour(scene: ObjectScene) -> None:
    """The middle of an edge shows the plate, whatever its shape and the drawing on it."""
    for obj in scene.objects:
        left, top, right, bottom = obj.box
        middle = (left + right) // 2
        edge = pixels(scene)[[top + 2, bottom - 3], middle].astype(int)
        nearest = np.abs(edge - COLOURS[obj.colour]).max(-1).min()
        assert nearest <= 14


def test_the_held_out_artist_is_in_no_other_image() -> None:
    assert HELD_OUT_ARTIST not in TRAIN_ARTISTS
    shown = {t.source for number in range(50) for t in make_drawn_scene(number).objects}
    assert shown == set(TRAIN_ARTISTS)
    held_out = make_drawn_scene(1, artists=(HELD_OUT_ARTIST,))
    assert {obj.source for obj in held_out.objects} == {HELD_OUT_ARTIST}


def test_some_names_repeat() -> None:
    most = [
        max(Counter(t.name for t in make_drawn_scene(n, rows=3, columns=3).objects).values())
        for n in range(60)
    ]
    assert set(most) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 3}, ("rows",)),
        ({"rows": 5, "columns": 2}, ("columns",)),
        ({"objects": 9}, ("objects",)),
        ({"objects": 3, "rows": 2, "columns": 2}, ("both",)),
        ({"artists": ("nobody",)}, ("nobody",)),
    ],
)
def test_an_impossible_layout_is_refused(options: dict[str, Any], words: Any) -> None:
    with one_sentence(ValueError, *words):
        make_drawn_scene(0, **options)


# Questions, checked against the list of objects


def named(scene: ObjectScene, text: str) -> list[SceneObject]:
    """Objects named in the text, in the order of the words."""
    words = re.findall(r"[a-z]+", text.lower())
    return [t for word in words for t in scene.objects if t.name == word]


def right_answers(scene: ObjectScene, question: Question) -> set[str]:
    """All right answers, by brute force."""
    text, objects = question.text, scene.objects
    about = named(scene, text)
    if question.kind == "place":
        return {t.name for t in objects if described(t, text)}
    if question.kind == "where":
        return {place_of(t) for t in about}
    if question.kind == "attribute":
        return {t.colour for t in about}
    if question.kind == "count":
        return {NUMBERS[len(about) - 1]}
    if question.kind == "presence":
        return {"yes" if about else "no"}
    if scene.rows is not None:
        step = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
        (words,) = [w for w in step if w in text]
        down, across = step[words]
        places = {(t.row + down, t.column + across) for t in about}
        return {t.name for t in objects if (t.row, t.column) in places}
    one, other = about
    axis, words = (0, ("left", "right")) if "left or right" in text else (1, ("above", "below"))
    return {words[one.centre[axis] > other.centre[axis]]}


def place_of(obj: SceneObject) -> str:
    if obj.row is not None:
        return f"row {NUMBERS[obj.row - 1]}, column {NUMBERS[obj.column - 1]}"
    across, down = obj.centre
    return f"{'top' if down < SIDE / 2 else 'bottom'} {'left' if across < SIDE / 2 else 'right'}"


def described(obj: SceneObject, text: str) -> bool:
    return place_of(obj) in text


@settings(max_examples=150)
@given(scene=SCENES, kind=st.sampled_from(KINDS), seed=st.integers(0, 999))
def test_questions_have_one_right_answer(scene: ObjectScene, kind: str, seed: int) -> None:
    question = ask(scene, kind, np.random.default_rng(seed))
    if question is None:
        return
    assert question.kind == kind
    assert right_answers(scene, question) == {question.answer}
    boxes = {obj.box for obj in scene.objects}
    assert set(question.relevant_boxes) <= boxes
    about = {obj.box for obj in named(scene, question.text)}
    answers = {
        t.box for t in scene.objects if t.name == question.answer and kind in ("place", "relation")
    }
    assert set(question.relevant_boxes) <= about | answers
    assert bool(question.relevant_boxes) == (question.answer != "no")


@settings(max_examples=60)
@given(number=st.integers(0, 999), kind=st.sampled_from(CLIP_KINDS), seed=st.integers(0, 999))
def test_questions_about_clips_are_about_one_frame(number: int, kind: str, seed: int) -> None:
    clip = make_object_clip(number)
    question = ask_clip(clip, kind, np.random.default_rng(seed))
    colours = [{obj.colour for obj in frame.objects} for frame in clip.frames]
    assert all(len(found) == 1 for found in colours)
    assert len(set().union(*colours)) == len(clip.frames)
    names = [obj.name for frame in clip.frames for obj in frame.objects]
    assert len(set(names)) == len(names)
    (frame,) = question.relevant_frames
    shown = clip.frames[frame]
    if kind == "attribute":
        (obj,) = [t for f in clip.frames for t in named(f, question.text)]
        assert obj in shown.objects
        assert question.answer == obj.colour
        return
    (obj,) = [t for t in shown.objects if described(t, question.text)]
    assert question.answer == obj.name
    expected = {"first": 0, "last": len(clip.frames) - 1}.get(kind, frame)
    assert frame == expected
    if kind == "during":
        assert colours[frame] == {c for c in COLOURS if f"are {c}?" in question.text}


def test_presence_is_balanced() -> None:
    answers = Counter()
    for number in range(200):
        question = ask(make_drawn_scene(number), "presence", np.random.default_rng(number))
        answers[question.answer] += 1
    assert 70 < answers["no"] < 130


def test_the_same_arguments_give_the_same_questions() -> None:
    scene, clip = make_drawn_scene(4), make_object_clip(4)
    assert scene_questions(scene, seed=1) == scene_questions(scene, seed=1)
    assert scene_questions(scene, seed=1) != scene_questions(scene, seed=2)
    assert clip_questions(clip, seed=1) == clip_questions(clip, seed=1)


def test_unknown_kinds_and_lengths_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'smell'"):
        ask(make_drawn_scene(0), "smell", rng)
    with pytest.raises(ValueError, match="'smell'"):
        scene_questions(make_drawn_scene(0), ["smell"])
    with pytest.raises(ValueError, match="'place'"):
        ask_clip(make_object_clip(0), "place", rng)
    with one_sentence(ValueError, "frames"):
        make_object_clip(0, frames=9)


# Photographs, with coloured rectangles as cutouts


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory: pytest.TempPathFactory) -> cutout_files.Cutouts:
    folder = tmp_path_factory.mktemp("cutouts")
    for number, name in enumerate(cutout_files.PHOTOGRAPHED_NAMES):
        for file in (*cutout_files.Cutouts.of(name, "test"), *held_out(name)):
            file = folder / f"{file}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
            image.paste((number, 255 - number, 128, 255), (50, 20, 250, 180))
            image.save(file)
    return cutout_files.Cutouts(folder)


def held_out(name: str) -> list[str]:
    return cutout_files.Cutouts.of(name, cutout_files.HELD_OUT)


def test_photographs_of_a_split_are_exact_and_without_held_out_cutouts(
    cutouts: cutout_files.Cutouts,
) -> None:
    one, same = (make_photographed_scene(3, cutouts=cutouts) for _ in range(2))
    assert np.array_equal(pixels(one), pixels(same))
    held_out_files = {file for name in cutout_files.PHOTOGRAPHED_NAMES for file in held_out(name)}
    for number in range(20):
        usual = make_photographed_scene(number, cutouts=cutouts)
        assert not {obj.source for obj in usual.objects} & held_out_files
        unseen = make_photographed_scene(number, cutout_files.HELD_OUT, cutouts=cutouts)
        assert {obj.source for obj in unseen.objects} <= held_out_files


def test_cutouts_have_no_empty_margins(cutouts: cutout_files.Cutouts) -> None:
    (file, *_) = cutouts.of("cow", "test")
    image = cutouts.image(file)
    assert image.size == (128, round(128 * 160 / 200))
    assert image.getchannel("A").getextrema() == (255, 255)


def test_a_missing_cutout_is_named(tmp_path: Path) -> None:
    with one_sentence(FileNotFoundError, "frog", "tuxpaint-stamps-default"):
        cutout_files.Cutouts(tmp_path)


# Rendered images


@pytest.mark.testbed
def test_rendered_solids_are_seen_in_their_colours() -> None:
    testbed_models.need_parts()
    one, same = (make_rendered_scene(2) for _ in range(2))
    assert np.array_equal(pixels(one), pixels(same))
    assert 3 <= len(one.objects) <= MAX_SOLIDS
    assert not one.on_plates
    for obj in one.objects:
        assert obj.name in SOLIDS
        left, top, right, bottom = obj.box
        height, width = bottom - top, right - left
        inside = pixels(one)[
            top + height // 3 : bottom - height // 4, left + width // 3 : right - width // 3
        ].reshape(-1, 3)
        seen, said = np.median(inside, axis=0), np.array(COLOURS[obj.colour], float)
        # Light and shade change the brightness of a colour, not its hue.
        cosine = seen @ said / (np.linalg.norm(seen) * np.linalg.norm(said))
        assert cosine > 0.93
    question = ask(one, "presence", np.random.default_rng(0))
    assert right_answers(one, question) == {question.answer}


def test_without_a_renderer_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "find_spec", lambda name: None)
    with one_sentence(ImportError, "mujoco", "pip install"):
        make_rendered_scene(0)
    with one_sentence(ValueError, "solids"):
        make_rendered_scene(0, solids=7)


@pytest.mark.testbed
def test_every_word_is_one_token_of_the_language_model() -> None:
    testbed_models.need_parts()
    tokenizer = testbed_models.assembled()[1].tokenizer
    corners = ("left", "right", "above", "below", "yes", "no", "top", "bottom")
    for word in (*NAMES, *COLOURS, *NUMBERS, *corners):
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word
    assert len(set(NAMES)) == len(NAMES)
    assert set(DRAWN_NAMES) < set(NAMES)
