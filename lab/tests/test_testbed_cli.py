"""The testbed as a checkpoint folder in the commands of the library."""

from __future__ import annotations

import copy
import json

import pytest
from typer.testing import CliRunner

from hf_token_compress.cli import app
from lab.testbed.questions_file import DATA_FILE, export_samples
from lab.testbed.samples import object_samples
from lab.tests.testbed_models import assembled, need_parts, noise_image

pytestmark = pytest.mark.testbed
QUESTION = "What is in the middle?"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The testbed with an untrained projector.

    Its outputs are scaled up: otherwise the model ends its turn at once.
    """
    need_parts()
    folder = tmp_path_factory.mktemp("testbed")
    model, processor = assembled()
    loud = copy.deepcopy(model)
    for weight in loud.model.multi_modal_projector.linear_2.parameters():
        weight.data *= 30
    loud.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    noise_image(0).save(path)
    return path


def test_run(folder, image):
    outcome = call(
        *("run", "--model", folder, "--image", image, "--prompt", QUESTION, "--json"),
        *("--retention-ratio", 0.25, "--max-new-tokens", 2, "--dtype", "float32"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert (found["visual_tokens_before"], found["visual_tokens_after"]) == (528, 132)


def test_explain(folder, image, tmp_path):
    outcome = call(
        *("explain", "--model", folder, "--image", image, "--prompt", QUESTION),
        *("--answer", " cat", "--dtype", "float32", "--output", tmp_path / "why"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert list(tmp_path.rglob("*.png"))


def test_collect(folder, image, tmp_path):
    lines = tmp_path / "questions.jsonl"
    lines.write_text(json.dumps({"image": str(image), "question": QUESTION}) + "\n")
    outcome = call(
        *("collect", "--model", folder, "--data", lines, "--output", tmp_path / "shards"),
        *("--max-new-tokens", 2, "--targets", "sum"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.stdout.startswith("1 samples")


@pytest.mark.parametrize(
    ("source", "kinds"), [("drawings", ["place", "count"]), ("clips", ["first"])]
)
def test_evaluate(folder, tmp_path, source, kinds):
    """The folder and the file are all that the library needs from the laboratory."""
    export_samples(object_samples(kinds, 1, source=source), tmp_path)
    outcome = call(
        *("evaluate", "--model", folder, "--data", tmp_path / DATA_FILE, "--dtype", "float32"),
        *("--scorer", "truth,attention,random", "--retention-ratio", "0.25"),
        "--markdown",
    )
    assert outcome.exit_code == 0, outcome.output
    for word in (*kinds, "truth", "attention", "random"):
        assert word in outcome.stdout
