from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText, BertConfig
from typer.testing import CliRunner

from hf_token_compress import TokenCompressionConfig, __version__, load_tiny
from hf_token_compress.cli import app
from hf_token_compress.cli.checkpoint import ModelOptions
from hf_token_compress.cli.demo_outputs import next_command
from hf_token_compress.cli.errors import CommandError
from hf_token_compress.data.scenes import make_scene, scene_questions
from hf_token_compress.tiny import resolve_model

MODEL = "tiny-qwen2-vl"


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def scene():
    return make_scene(0, 4, 4, split="test")


@pytest.fixture(scope="module")
def question(scene):
    return scene_questions(scene, kinds=["colour"])[0]


@pytest.fixture(scope="module")
def image(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "board.png"
    scene.image.save(path)
    return path


def answer_json(*arguments):
    outcome = call("run", "--json", *arguments)
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_help_and_wrong_arguments_do_not_load_torch():
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from hf_token_compress.cli import app\n"
        "verbs = 'run demo app evaluate recommend benchmark explain'.split()\n"
        "verbs += 'collect train push families env'.split()\n"
        "for words in (['--help'], *([verb, '--help'] for verb in verbs), ['--version']):\n"
        "    outcome = CliRunner().invoke(app, words)\n"
        "    assert outcome.exit_code == 0 and outcome.stdout, words\n"
        "for words in (\n"
        "    ['run', '--model', 'm', '--prompt', 'x', '--retention-ratio', '2'],\n"
        "    ['collect', '--model', 'm', '--output', 'x', '--scenes', '3', '--targets', 'none'],\n"
        "    ['train', '--output', 'x', '--collection', 'y', '--mask-ratio', '2'],\n"
        "    ['evaluate', '--retention-ratio', 'few'],\n"
        "    ['benchmark', '--visual-tokens', 'few'],\n"
        "):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 2, words\n"
        "print(outcome.stdout.strip(), sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"hf-token-compress {__version__} []"


def test_help_shows_whole_commands():
    assert "hf-token-compress run --model" in call("run", "--help").stdout
    assert "hf-token-compress demo" in call("demo", "--help").stdout


def test_run_answers_with_half_of_the_tokens(image, question):
    found = answer_json("--model", MODEL, "--image", image, "--prompt", question.text)
    assert found["answer"] == question.answer
    # 4 x 4 cells of 2 x 2 tokens.
    assert (found["visual_tokens_before"], found["visual_tokens_after"]) == (64, 32)
    assert found["prompt_tokens_before"] - found["prompt_tokens_after"] == 64 - 32
    assert found["new_tokens"] >= 1
    assert all(found[f"{part}_ms"] > 0 for part in ("vision", "scoring", "rewriting", "generation"))
    assert found["token_compression"]["retention_ratio"] == 0.5
    assert found["scorer"] == found["token_compression"]["scorer"] == "mapper"
    assert found["mapper"] == MODEL


def test_stdout_of_a_process_is_one_json_object(image):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hf_token_compress.cli", "run", "--model", MODEL, "--json"),
            *("--image", str(image), "--prompt", "Where is the cat?", "--max-new-tokens", "4"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["new_tokens"] <= 4


def test_a_reader_that_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hf_token_compress.cli", "families"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert "Error" not in done.stderr


def test_run_prints_the_answer_and_the_counts(image, question):
    outcome = call("run", "--model", MODEL, "--image", image, "--prompt", question.text)
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[0] == question.answer
    assert "64 → 32" in outcome.stdout
    assert f"mapper ({MODEL})" in outcome.stdout
    assert "warm-up" not in outcome.stdout
    assert "warm-up" in outcome.stderr


def test_options_reach_the_compression(image):
    base = ["--model", MODEL, "--image", image, "--prompt", "What is at row 1, column 1?"]
    quarter = answer_json(*base, "--retention-ratio", 0.25)
    assert quarter["visual_tokens_after"] == 16
    capped = answer_json(*base, "--max-visual-tokens", 5)
    assert capped["visual_tokens_after"] == 5
    left_alone = answer_json(*base, "--min-visual-tokens", 65)
    assert left_alone["visual_tokens_after"] == 64
    few = answer_json(*base, "--retention-ratio", 1, "--top-p", 0.2)
    assert few["visual_tokens_after"] < 64
    seeded = answer_json(*base, "--scorer", "random", "--scorer-option", "seed=3")
    assert seeded["token_compression"]["scorer"] == "random"
    assert seeded["token_compression"]["scorer_options"] == {"seed": 3}


def test_overlays_are_written_for_every_image(image, tmp_path):
    wide = tmp_path / "wide.png"
    make_scene(1, 4, 6).image.save(wide)
    target = tmp_path / "out.png"
    found = answer_json(
        *("--model", MODEL, "--image", image, "--image", wide),
        *("--prompt", "Where is the cat?", "--overlay", target, "--max-new-tokens", 2),
    )
    assert found["visual_tokens_before"] == 64 + 96
    assert found["overlays"] == [str(target), str(tmp_path / "out-2.png")]
    for path, source in zip(found["overlays"], (image, wide), strict=True):
        drawn, original = Image.open(path), Image.open(source)
        assert drawn.width / drawn.height == original.width / original.height
        assert np.asarray(drawn).mean() < np.asarray(original).mean()


def test_an_image_is_turned_upright_as_its_exif_tag_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    lying = tmp_path / "lying.jpg"
    make_scene(1, 4, 6).image.save(lying, exif=exif)
    target = tmp_path / "out.png"
    answer_json(
        *("--model", MODEL, "--image", lying, "--prompt", "Where is the cat?"),
        *("--overlay", target, "--max-new-tokens", 2),
    )
    drawn = Image.open(target)
    assert drawn.height > drawn.width


def test_a_saved_setting_is_the_default_and_can_be_overridden(image, tmp_path):
    saved = TokenCompressionConfig(retention_ratio=0.125, scorer="uniform")
    model, processor = load_tiny("qwen2-vl", token_compression=saved)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    base = ["--model", tmp_path, "--image", image, "--prompt", "x", "--max-new-tokens", 1]
    as_saved = answer_json(*base)
    assert as_saved["visual_tokens_after"] == 8
    assert as_saved["token_compression"]["scorer"] == "uniform"
    overridden = answer_json(*base, "--scorer", "random")
    assert overridden["visual_tokens_after"] == 8
    assert overridden["token_compression"]["scorer"] == "random"


def test_run_uses_the_mapper_of_a_tiny_model_for_what_it_was_trained_for(scene, tmp_path):
    clip = tmp_path / "clip.gif"
    scene.image.save(clip, save_all=True, append_images=[make_scene(1, 4, 4).image])
    base = ["--video", clip, "--prompt", "Where is the cat?", "--max-new-tokens", 1]
    scorers = {
        name: answer_json("--model", name, *base)["scorer"]
        for name in (MODEL, "tiny-qwen2-vl-video")
    }
    assert scorers == {MODEL: "gated_fusion", "tiny-qwen2-vl-video": "mapper"}


def test_run_uses_the_mapper_saved_in_a_model_folder(image, tmp_path):
    model, processor = load_tiny("qwen2-vl", token_compression="tiny-qwen2-vl")
    model.save_pretrained(tmp_path, save_mapper=True)
    processor.save_pretrained(tmp_path)
    base = ["--image", image, "--prompt", "Where is the cat?", "--overlay"]
    drawn = []
    for name in (tmp_path, MODEL):
        target = tmp_path / f"{len(drawn)}.png"
        found = answer_json("--model", name, *base, target)
        assert (found["scorer"], found["mapper"]) == ("mapper", str(name))
        drawn.append(np.asarray(Image.open(target)))
    assert (drawn[0] == drawn[1]).all()
    other = answer_json("--model", tmp_path, *base, tmp_path / "2.png", "--scorer", "attention")
    assert (other["scorer"], other["mapper"]) == ("attention", None)
    outcome = call(
        *("evaluate", "--model", tmp_path, "--scorer", "mapper", "--kind", "place", "--json"),
        *("--per-kind", 1, "--retention-ratio", 0.25),
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["mapper"] == str(tmp_path)


def test_demo_writes_its_images_and_the_command_to_ask_again(tmp_path):
    folder = tmp_path / "a new" / "demo"
    outcome = call("demo", "--output", folder, "--questions", 3, "--seed", 5)
    assert outcome.exit_code == 0, outcome.stderr
    names = ["01-place.png", "02-colour.png", "03-letter.png"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "images"]
    assert sorted(path.name for path in (folder / "images").iterdir()) == names
    boards = ((4, 4), (4, 5), (5, 4))
    scenes = [make_scene(5 + number, *boards[number], split="test") for number in range(3)]
    for name, scene in zip(names, scenes, strict=True):
        sheet = Image.open(folder / name)
        assert sheet.width > 2 * sheet.height
        assert name in outcome.stdout
        plain = Image.open(folder / "images" / name)
        assert (np.asarray(plain) == np.asarray(scene.image)).all()
    assert "3 questions to tiny-qwen2-vl" in " ".join(outcome.stdout.split())
    # Three questions at four shares: each has its own row and its own verdict.
    assert outcome.stdout.count("right") + outcome.stdout.count("wrong") == 3 * 4 + 4
    assert outcome.stdout.count("right") - 4 >= 9
    # Tokens and cache before times.
    assert outcome.stdout.index("KV cache") < outcome.stdout.index("Time of a whole call")

    words = shlex.split(outcome.stdout.splitlines()[-1])
    assert words[:4] == [sys.executable, "-m", "hf_token_compress.cli", "run"]
    found = answer_json(*words[4:])
    number = names.index(Path(found["images"][0]).name)
    (question,) = scene_questions(scenes[number], [names[number][3:-4]], seed=5 + number)
    assert (found["prompt"], found["answer"]) == (question.text, question.answer)
    assert (folder / "asked.png").is_file()


@pytest.mark.parametrize(
    ("called", "on_path", "program"),
    [
        ("/an env/bin/hf-token-compress", True, "hf-token-compress"),
        ("/an env/bin/hf-token-compress", False, "'/an env/bin/hf-token-compress'"),
        (".venv/bin/hf-token-compress", True, ".venv/bin/hf-token-compress"),
    ],
)
def test_the_command_to_ask_again_is_called_as_demo_was(called, on_path, program, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    found = "/an env/bin/hf-token-compress" if on_path else None
    monkeypatch.setattr("shutil.which", lambda name: found)
    command = next_command(
        ModelOptions(model=MODEL),
        {"scorer": "uniform"},
        Path("a b.png"),
        "Where's it?",
        0.1,
        Path("out.png"),
    )
    assert command == (
        f"{program} run --model {MODEL} --image 'a b.png' --prompt 'Where'\"'\"'s it?' "
        "--retention-ratio 0.1 --overlay out.png --scorer uniform"
    )


def write_config(folder, text):
    folder.mkdir()
    (folder / "config.json").write_text(text)
    return folder


BAD_OPTIONS = [
    (["--retention-ratio", "0"], "retention_ratio"),
    (["--retention-ratio", "2"], "retention_ratio"),
    (["--retention-ratio", "25%"], "--retention-ratio takes a number, not '25%'"),
    (["--max-visual-tokens", "9.5"], "takes a whole number, not '9.5'"),
    (["--top-p", "1.5"], "top_p"),
    (["--max-visual-tokens", "0"], "max_visual_tokens"),
    (["--position-ids", "none"], "position_ids"),
    (["--instruction", "none"], "instruction"),
    (["--frames", "0"], "frames"),
    (["--scorer", "foo"], "foo"),
    (["--scorer", "random", "--scorer-option", "sed=1"], "sed"),
    (["--scorer", "random", "--scorer-option", "seed"], "KEY=VALUE"),
    (["--scorer", "mapper"], "trained mapper"),
    (["--scorer", "random", "--mapper", "a/b"], "a/b"),
    (["--mapper-revision", "main"], "mapper_revision"),
    (["--dtype", "float7"], "float7"),
    (["--device", "abacus"], "abacus"),
    (["--device", "meta"], "no device 'meta'"),
    (["--output", "no/such/folder/out.json"], "no folder"),
    (["--output", "."], "is a folder"),
    (["--overlay", "out.xyz"], "out.xyz"),
    (["--overlay", "no/such/folder/out.png"], "no folder"),
    (["--prompt", " "], "--prompt is empty"),
]


def assert_one_sentence(outcome, message):
    assert outcome.exit_code in (1, 2)
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_told_in_one_sentence(image, options, message):
    outcome = call("run", "--model", MODEL, "--image", image, "--prompt", "x", *options)
    assert outcome.exit_code == 2
    assert_one_sentence(outcome, message)


def test_bad_images_are_told_in_one_sentence(image, tmp_path):
    text, cut, thin = (tmp_path / name for name in ("text.png", "cut.png", "thin.png"))
    text.write_text("no image")
    cut.write_bytes(image.read_bytes()[:3000])
    Image.new("RGB", (900, 2)).save(thin)
    for path, message in [
        (tmp_path / "none.png", "There is no image file"),
        (tmp_path, "is a folder"),
        (text, "is not an image"),
        (cut, "cannot be read"),
        (thin, "aspect ratio"),
    ]:
        outcome = call("run", "--model", MODEL, "--image", path, "--prompt", "x")
        assert_one_sentence(outcome, message)


@pytest.mark.parametrize("option", ["scorer", "selection", "mapper"])
@pytest.mark.parametrize("command", ["run", "evaluate", "benchmark"])
def test_misspelt_names_are_told_before_weights_are_loaded(command, option, image, tmp_path):
    config = (Path(resolve_model(MODEL)) / "config.json").read_text()
    model = write_config(tmp_path / "weightless", config)
    question = ["--image", image, "--prompt", "x"] if command == "run" else []
    outcome = call(command, "--model", model, *question, f"--{option}", "tiny-misspelt")
    assert_one_sentence(outcome, "'tiny-misspelt'")


def test_a_question_longer_than_the_model_has_positions_is_refused(image):
    prompt = "ball " * 11_000  # each word takes several tokens of the tiny models
    outcome = call("run", "--model", MODEL, "--image", image, "--prompt", prompt)
    assert_one_sentence(outcome, "only 32768 positions")


def test_bad_models_are_told_in_one_sentence(image, tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    config = (Path(resolve_model(MODEL)) / "config.json").read_text()
    (tmp_path / "empty").mkdir()
    for model, message in [
        ("tiny-other", "There is no tiny model 'other'"),
        (tmp_path / "bert", "does not support"),
        (tmp_path / "empty", "has no config.json"),
        (image, "has no config.json"),
        (write_config(tmp_path / "cut", config[:300]), "not a valid JSON file"),
        (write_config(tmp_path / "weightless", config), "cannot be loaded"),
        (tmp_path / "none", "There is no model"),
        ("not a name!", "There is no model"),
    ]:
        outcome = call("run", "--model", model, "--image", image, "--prompt", "x")
        assert_one_sentence(outcome, message)


def test_an_unreachable_hub_is_told_in_one_sentence(image, tmp_path):
    # The Hub client reads its variables on import: only a new process obeys them.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hf_token_compress.cli", "run", "--model", "nobody/nothing"),
            *("--image", str(image), "--prompt", "x"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "cannot be reached" in line


def test_a_demo_folder_that_is_a_file_is_told_in_one_sentence(image):
    assert_one_sentence(call("demo", "--output", image), "cannot be made")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["run", "--model", MODEL, "--prompt", "x"], "--image"),
        (["run", "--image", "x.png", "--prompt", "x"], "--model"),
        (["explain", "--image", "x.png", "--prompt", "x", "--output", "x"], "--model"),
        (["collect", "--scenes", 3, "--output", "x"], "--model"),
    ],
)
def test_a_missing_option_exits_with_2(arguments, missing):
    outcome = call(*arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert missing in outcome.stderr


def test_debugging_shows_the_exception(image, monkeypatch):
    monkeypatch.setenv("HF_TOKEN_COMPRESS_DEBUG", "1")
    outcome = call("run", "--model", MODEL, "--image", image, "--prompt", "x", "--top-p", 0)
    assert isinstance(outcome.exception, CommandError)
    assert isinstance(outcome.exception.__cause__, ValueError)


def test_a_run_equals_generate(image, question):
    found = answer_json(
        *("--model", MODEL, "--image", image, "--prompt", question.text),
        *("--retention-ratio", 0.1, "--dtype", "float32"),
    )
    setting = TokenCompressionConfig(retention_ratio=0.1)
    _, processor = load_tiny("qwen2-vl")
    model = AutoModelForImageTextToText.from_pretrained(
        resolve_model(MODEL), token_compression=setting, dtype="float32"
    )
    content = [
        {"type": "image", "image": Image.open(image)},
        {"type": "text", "text": question.text},
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        **{"add_generation_prompt": True, "tokenize": True},
        **{"return_dict": True, "return_tensors": "pt"},
    )
    out = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    new_ids = out[0, inputs["input_ids"].shape[1] :]
    assert found["answer"] == processor.decode(new_ids, skip_special_tokens=True).strip()
    assert found["new_tokens"] == len(new_ids)
    (sample,) = model.token_compression.last.samples
    assert found["visual_tokens_after"] == sample.visual_tokens_after
