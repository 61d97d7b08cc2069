"""Samples about images of objects, and their export as JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from errors import one_sentence
from PIL import Image

from hf_token_compress.data.sources import JsonLines
from lab.testbed.objects.drawn import HELD_OUT_ARTIST, make_drawn_scene
from lab.testbed.objects.questions import CLIP_KINDS, KINDS
from lab.testbed.questions_file import DATA_FILE, export_samples, main
from lab.testbed.samples import object_samples


def test_every_kind_has_as_many_questions() -> None:
    samples = object_samples(KINDS, 3, seed=5)
    assert Counter(sample.kind for sample in samples) == dict.fromkeys(KINDS, 3)
    again = object_samples(KINDS, 3, seed=5)
    assert [(s.question, s.answer) for s in again] == [(s.question, s.answer) for s in samples]
    other = object_samples(KINDS, 3, seed=500)
    assert [s.question for s in other] != [s.question for s in samples]


def test_an_image_is_asked_several_different_questions_of_a_kind() -> None:
    samples = object_samples(["place", "attribute"], 5, seed=5, per_image=2)
    assert Counter(sample.kind for sample in samples) == {"place": 5, "attribute": 5}
    asked = Counter((id(sample.image), sample.kind) for sample in samples)
    assert max(asked.values()) == 2
    assert len({(id(sample.image), sample.question) for sample in samples}) == len(samples)
    images = [id(sample.image) for sample in samples]
    assert sorted(images, key=images.index) == images  # those of one image stand together


def test_clips_are_samples_with_frames() -> None:
    samples = object_samples(CLIP_KINDS, 2, source="clips")
    assert Counter(sample.kind for sample in samples) == dict.fromkeys(CLIP_KINDS, 2)
    for sample in samples:
        assert len(sample.frames) == 4
        assert sample.image is sample.frames[0]
        assert len(sample.relevant_frames) == len(sample.relevant_boxes) == 1


def test_the_held_out_artist_draws_its_source() -> None:
    (sample,) = object_samples(["attribute"], 1, source="held-out-artist", seed=7)
    scene = make_drawn_scene(7, artists=(HELD_OUT_ARTIST,))
    assert np.array_equal(np.asarray(sample.image), np.asarray(scene.image))
    assert {obj.source for obj in scene.objects} == {HELD_OUT_ARTIST}


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((KINDS, 1), {"source": "films"}, ("'films'",)),
        ((["smell"], 1), {}, ("'smell'",)),
        ((["place"], 1), {"source": "clips"}, ("'place'",)),
        ((KINDS, 0), {}, ("per_kind",)),
        ((CLIP_KINDS, 1), {"source": "clips", "per_image": 2}, ("per_image",)),
    ],
)
def test_an_impossible_question_is_refused(arguments: tuple, options: dict, words: tuple) -> None:
    with one_sentence(ValueError, *words):
        object_samples(*arguments, **options)


def test_an_export_is_what_collect_reads(tmp_path: Path) -> None:
    samples = object_samples(["place", "attribute"], 3) + object_samples(
        ["first"], 1, source="clips"
    )
    export_samples(samples, tmp_path)
    read = JsonLines(tmp_path / DATA_FILE)
    assert len(read) == len(samples)
    for number, sample in enumerate(samples):
        found = read[number]
        assert (found.question, found.answer) == (sample.question, sample.answer)
        shown = sample.frames or (sample.image,)
        visuals = found.visuals[0] if sample.frames else found.visuals
        assert found.modality == ("video" if sample.frames else "image")
        for visual, expected in zip(visuals, shown, strict=True):
            assert np.array_equal(as_pixels(visual), np.asarray(expected))
    lines = [json.loads(line) for line in (tmp_path / DATA_FILE).read_text().splitlines()]
    assert [line["kind"] for line in lines] == [sample.kind for sample in samples]
    assert tuple(map(tuple, lines[0]["relevant_boxes"])) == samples[0].relevant_boxes
    # Questions about one image share its file.
    assert len(list(tmp_path.glob("*.png"))) == len({id(s.image) for s in samples}) + 3
    with pytest.raises(FileExistsError, match="questions"):
        export_samples(samples, tmp_path)


def as_pixels(visual: object) -> np.ndarray:
    image = visual if isinstance(visual, Image.Image) else Image.open(str(visual))
    return np.asarray(image.convert("RGB"))


def test_the_command_writes_or_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--per-kind", "1", "--kind", "place", "--out", str(tmp_path / "new")])
    assert len((tmp_path / "new" / DATA_FILE).read_text().splitlines()) == 1
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["--source", "photographs", "--cutouts", str(tmp_path), "--out", str(tmp_path / "x")])
    assert ended.value.code == 2
    assert "tuxpaint-stamps-default" in capsys.readouterr().err
