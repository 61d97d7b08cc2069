"""`recommend` on the trained tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig, load_tiny
from hf_token_compress.cli import app
from hf_token_compress.data.scenes import make_scene
from hf_token_compress.evaluation import measure_retention, scene_samples
from hf_token_compress.tiny import resolve_model

FEW = ("--kind", "colour", "--per-kind", "10", "--max-new-tokens", "4", "--min-visual-tokens", "20")
RATIOS = (0.5, 0.1, 0.02)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["recommend", *map(str, arguments)])


def test_it_finds_what_the_table_of_all_ratios_implies(tmp_path: Path) -> None:
    output = tmp_path / "setting.json"
    ratios = ",".join(map(str, RATIOS))
    options = ("--scorer", "uniform", "--retention-ratio", ratios, "--max-loss", 60)
    outcome = call(*FEW, *options, "--output", output, "--json")
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    full, *results = measure_retention(
        *load_tiny("qwen2-vl"),
        scene_samples(["colour"], 10),
        scorers=["uniform"],
        retention_ratios=RATIOS,
        max_new_tokens=4,
    )
    tested = {step["config"]["retention_ratio"]: step for step in found["steps"]}
    for result in results[: len(tested)]:
        step = tested[result.retention_ratio]
        assert step["percent_of_full"] == pytest.approx(100 * result.accuracy() / full.accuracy())
        assert step["kept_share"] == result.kept_share
    within = [ratio for ratio, step in tested.items() if step["loss_bound"] <= 60]
    setting = found["token_compression"]
    assert (setting["retention_ratio"], setting["min_visual_tokens"]) == (min(within), 20)
    # The file is what `from_pretrained` takes.
    saved = TokenCompressionConfig.from_dict(json.loads(output.read_text()))
    assert saved.to_dict() == setting


def test_without_answers_agreement_counts(tmp_path: Path) -> None:
    lines = []
    for seed in range(8):
        make_scene(seed).image.save(tmp_path / f"{seed}.png")
        lines.append({"image": f"{seed}.png", "question": "What is at row 2, column 3?"})
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    answers = tmp_path / "answers.jsonl"
    options = ("--data", data, "--scorer", "mapper", "--retention-ratio", "0.75", "--max-loss", 60)
    options = (*options, "--max-new-tokens", "4", "--min-visual-tokens", "20")
    outcome = call(*options, "--answers", answers)
    assert outcome.exit_code == 0, outcome.stderr
    assert "Agreement with the full model" in outcome.stdout
    printed = outcome.stdout.split("import hf_token_compress")[0].splitlines()
    assert max(map(len, printed)) <= 80
    # Nothing is asked again.
    size = answers.stat().st_size
    assert call(*options, "--answers", answers).stdout == outcome.stdout
    assert answers.stat().st_size == size


@pytest.mark.matrix
def test_this_machine_says_from_how_many_tokens_it_is_faster() -> None:
    options = ("--scorer", "uniform", "--retention-ratio", "0.5", "--max-loss", 60, "--json")
    outcome = call(*FEW[:-2], *options)
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["token_compression"]["min_visual_tokens"] >= 16


def test_too_few_questions_load_no_model(tmp_path: Path) -> None:
    """The model's folder has a config, but no weights."""
    shutil.copy(Path(resolve_model("tiny-qwen2-vl")) / "config.json", tmp_path)
    command = (*FEW, "--model", tmp_path, "--scorer", "uniform")
    outcome = call(*command, "--json")
    assert outcome.exit_code == 3, outcome.stderr
    found = json.loads(outcome.stdout)
    assert (found["verdict"], found["token_compression"]) == ("too_few_questions", None)
    assert found["questions"] == 10 < found["questions_needed"]
    assert "The data is too small to tell" in call(*command).stdout


def test_nothing_is_recommended_where_all_lose_too_much(tmp_path: Path) -> None:
    output = tmp_path / "setting.json"
    options = ("--scorer", "uniform", "--retention-ratio", "0.02", "--max-loss", 40)
    outcome = call(*FEW, *options, "--output", output)
    assert outcome.exit_code == 4, outcome.stderr
    assert "Nothing is recommended" in outcome.stdout
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-loss", "-1"), "max_loss must be in (0, 100), but it is -1"),
        (("--confidence", "1.5"), "confidence must be in [0.5, 1), but it is 1.5"),
        (("--scorer", "truth"), "no scorer 'truth' to recommend"),
        (("--scorer", "attention,attention"), "asked twice"),
        (("--retention-ratio", "2"), "retention_ratio must be in (0, 1], but"),
        (("--model", "tiny-vila", "--mapper", "x", "--scorer", "uniform"), "not used without"),
        (("--output", "/nowhere/setting.json"), "There is no folder"),
        (("--data", "missing.jsonl"), "missing.jsonl"),
        (("--data", "x.json", "--output", "./x.json"), "--data and --output name the same file"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    outcome = call(*arguments)
    assert outcome.exit_code in (1, 2)
    assert outcome.stderr.startswith("Error: ")
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
