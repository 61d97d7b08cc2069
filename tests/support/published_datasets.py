"""Folders with the schemas of published data sets, and questions of this library's own in them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from sample_files import question, write_video

from hf_token_compress.data.composed import ClipSource
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import make_scene

_SOURCE = ClipSource(2, frames=4, frames_per_scene=2)
CLIPS = [_SOURCE[number] for number in range(len(_SOURCE))]
Row = dict[str, Any]


def write_infinity_mm(folder: Path) -> list[tuple[str, str]]:
    """Two tar files of a WebDataset with the same keys, each with a sample of text alone.

    Returns:
        Questions and answers about the images.
    """
    asked = [question(number) for number in range(4)]
    for shard in range(2):
        path = folder / "stage3" / "general" / f"{shard:05d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as file:
            for place, number in enumerate((2 * shard, 2 * shard + 1)):
                content = io.BytesIO()
                make_scene(number, 4, 4, split="mapper").image.convert("RGB").save(content, "PNG")
                row = _infinity_mm(*asked[number], number)
                _add(file, f"{place:09d}", content.getvalue(), row)
            _add(file, "000000002", b"", _infinity_mm("What is a cat?", "An animal.", 9))
    return asked


def _infinity_mm(text: str, answer: str, number: int) -> Row:
    """As in the card's example, whose hash needs 64 bits without sign."""
    return {
        "id": str(number),
        "source": "llava",
        "conversations": _turns(text, answer),
        "image": "/path/of/the/image",
        "ram++_tags": ["wall", "dry"],
        "ram++_tags_score": [9.56411075592041, 2.3733813762664795],
        "phash": [12512305226191801180],
        "qw2vl_loss": 3.0559005737304688,
    }


def _add(file: tarfile.TarFile, key: str, image: bytes, row: Row) -> None:
    for name, content in ((f"{key}.jpg", image), (f"{key}.json", json.dumps(row).encode())):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))


def write_llava_video(folder: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Three subsets: their JSON arrays, and their videos as they are once unpacked.

    Returns:
        For each subset, the questions and answers, and the paths of the videos below it.
    """
    academic, nextqa, activitynet = (
        "0_30_s_academic_v0_1",
        "0_30_s_nextqa",
        "1_2_m_activitynetqa",
    )
    ending = "Please provide your answer by stating the letter followed by the full option."
    chosen = f"What is it?\nA. a cat.\nB. a dog.\n{ending}"
    open_ended = [(clip.question, str(clip.answer)) for clip in CLIPS]
    questions = {
        academic: [(chosen, "A. a cat."), (chosen, "B. a dog.")],
        nextqa: [(chosen, "B. a dog."), (chosen, "A. a cat.")],
        activitynet: open_ended,
    }
    videos = {
        academic: ["academic_source/Charades/RW587.mp4", "academic_source/youcook2/a.mp4"],
        nextqa: ["NextQA/NExTVideo/1006/8968804598.mp4", "NextQA/NExTVideo/1150/77.mp4"],
        activitynet: ["ActivityNet-QA/activitynet/train/v_a.mp4", "ActivityNet-QA/v_b.mp4"],
    }
    files = {
        academic: "0_30_s_academic_mc_v0_1_qa_processed.json",
        nextqa: "0_30_s_nextqa_mc_qa_processed.json",
        activitynet: "1_2_m_activitynetqa_oe_qa_processed.json",
    }
    for subset, names in videos.items():
        rows = [
            {
                "id": Path(name).stem,
                "conversations": [*_turns(*asked), *_turns("And then?", "It goes on.")],
                "data_source": subset,
                "video": name,
            }
            for asked, name in zip(questions[subset], names, strict=True)
        ]
        _write_json(folder / subset / files[subset], rows)
        # The archives of one subset unpack below a folder of their own.
        unpacked = folder / subset / "data" if subset == academic else folder / subset
        for clip, name in zip(CLIPS, names, strict=True):
            _write_clip(unpacked / name, clip)
    captions = [{**rows[0], "conversations": _turns("Describe it.", "A long caption.")}]
    _write_json(folder / academic / "0_30_s_academic_v0_1_cap_processed.json", captions)
    _write_json(folder / academic / "0_30_s_academic_oe_v0_1_qa_processed.json", captions)
    splits = {"caption": "cap", "open_ended": "oe", "multi_choice": "mc"}
    _write_card(folder, academic, {split: f"{academic}/*{k}*.json" for split, k in splits.items()})
    return {
        subset: [(*asked, name) for asked, name in zip(questions[subset], names, strict=True)]
        for subset, names in videos.items()
    }


def write_nextqa(folder: Path, videos: Path) -> list[tuple[str, tuple[str, ...], str]]:
    """The subset of multiple choice, and videos that bear their numbers.

    Returns:
        Questions, choices and right choices.
    """
    choices = ("roll the handle", "tap their feet", "strum the string", "hit it", "pat it")
    rows = [
        {
            "video": 4010069381 + number,
            "frame_count": 369,
            "width": 640,
            "height": 480,
            "question": f"how do the two men play the instrument {number}",
            "answer": 2 * number,
            "qid": 6 + number,
            "type": "CH",
            **{f"a{place}": text for place, text in enumerate(choices)},
        }
        for number in range(2)
    ]
    (folder / "MC").mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(str(folder / "MC" / "test-00000-of-00001.parquet"))
    _write_card(folder, "MC", {"test": "MC/test-*"})
    for row, clip in zip(rows, CLIPS, strict=True):
        _write_clip(videos / "1164" / f"{row['video']}.mp4", clip)
    return [(row["question"], choices, choices[row["answer"]]) for row in rows]


def write_activitynet_qa(folder: Path, videos: Path) -> list[tuple[str, str]]:
    """The test questions, and their videos.

    Returns:
        Questions and answers.
    """
    asked = [("does the car slow down", "no"), ("what colour is the hat", "blue")]
    rows = [
        {
            "video_name": f"1QIUV7WYKX{number}",
            "question": text,
            "question_id": f"v_1QIUV7WYKX{number}_3",
            "answer": answer,
            "type": "3",
        }
        for number, (text, answer) in enumerate(asked)
    ]
    (folder / "data").mkdir(parents=True)
    Dataset.from_list(rows).to_parquet(str(folder / "data" / "test-00000-of-00001.parquet"))
    for row, clip, extension in zip(rows, CLIPS, ("mp4", "mkv"), strict=True):
        _write_clip(videos / "all_test" / f"v_{row['video_name']}.{extension}", clip)
    return asked


def _turns(text: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": answer}]


def _write_json(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def _write_clip(path: Path, clip: Sample) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, list(clip.frames))


def _write_card(folder: Path, subset: str, files: dict[str, str]) -> None:
    """The head of a data set's card, which says what its subsets and splits are."""
    lines = ["---", "configs:", f"- config_name: {subset}", "  data_files:"]
    for split, pattern in files.items():
        lines += [f"  - split: {split}", f'    path: "{pattern}"']
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
