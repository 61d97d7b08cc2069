from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig, load_tiny
from hf_token_compress.app.cards import answer_cards, problem
from hf_token_compress.app.comparing import Comparer, drawn, reason
from hf_token_compress.app.examples import write_examples
from hf_token_compress.asking import Checkpoint, answer, prepare_question
from hf_token_compress.cli import app
from hf_token_compress.cli.browser import modality_settings
from hf_token_compress.cli.checkpoint import CheckpointSource, ModelOptions
from hf_token_compress.data.media import read_image
from hf_token_compress.relevance import relevance
from hf_token_compress.viz import frame_sheet, heat_map, overlay

NAME = "tiny-qwen2-vl-video"


@pytest.fixture(scope="module")
def comparer():
    setting = TokenCompressionConfig(mapper=NAME)
    model, processor = load_tiny("qwen2-vl-video", token_compression=setting)
    settings = {"image": setting, "video": setting}
    return Comparer(Checkpoint(NAME, model, processor), settings, frames=8, max_new_tokens=16)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return {modality: write_examples(folder, modality) for modality in ("image", "video")}


def compare(comparer, example, modality="image", explained=False, **changes):
    return comparer(
        example.question, example.files, modality=modality, changes=changes, explained=explained
    )


def same_image(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.parametrize("modality", ["image", "video"])
def test_every_example_is_answered_rightly(comparer, examples, modality):
    for example in examples[modality]:
        found = compare(comparer, example, modality)
        assert found.full.text == found.compressed.text == example.answer


def test_a_comparison_is_what_the_library_gives(comparer, examples):
    example = examples["image"][0]
    found = compare(comparer, example, explained=True, retention_ratio=0.25)
    image = read_image(example.files[0])
    inputs = prepare_question(comparer.checkpoint, [image], example.question)
    alone = answer(
        comparer.checkpoint, inputs, max_new_tokens=16, token_compression={"retention_ratio": 0.25}
    )
    kept = alone.report.samples[0]
    assert found.compressed.text == alone.text
    assert torch.equal(found.report.kept_indices, kept.kept_indices)
    assert (found.report.visual_tokens_before, found.report.visual_tokens_after) == (64, 16)
    assert found.compressed.kv_bytes < found.full.kv_bytes
    assert same_image(found.kept, overlay(image, kept))
    explained = relevance(comparer.checkpoint.model, inputs, max_new_tokens=16).samples[0]
    assert same_image(found.relevance, heat_map(image, explained))


def test_frames_are_one_video(comparer, examples):
    example = examples["video"][0]
    found = compare(comparer, example, "video", scorer="uniform", retention_ratio=0.5)
    # Six frames are merged in pairs.
    assert [span.modality for span in found.report.visuals] == ["video"]
    assert (found.report.visual_tokens_before, found.report.visual_tokens_after) == (192, 96)
    frames = [read_image(file) for file in example.files]
    assert same_image(found.kept, frame_sheet(frames, found.report))


def test_users_at_once_get_their_own_answers(comparer, examples):
    asked = [
        (examples["image"][0], {"retention_ratio": 0.5}),
        (examples["image"][1], {"retention_ratio": 0.1}),
        (examples["image"][2], {"scorer": "uniform", "retention_ratio": 0.25}),
        (examples["image"][6], {"selection": "diverse", "retention_ratio": 0.2}),
    ]

    def ask(item):
        example, changes = item
        found = compare(comparer, example, **changes)
        return found.full.text, found.compressed.text, found.report.kept_visual.tolist()

    alone = [ask(item) for item in asked]
    with ThreadPoolExecutor(len(asked)) as users:
        together = list(users.map(ask, asked * 2))
    assert together == alone * 2
    assert len({sum(kept) for _, _, kept in alone}) == len(asked)


@pytest.mark.parametrize(
    ("question", "content", "modality", "changes", "sentence"),
    [
        (" ", b"no image", "image", {}, "There is no question"),
        ("What is it?", None, "image", {}, "There is no image to look at"),
        ("What is it?", None, "video", {}, "There is no video to look at"),
        ("What is it?", b"no image", "image", {}, "is not an image that can be read"),
        ("What is it?", b"no video", "video", {}, "cannot be read"),
        ("What is it?", b"", "image", {"retention_ratio": 0}, "retention_ratio must be"),
    ],
)
def test_bad_input_is_named_in_a_sentence(
    comparer, tmp_path, question, content, modality, changes, sentence
):
    path = tmp_path / ("file.png" if modality == "image" else "file.mp4")
    files = []
    if content is not None:
        path.write_bytes(content)
        files = [path]
    with pytest.raises(ValueError, match=sentence):
        comparer(question, files, modality=modality, changes=changes)


def test_only_a_canvas_that_was_drawn_on_is_asked_about():
    canvas = Image.new("RGB", (8, 8), "white")
    for empty in (None, {"composite": None}, {"composite": canvas}):
        with pytest.raises(ValueError, match="The drawing is empty"):
            drawn(empty)
    canvas.putpixel((1, 1), (0, 0, 0))
    assert drawn({"composite": canvas}) is canvas


def test_an_image_in_memory_is_asked_about_as_its_file_is(comparer, examples):
    example = examples["image"][1]
    with Image.open(example.files[0]) as image:
        found = comparer(example.question, image, changes={}, explained=False)
    assert same_image(found.kept, compare(comparer, example).kept)
    assert found.compressed.text == example.answer


def test_a_reason_names_files_without_their_folders(comparer, tmp_path):
    paths = [tmp_path / name for name in ("first.png", "it's.png")]
    for side, path in enumerate(paths, start=10):
        Image.new("RGB", (side, side)).save(path)
    with pytest.raises(ValueError, match="must have one size") as caught:
        comparer("What is it?", paths, modality="video", changes={})
    assert reason(caught.value, paths) == (
        "The frames of a video must have one size, but 'first.png' has 10 × 10 pixels and "
        '"it\'s.png" 11 × 11: resize them.'
    )


def test_what_models_and_files_say_is_text_in_the_page(comparer, examples):
    found = compare(comparer, examples["image"][0])
    marked = replace(found, full=replace(found.full, text="<b>bold</b>"), unexplained="a < b")
    cards = answer_cards(marked)
    assert "&lt;b&gt;bold&lt;/b&gt;" in cards
    assert "a &lt; b" in cards
    assert problem("") == ""


def test_an_accelerator_too_small_for_relevance_still_answers(comparer, examples, monkeypatch):
    def relevance(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore.")

    monkeypatch.setattr("hf_token_compress.app.comparing.relevance", relevance)
    example = examples["image"][0]
    found = compare(comparer, example, explained=True)
    assert (found.full.text, found.relevance) == (example.answer, None)
    assert found.unexplained.endswith("CUDA out of memory. Tried to allocate 9 GiB.")


@pytest.mark.parametrize(
    "options", [("--scorer", "attention"), ("--dtype", "float32"), ("--share",), ("--frames", "4")]
)
def test_a_space_with_options_that_it_would_not_have_is_refused(tmp_path, options):
    outcome = CliRunner().invoke(app, ["app", "--write-space", str(tmp_path / "space"), *options])
    assert outcome.exit_code == 2
    assert "--write-space takes only --model" in outcome.stderr
    assert not (tmp_path / "space").exists()


def test_a_space_cannot_have_a_folder_of_this_machine(tmp_path):
    arguments = ["app", "--model", str(tmp_path), "--write-space", str(tmp_path / "space")]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert "push the model to the Hub" in outcome.stderr


@pytest.mark.parametrize(
    ("model_type", "modalities"),
    [("qwen2_vl", {"image", "video"}), ("gemma3", {"image"}), ("mllama", {"image"})],
)
def test_videos_are_offered_for_families_that_take_them(model_type, modalities):
    source = CheckpointSource(ModelOptions("some/model"), "some/model", {"model_type": model_type})
    assert set(modality_settings(source, {})) == modalities


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr("hf_token_compress.cli.browser.find_spec", lambda name: None)
    outcome = CliRunner().invoke(app, ["app"])
    assert outcome.exit_code == 1
    assert outcome.stderr.count("\n") == 1
    assert "pip install 'hf-token-compress[app]'" in outcome.stderr
