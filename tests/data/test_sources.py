"""Samples from a file of JSON lines and from a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value
from errors import one_sentence
from sample_files import question, write_lines

from hf_token_compress.data.composed import ClipSource
from hf_token_compress.data.scenes import make_scene
from hf_token_compress.data.sources import HubDataset, JsonLines, SampleSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(2):
        make_scene(number, 4, 4, split="mapper").image.save(folder / f"{number}.png")
    return folder


def test_a_line_has_all_that_is_known_of_a_sample(folder: Path) -> None:
    asked = {"question": "Where?", "answer": "row 1", "kind": "where"}
    image = {"image": "0.png", **asked, "relevant_boxes": [[0, 1, 48, 47]]}
    video = {
        **{"video": ["0.png", "1.png"], **asked, "relevant_boxes": [[0, 0, 9, 9], [1, 1, 9, 9]]},
        "relevant_frames": [0, 1],
    }
    several = {"image": ["0.png", "1.png"], "question": "Where?", "relevant_boxes": []}
    file = {"video": "clip.mp4", "question": "Where?"}
    lines = JsonLines(write_lines(folder, image, video, several, file))
    first, second, third, fourth = (lines[number] for number in range(4))
    assert (first.modality, first.question, first.answer, first.kind) == (
        *("image", "Where?", "row 1", "where"),
    )
    assert (first.relevant_boxes, first.relevant_frames) == (((0, 1, 48, 47),), ())
    assert (second.modality, len(second.visuals), len(second.frames)) == ("video", 1, 2)
    assert second.relevant_frames == (0, 1)
    assert (len(third.visuals), third.answer, third.kind) == (2, None, None)
    assert third.relevant_boxes == ()
    assert fourth.visuals == (str(folder / "clip.mp4"),)
    assert fourth.is_video_file
    assert fourth.relevant_boxes is None
    assert fourth.frames == ()


def test_a_misspelt_key_is_refused_and_other_keys_are_ignored(folder: Path) -> None:
    asked = {"image": "0.png", "question": "Where?"}
    others = {"id": "a", "question_id": 3, "imageid": 1, "source": "x", "index": 0}
    assert JsonLines(write_lines(folder, {**asked, **others}))[0].question == "Where?"
    with one_sentence(ValueError, "data.jsonl", "'answr'", "'answer'"):
        JsonLines(write_lines(folder, {**asked, "answr": "here"}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image": None}, "needs either"),
        ({"video": "clip.mp4"}, "needs either"),
        ({"image": []}, "no image"),
        ({"image": 3}, "must be a path, not int"),
        ({"image": "none.png"}, "no image file"),
        ({"image": "https://host/0.png"}, "is an address"),
        ({"image": None, "video": "http://host/clip.mp4"}, "is an address"),
        ({"question": "  "}, "no question"),
        ({"answer": {"value": "x"}}, "keys value: it needs 'answer'"),
        ({"answer": [["x"]]}, "text or a number, not list"),
        ({"answers": ["x"], "answer": "x"}, "both 'answer' and 'answers'"),
        ({"choices": "one"}, "must be a list, not str"),
        ({"choices": ["a", "", "c"]}, "choice 2 is empty"),
        ({"choices": [str(n) for n in range(27)]}, "27 choices"),
        ({"choices": ["cat", "dog"], "answer": "hat"}, "'hat' is none of its 2 choices"),
        ({"choices": ["cat", "dog"], "answer": 2}, "2 is none of its 2 choices"),
        ({"choices": ["cat", "dog"], "answer": -1}, "-1 is none of its 2 choices"),
        ({"choices": ["B", "A"], "answer": "A"}, "one choice and the text of another"),
        ({"relevant_boxes": [[1, 2, 3]]}, "left, top, right, bottom"),
        ({"relevant_boxes": 3}, "left, top, right, bottom"),
        ({"relevant_boxes": [["a", 2, 3, 4]]}, "numbers"),
        ({"image": None, "video": ["0.png"], "relevant_boxes": [[0, 0, 9, 9]]}, "relevant_frames"),
        (
            {
                **{"image": None, "video": ["0.png"], "relevant_boxes": [[0, 0, 9, 9]]},
                "relevant_frames": [1],
            },
            "has the frame 1",
        ),
    ],
)
def test_bad_samples(changed: dict[str, Any], words: str, folder: Path) -> None:
    lines = JsonLines(write_lines(folder, {"image": "0.png", "question": "Where?", **changed}))
    with pytest.raises((OSError, ValueError), match=words):
        lines[0]


def test_a_dataset_gives_the_samples_of_a_file(folder: Path, tmp_path: Path) -> None:
    rows = [(f"{number}.png", *question(number)) for number in range(2)]
    path = write_lines(
        folder,
        *({"image": image, "question": text, "answer": answer} for image, text, answer in rows),
    )
    columns = {
        "photo": [str(folder / image) for image, _, _ in rows],
        "query": [text for _, text, _ in rows],
        "answer": [answer for _, _, answer in rows],
    }
    columns["id"] = ["a", "b"]
    text = Value("string")
    features = {"photo": Image(), "query": text, "answer": text, "id": text}
    Dataset.from_dict(columns, Features(features)).save_to_disk(str(tmp_path))
    source = HubDataset(str(tmp_path), columns={"image": "photo", "question": "query"})
    lines = JsonLines(path)
    assert len(source) == len(lines) == 2
    for number in range(2):
        expected, found = lines[number], source[number]
        assert (found.question, found.answer) == (expected.question, expected.answer)
        assert found.visuals[0].tobytes() == expected.visuals[0].tobytes()
    assert str(tmp_path) not in json.dumps(source.describe())
    with one_sentence(ValueError, "no column 'smell'", "photo, query, answer, id"):
        HubDataset(str(tmp_path), columns={"question": "smell"})


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_where_json_lines_do(mark: str, end: str, tmp_path: Path) -> None:
    """Strings in JSON may hold what Unicode calls ends of lines, and files start with a mark."""
    question = "What is\u2028left\x85of\u2029the cat?"
    row = json.dumps({"video": "a.mp4", "question": question}, ensure_ascii=False)
    path = tmp_path / "data.jsonl"
    path.write_bytes((mark + end.join([row, "", row, ""])).encode())
    lines = JsonLines(path)
    assert [lines[number].question for number in range(len(lines))] == [question] * 2


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes('{"question": "Where?"}\n{"question": "Où?"}\n'.encode("latin-1"))
    with one_sentence(ValueError, str(path), "line 2", "save it as UTF-8"):
        JsonLines(path)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda folder: JsonLines(folder / "none.jsonl"), FileNotFoundError, "no data file"),
        (lambda folder: JsonLines(write_lines(folder, "", " ")), ValueError, "holds no samples"),
    ],
)
def test_data_that_is_not_there(
    make: Callable[[Path], SampleSource], kind: type[Exception], words: str, tmp_path: Path
) -> None:
    with one_sentence(kind, words):
        make(tmp_path)


def test_iteration_ends() -> None:
    source = ClipSource(2)
    assert [sample.question for sample in source] == [source[0].question, source[1].question]
