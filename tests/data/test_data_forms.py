"""Questions in the forms of published data sets, and data that cannot be used."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from errors import one_sentence
from PIL import Image as Pictures
from sample_files import write_lines
from typer.testing import CliRunner

from hf_token_compress.cli import app
from hf_token_compress.data.chat import conversation
from hf_token_compress.data.check import check_samples
from hf_token_compress.data.composed import clip_samples
from hf_token_compress.data.sources import HubDataset, JsonLines, SampleSource, TableFile

Row = dict[str, Any]
ASKED: Row = {"image": "a.png", "question": "What is it?"}
WORDS = ("cat", "dog", "hat")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, and a video in a subfolder, none of which is decoded."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "part").mkdir()
    for name, colour in (("a.png", "red"), ("part/b.png", "blue")):
        Pictures.new("RGB", (4, 4), colour).save(folder / name)
    (folder / "part" / "77.mp4").write_bytes(b"")
    (folder / "part" / "77.txt").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("row", "columns", "answers", "choices"),
    [
        ({"answer": "cat"}, {}, ["cat"], ()),
        ({"answer": 3}, {}, ["3"], ()),
        ({"answer": 12.5}, {}, ["12.5"], ()),
        ({"answer": None}, {}, [], ()),
        ({"answer": []}, {}, [], ()),
        # TextVQA and DocVQA; VQAv2; answers as SQuAD has them.
        ({"answers": ["cat", "tabby", "cat", ""]}, {}, ["cat", "tabby"], ()),
        ({"answers": [{"answer": "cat", "id": 1}, {"answer": "cats"}]}, {}, ["cat", "cats"], ()),
        ({"answers": {"text": ["cat"], "answer_start": [3]}}, {}, ["cat"], ()),
        ({"label": "cat", "answer": "no"}, {"answer": "label"}, ["cat"], ()),
        # The right choice by text, letter and number.
        ({"choices": WORDS, "answer": "Dog."}, {}, ["dog"], WORDS),
        ({"choices": WORDS, "answer": "(B)"}, {}, ["dog"], WORDS),
        ({"choices": WORDS, "answer": "B. dog"}, {}, ["dog"], WORDS),
        ({"choices": WORDS, "answer": 1}, {}, ["dog"], WORDS),
        ({"choices": WORDS, "answer": "1"}, {}, ["dog"], WORDS),
        ({"choices": WORDS, "answer": ["A", 1]}, {}, ["cat", "dog"], WORDS),
        ({"choices": WORDS}, {}, [], WORDS),
        ({"choices": ["7", "1", "2"], "answer": 1}, {}, ["1"], ("7", "1", "2")),
        ({"choices": ["7", "1", "0"], "answer": "0"}, {}, ["0"], ("7", "1", "0")),
        # NExT-QA; MMBench with an empty last choice; Video-MME; MMMU; ARC.
        (
            {"a0": "cat", "a1": "dog", "a2": "hat", "answer": 2},
            {"choices": ("a0", "a1", "a2")},
            ["hat"],
            WORDS,
        ),
        (
            {"A": "cat", "B": "dog", "C": float("nan"), "answer": "A"},
            {"choices": ("A", "B", "C")},
            ["cat"],
            WORDS[:2],
        ),
        ({"options": ["A. cat", "B. dog", "C. hat"], "answer": "C"}, {}, ["hat"], WORDS),
        ({"options": "['cat', \"dog\", 'hat']", "answer": "C"}, {}, ["hat"], WORDS),
        (
            {"choices": {"text": WORDS, "label": ["A", "B", "C"]}, "answer": "C"},
            {},
            ["hat"],
            WORDS,
        ),
    ],
)
def test_answers_and_choices(
    row: Row, columns: Any, answers: list[str], choices: tuple[str, ...], media: Path
) -> None:
    sample = JsonLines(write_lines(media, {**ASKED, **row}), columns)[0]
    assert list(sample.answers) == answers
    assert sample.answer == (answers[0] if answers else None)
    assert sample.choices == choices


def test_conversations_of_llava(media: Path) -> None:
    """As in Infinity-MM and LLaVA-Video-178K: the first question, and what was answered."""
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "<image>\nWhat is <it>?"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "And now?"},
        {"from": "gpt", "value": "A dog."},
    ]
    chat = [{"role": "user", "content": "What is it?"}]
    rows = [{"image": "a.png", "conversations": turns}, {"image": "a.png", "conversations": chat}]
    first, second = JsonLines(write_lines(media, *rows))
    assert (first.question, first.answers) == ("What is <it>?", ("A cat.",))
    assert (second.question, second.answers) == ("What is it?", ())


def test_multiple_choice_is_asked_with_letters(media: Path) -> None:
    rows = [{**ASKED, "choices": WORDS[:2]}, ASKED]
    path = write_lines(media, *rows)
    texts = [sample.prompt for sample in JsonLines(path)]
    lettered = "What is it?\nA. cat\nB. dog\nAnswer with the letter of the right choice."
    assert texts == [lettered, "What is it?"]
    chosen, free = JsonLines(path, prompt_suffix="One word.")
    assert chosen.prompt == "What is it?\nA. cat\nB. dog\nOne word."
    assert free.prompt == "What is it?\nOne word."
    assert conversation(chosen)[0]["content"][1] == {"type": "text", "text": chosen.prompt}


def test_names_lead_into_objects_and_join_columns(media: Path) -> None:
    """Infinity-MM is a web dataset, whose JSON is a column; ActivityNet's files start with "v_"."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    rows = [
        {"json": {"source": "x", "turns": turns}, "name": "a"},
        {"json": {"source": "y"}, "name": "b"},
        {"json": {"source": "x", "turns": turns}, "name": None},
    ]
    columns = {"question": "json.turns", "image": "{name}.png"}
    source = JsonLines(write_lines(media, *rows), columns, filters={"json.source": "x"})
    assert (source[0].question, source[0].answer) == ("What?", "A cat.")
    assert source[0].visuals[0].size == (4, 4)
    with pytest.raises(ValueError, match="needs either"):
        source[1]
    with one_sentence(ValueError, "no column 'nam'", "did you mean 'name'?"):
        JsonLines(write_lines(media, *rows), {**columns, "image": "{nam}.png"})


def test_media_are_found_by_name_in_a_folder(media: Path, tmp_path: Path) -> None:
    rows: list[Row] = [
        {"video": 77, "question": "What?"},
        {"video": "part/77", "question": "What?"},
        {"image": ["b", "a.png"], "question": "What?"},
    ]
    samples = list(JsonLines(write_lines(tmp_path, *rows), media_folder=media))
    assert [sample.visuals for sample in samples[:2]] == [(str(media / "part" / "77.mp4"),)] * 2
    assert [image.getpixel((0, 0)) for image in samples[2].visuals] == [(0, 0, 255), (255, 0, 0)]
    (tmp_path / "c").mkdir()
    for name in ("a.mp4", "c/a.mkv"):
        (tmp_path / name).write_bytes(b"")
    path = write_lines(tmp_path, {"video": "a", "question": "What?"})
    with pytest.raises(ValueError, match=r"a\.mp4.*a\.mkv"):
        JsonLines(path, media_folder=tmp_path)[0]
    with pytest.raises(FileNotFoundError, match="no video file"):
        JsonLines(path).peek(0)


def test_a_dataset_with_images_of_its_own(media: Path, tmp_path: Path) -> None:
    """Parquet in a folder, as datasets are on the Hub; nothing is decoded to check it."""
    names, text = ["cat", "dog"], Value("string")
    features = Features(
        {
            "image": Image(),
            "images": List(Image()),
            "raw": {"bytes": Value("binary"), "path": text},
            "query": text,
            "label": ClassLabel(names=names),
            "answers": {"answer": List(text)},
            "source": text,
        }
    )
    broken = {"bytes": b"no image", "path": None}
    red, blue = (media / name for name in ("a.png", "part/b.png"))
    columns = {
        "image": [str(red), broken, str(red)],
        "images": [[str(red), str(blue)]] * 3,
        "raw": [{"bytes": blue.read_bytes(), "path": "x.png"}] * 3,
        "query": ["a?", "b?", "c?"],
        "label": [0, 1, None],
        "answers": [{"answer": ["cat", "tabby"]}] * 3,
        "source": ["web", "book", "web"],
    }
    folder = tmp_path / "animals"
    folder.mkdir()
    Dataset.from_dict(columns, features).to_parquet(str(folder / "train.parquet"))

    def source(**options: Any) -> HubDataset:
        names = {"image": "image", "question": "query", "answer": "label"}
        names |= options.pop("names", {})
        return HubDataset(str(folder), columns=names, **options)

    everything = source()
    checked = check_samples(everything)
    assert (checked.samples, checked.answered, checked.bad) == (3, 2, [])
    assert everything[0].visuals[0].getpixel((0, 0)) == (255, 0, 0)
    assert everything[0].answer == "cat"
    with pytest.raises(ValueError, match="image that the dataset holds"):
        everything[1]
    with pytest.raises(IndexError):
        everything[3]
    several = source(names={"image": "images", "answer": "answers"})[1]
    assert [image.getpixel((0, 0)) for image in several.visuals] == [(255, 0, 0), (0, 0, 255)]
    assert several.answers == ("cat", "tabby")
    joined = source(names={"image": ("raw", "image")})[0]
    assert [image.getpixel((0, 0)) for image in joined.visuals] == [(0, 0, 255), (255, 0, 0)]
    web = source(filters={"source": "web"}, limit=2)
    assert [web[number].question for number in range(len(web))] == ["a?", "c?"]
    assert source(filters={"label": "dog"}).peek(0).question == "b?"
    assert str(tmp_path) not in json.dumps(web.describe())
    descriptions = [everything.describe(), web.describe(), source(limit=2).describe()]
    assert all(descriptions.count(item) == 1 for item in descriptions)


def test_tables_give_the_samples_of_json(media: Path) -> None:
    rows = [
        {"image": "a.png", "question": "What?", "answer": 2, "a": "x", "b": "y", "c": 3, "n": 7},
        {"image": "part/b.png", "question": "Who?", "answer": None, "a": "x", "b": "z", "n": 8},
        {"image": "a.png", "question": "Where?", "answer": 0, "a": "u", "b": "v", "c": 4, "n": 7},
    ]
    options: Row = {"columns": {"choices": ("a", "b", "c")}, "filters": {"n": "7"}}
    with (media / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    whole = [{**row, "c": str(row.get("c"))} for row in rows]
    Dataset.from_list(whole).to_parquet(str(media / "table.parquet"))
    (media / "table.json").write_text(json.dumps(rows))
    sources: list[SampleSource] = [
        JsonLines(write_lines(media, *rows), **options),
        JsonLines(media / "table.json", **options),
        TableFile(media / "table.csv", **options),
        TableFile(media / "table.parquet", **options),
    ]
    for source in sources:
        first, second = (source[number] for number in range(len(source)))
        assert (first.question, first.answer, first.choices) == ("What?", "3", ("x", "y", "3"))
        assert (second.question, second.answer) == ("Where?", "u")
        assert second.visuals[0].size == (4, 4)
    digests = [source.describe()["sha256"] for source in sources]
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ([ASKED], ["--answer-column", "anser"], ["'anser'", "it has image, question"]),
        (
            [{**ASKED, "answer": "x"}],
            ["--answer-column", "anser"],
            ["column 'anser' (did you mean 'answer'?)"],
        ),
        ([ASKED], ["--filter", "source=web"], ["no column 'source'"]),
        ([{**ASKED, "n": 1}], ["--filter", "n=2"], ["no sample with n=2", "it has 1"]),
        ([{**ASKED, "n": 1}], ["--filter", "n=2", "--filter", "n=1"], ["--filter", "'n' twice"]),
        ([{**ASKED, "answr": "x"}], [], ["'answr'", "did you mean 'answer'?"]),
        ([{"image": "a.png", "query": "x"}], [], ["no column 'question'", "--question-column"]),
        ([{"img": "a.png", "question": "x"}], [], ["'image' or 'video'", "--image-column"]),
        ([ASKED, {**ASKED, "image": "b.png"}], [], ["Line 2 of", "no image file", "--skip-bad"]),
        (
            [{**ASKED, "image": "b.png"}],
            ["--skip-bad"],
            ["Line 1 of 'data.jsonl'", "no image file"],
        ),
        ([{"video": "b.mp4", "question": "x"}], [], ["Line 1 of", "no video file"]),
        ([{**ASKED, "image": "."}], [], ["Line 1 of", "is a folder, not an image file"]),
        ([ASKED, {**ASKED, "answr": "x"}], ["--skip-bad"], ["data.jsonl", "line 2", "'answr'"]),
        ([ASKED, "", '{"image"'], [], ["Line 3 of", "not valid JSON"]),
        ([ASKED, "3"], [], ["Line 2 of", "not a JSON object"]),
        (["[3]", ASKED], [], ["Line 1 of", "not a JSON object"]),
        ([json.dumps([ASKED, "{}"])], [], ["Item 2 of", "not a JSON object"]),
        ([{**ASKED, "n": 1}, {**ASKED, "n": 2, "image": "b.png"}], ["--filter", "n=2"], ["Line 2"]),
        (["[3"], [], ["not valid JSON"]),
        ([""], [], ["holds no samples"]),
        ([{**ASKED, "answer": "x"}], ["--metric", "choice"], ["choice needs choices"]),
        ([{**ASKED, "choices": WORDS}], ["--metric", "choice"], ["needs right answers"]),
        ([ASKED], ["--metric", "exact"], ["needs right answers", "--answer-column"]),
        ([{**ASKED, "answer": "x"}], ["--metric", "relaxed_accuracy"], ["about numbers"]),
        (
            [{**ASKED, "choices": WORDS, "answer": "A"}, {**ASKED, "answer": "x"}],
            ["--metric", "exact"],
            ["ask for a letter", "metric choice", "--prompt-suffix"],
        ),
        ([{**ASKED, "choices": WORDS, "answer": "D"}], [], ["'D' is none of its 3 choices"]),
        ([{**ASKED, "choices": {"A": "cat"}, "answer": "A"}], [], ["keys A", "give a list"]),
        ([{**ASKED, "relevant_boxes": [[0, 0, float("nan"), 1]]}], [], ["finite numbers"]),
        ([{**ASKED, "image": " "}], [], ['either "image" or "video"']),
        ([ASKED], ["--image-column", "{image"], ["pattern '{image'", "cannot be read"]),
        ([ASKED], ["--image-column", "{}.png"], ["pattern '{}.png'", "name of a column"]),
        ([ASKED], ["--limit", "0"], ["limit", "at least 1"]),
        ([ASKED], ["--modality", "video"], ["--modality video", "no sample"]),
        ([ASKED], ["--media-folder", "none"], ["no folder 'none'"]),
        ([ASKED], ["--subset", "x"], ["--subset", "--dataset"]),
        ([ASKED], ["--dataset", "x"], ["--data and --dataset"]),
        ([ASKED], ["--kind", "x"], ["--kind", "composed"]),
    ],
)
def test_data_that_cannot_be_used_is_found_before_a_model_is_loaded(
    content: list[Any], arguments: list[str], words: list[str], media: Path, tmp_path: Path
) -> None:
    path = write_lines(media, *content)
    command = ["collect", "--model", "no/model", "--data", path, "--output", tmp_path / "shards"]
    outcome = CliRunner().invoke(app, [*map(str, command), *arguments])
    assert outcome.exit_code in (1, 2), outcome.output
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert ". " not in line
    assert all(word in line for word in words), line


def test_collect_takes_the_modality_of_its_data(tmp_path: Path) -> None:
    (clip,) = clip_samples(["first"], 1, frames=2)
    for number, frame in enumerate(clip.frames):
        frame.save(tmp_path / f"{number}.png")
    row = {"video": ["0.png", "1.png"], "asked": clip.question, "n": 1}
    path = write_lines(tmp_path, row, {**row, "n": 2}, row)
    command = ["collect", "--model", "tiny-qwen2-vl", "--data", path, "--output", tmp_path / "out"]
    options = ["--question-column", "asked", "--filter", "n=1", "--limit", "1"]
    fast = ["--rule", "edges_absolute", "--targets", "sum", "--max-new-tokens", "8"]
    outcome = CliRunner().invoke(app, [*map(str, command), *options, *fast])
    assert outcome.exit_code == 0, outcome.output
    started = json.loads((tmp_path / "out" / "collection.json").read_text())
    assert started["options"]["modality"] == "video"
    assert {"columns": {"question": ["asked"]}, "filters": {"n": 1}, "limit": 1}.items() <= (
        started["data"].items()
    )
    assert outcome.stdout.startswith("1 samples in")


def test_rows_of_a_table_are_named_as_they_are_numbered_in_it(media: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("image,question,n\na.png,x,1\na.png,x,2\n")
    source = TableFile(path, media_folder=media, filters={"n": 2})
    assert source.place(0) == "row 2 of 'table.csv'"
    path.write_text("image,question,answr\na.png,x,y\n")
    with pytest.raises(ValueError, match="'answr' \\(did you mean 'answer'\\?\\)"):
        TableFile(path)


def test_bad_samples_are_left_out_on_demand(media: Path, tmp_path: Path) -> None:
    path = write_lines(media, ASKED, {**ASKED, "image": "b.png"})
    command = ["collect", "--model", tmp_path, "--data", path, "--output", tmp_path / "shards"]
    outcome = CliRunner().invoke(app, [*map(str, command), "--skip-bad"])
    first, last = outcome.stderr.strip().splitlines()
    assert "1 of 2 samples are left out: line 2 of 'data.jsonl', there is no image file" in first
    assert "b.png" not in last  # it got as far as the model


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda folder: HubDataset(str(folder), "test"), ValueError, ["'test'", "cannot be read"]),
        (lambda folder: TableFile(folder / "none.csv"), FileNotFoundError, ["no data file"]),
        (JsonLines, IsADirectoryError, ["is a folder", "--dataset"]),
        (lambda folder: TableFile(folder / "empty.csv"), ValueError, ["empty.csv", "empty"]),
        (lambda folder: TableFile(folder / "semicolons.csv"), ValueError, ["by ';'", "commas"]),
        (lambda folder: TableFile(folder / "latin.csv"), ValueError, ["in its line 2", "UTF-8"]),
        (lambda folder: JsonLines(folder / "a.tsv"), ValueError, ["not hold JSON", ".parquet"]),
        (lambda folder: JsonLines("https://x.org/a.json"), FileNotFoundError, ["not downloaded"]),
        (
            lambda folder: JsonLines(folder / "a.jsonl", {"picture": "x"}),
            ValueError,
            ["'picture'", "image, video"],
        ),
    ],
)
def test_sources_that_there_are_not(
    make: Callable[[Path], SampleSource], kind: type[Exception], words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_text("image,question\na.png,What?\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "semicolons.csv").write_text("image;question\na.png;Who, what?\n")
    (tmp_path / "latin.csv").write_bytes("image,question\na.png,Où?\n".encode("latin-1"))
    (tmp_path / "a.tsv").write_text("image\tquestion\na.png\tWhat?\n")
    (tmp_path / "a.jsonl").write_text(json.dumps(ASKED))
    with one_sentence(kind, *words):
        make(tmp_path)
