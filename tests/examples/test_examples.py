"""The scripts in `examples/` run as they are, and do what they say."""

from __future__ import annotations

import base64
import io
import json
import re
import runpy
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from peft import PeftModel
from places import REPOSITORY

from hf_token_compress import load_tiny
from hf_token_compress.data.scenes import make_scene

FOLDER = REPOSITORY / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
QUESTION = "What is at row 2, column 1?"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a script in this process; gives what it leaves in its names."""

    def run(name: str, *arguments: object, run_name: str = "__main__") -> dict[str, Any]:
        path = FOLDER / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        return runpy.run_path(str(path), run_name=run_name)

    return run


def place(number: int) -> str:
    """What is right for `QUESTION` about a scene."""
    scene = make_scene(number, rows=4, columns=4, split="test")
    return scene.cells[4].name  # row by row


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_page_lists_it_and_it_begins_with_how_to_run_it(path: Path) -> None:
    assert f"({path.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert f"    python examples/{path.name}\n" in text
    assert '"--model", default="tiny-qwen2-vl"' in text


def test_batch_vqa(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        make_scene(number, rows=4, columns=4, split="test").image.save(tmp_path / f"{number}.png")
    (tmp_path / "notes.pdf").write_text("no image")
    run("batch_vqa", tmp_path, "--question", QUESTION, "--batch-size", 2)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [
        {"image": f"{number}.png", "answer": place(number), "visual_tokens": 64, "kept": 16}
        for number in range(3)
    ]


@pytest.mark.matrix
def test_batch_vqa_without_a_folder(run: Any) -> None:
    answers = run("batch_vqa")["answers"]
    assert [answer["visual_tokens"] for answer in answers] == [64, 80] * 3


@pytest.mark.matrix
def test_chat(run: Any) -> None:
    turns = run("chat")["turns"]
    answers = [answer for _, answer, _, _ in turns]
    colour = next(
        cell.colour
        for cell in make_scene(6, rows=4, columns=4, split="test").cells
        if cell.name == "burger"
    )
    assert answers == ["bell", "row 2, column 1", colour, place(7)]
    known = [before for _, _, before, _ in turns]
    held = [after for _, _, _, after in turns]
    assert known == [0, *held[:-1]], "A turn goes on from the cache of the one before."
    # 64 visual tokens of each image, of which half are dropped.
    added = [after - before for after, before in zip(held, known, strict=True)]
    assert max(added[1:3]) < 32 < added[3] < 64


@pytest.mark.matrix
def test_chat_refuses_an_image_without_a_question(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "image.png"
    make_scene(6).image.save(path)
    with pytest.raises(SystemExit):
        run("chat", path, QUESTION, path)
    assert "a question must follow the last image" in capsys.readouterr().err


@pytest.mark.matrix
def test_chat_about_a_file_with_a_template_that_changes(run: Any, tmp_path: Path) -> None:
    """LLaVA-OneVision cuts one image into tiles, and of two none: the cache cannot go on."""
    paths = [tmp_path / f"{number}.png" for number in (6, 7)]
    for number, path in zip((6, 7), paths, strict=True):
        make_scene(number, rows=4, columns=4, split="test").image.save(path)
    said = (paths[0], QUESTION, paths[1], QUESTION)
    turns = run("chat", "--model", "tiny-llava-onevision", *said)["turns"]
    assert [known for _, _, known, _ in turns] == [0, 0]


@pytest.mark.matrix
def test_serve(run: Any) -> None:
    names = run("serve", "--port", 0, run_name="serve")
    server = names["server"]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def ask(number: int, **options: Any) -> dict[str, Any]:
        file = io.BytesIO()
        make_scene(number, rows=4, columns=4, split="test").image.save(file, "PNG")
        image = base64.b64encode(file.getvalue()).decode()
        request = {"image": image, "question": QUESTION, **options}
        with urllib.request.urlopen(address, json.dumps(request).encode()) as response:
            return json.loads(response.read())  # type: ignore[no-any-return]

    ratios = [0.25, 0.5] * 3
    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda n: ask(n, retention_ratio=ratios[n]), range(6)))
        with pytest.raises(HTTPError) as caught:
            ask(0, retention_ratio=2)
        with pytest.raises(HTTPError) as other_mapper:
            ask(0, retention_ratio={"mapper": "someone/mapper"})
    finally:
        server.shutdown()
        server.server_close()
    assert found == [
        {"answer": place(number), "visual_tokens": 64, "kept": round(64 * ratios[number])}
        for number in range(6)
    ]
    assert caught.value.code == other_mapper.value.code == 400
    assert "retention_ratio" in caught.value.read().decode()


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_finetune_lora(run: Any, tmp_path: Path) -> None:
    names = run("finetune_lora", "--save", tmp_path / "adapter")
    assert names["before"] == 0.0
    assert names["after"] > 0.5
    # The saved adapter does the same to another copy of the model.
    model, _ = load_tiny("qwen2-vl", token_compression={"mapper": "tiny-qwen2-vl"})
    names["accuracy"].__globals__["model"] = PeftModel.from_pretrained(model, tmp_path / "adapter")
    assert names["accuracy"]() > 0.5


@pytest.mark.matrix
def test_own_scorer(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("own_scorer", "--per-kind", 3)
    rows = {row.scorer: row for row in names["rows"]}
    assert set(rows) == {None, "novelty", "gated_fusion", "attention", "uniform", "random"}
    assert rows["novelty"].kept_share < 0.3
    printed = capsys.readouterr().out
    assert re.search(r"^novelty +2\d% of the tokens, +\d+% of", printed, re.MULTILINE)
