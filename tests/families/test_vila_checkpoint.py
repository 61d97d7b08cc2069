"""Published VILA1.5 checkpoints load unchanged, and broken ones give clear errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from original_vila import write_original
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    pipeline,
)
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin
from typer.testing import CliRunner
from vila_reference import CHECKPOINT, DATA, images, prompt_inputs

from hf_token_compress import TokenCompressionConfig
from hf_token_compress.cli import app
from hf_token_compress.models.vila import (
    VilaConfig,
    VilaForConditionalGeneration,
    VilaModel,
    VilaProcessor,
)

pytestmark = pytest.mark.core

GEOMETRIES: dict[str, dict[str, Any]] = {
    "even_grid": {"image_size": 24, "patch_size": 6},
    "odd_grid": {"image_size": 35, "patch_size": 5},
    "uncovered_rest": {"image_size": 31, "patch_size": 6},
    "two_scales": {"image_size": 24, "patch_size": 6, "s2_scales": [24, 48]},
    "three_scales": {"image_size": 20, "patch_size": 4, "s2_scales": [20, 40, 60]},
}


def small_model(
    image_size: int = 24, patch_size: int = 6, s2_scales: list[int] | None = None, **text: Any
) -> VilaForConditionalGeneration:
    """A random model for the reference tokenizer: 420 ids and two placeholders."""
    torch.manual_seed(1)
    config = VilaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": 422,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            **text,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch_size,
            "vision_use_head": False,
        },
        image_token_index=420,
        video_token_index=421,
        s2_scales=s2_scales,
        tie_word_embeddings=text.get("tie_word_embeddings", False),
    )
    model = VilaForConditionalGeneration(config).eval()
    for weight in (model.get_input_embeddings().weight, model.lm_head.weight):
        weight.data[420:] = 0.0  # a published checkpoint lacks these
    return model


def assert_same_model(loaded: Any, expected: Any) -> None:
    """Equal weights, and equal logits of a prompt with an image."""
    weights, wanted = loaded.state_dict(), expected.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], value) for name, value in wanted.items())
    assert loaded.config.image_seq_length == expected.config.image_seq_length
    ids = [5, *[420] * expected.config.image_seq_length, 6, 7]
    side = expected.config.image_side
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    inputs = {"input_ids": torch.tensor([ids]), "pixel_values": pixels}
    assert torch.equal(loaded(**inputs).logits, expected(**inputs).logits)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_any_geometry_loads(geometry: dict[str, Any], shards: int, tmp_path: Path) -> None:
    expected = small_model(**geometry)
    folder = write_original(expected, tmp_path / "vila", shards=shards)
    loaded, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is VilaForConditionalGeneration
    assert not loaded.training
    assert not any(info.values())
    assert_same_model(loaded, expected)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = prompt_inputs(processor, "interleaved")
    tokens = int((inputs["input_ids"] == processor.image_token_id).sum())
    assert tokens == 2 * expected.config.image_seq_length
    assert loaded(**inputs).logits.isfinite().all()


def test_tied_embeddings(tmp_path: Path) -> None:
    expected = small_model(tie_word_embeddings=True)
    folder = write_original(expected, tmp_path / "vila")
    assert "lm_head.weight" not in load_file(folder / "llm/model.safetensors")
    loaded = AutoModelForImageTextToText.from_pretrained(folder)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert_same_model(loaded, expected)


def test_the_base_model_loads() -> None:
    base = AutoModel.from_pretrained(CHECKPOINT)
    assert type(base) is VilaModel
    whole = VilaForConditionalGeneration.from_pretrained(CHECKPOINT)
    wanted = whole.model.state_dict()
    assert all(torch.equal(base.state_dict()[name], value) for name, value in wanted.items())


def test_stored_rotary_frequencies_are_ignored(tmp_path: Path) -> None:
    expected = small_model()
    folder = write_original(expected, tmp_path / "vila")
    weights = load_file(folder / "llm/model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, folder / "llm/model.safetensors")
    assert_same_model(AutoModelForImageTextToText.from_pretrained(folder), expected)


def test_the_config_gets_its_own_model_type() -> None:
    config = AutoConfig.from_pretrained(CHECKPOINT)
    assert type(config) is VilaConfig
    assert config.model_type not in ("llava_llama", "vila", "nvila", "llava")
    assert (config.image_token_id, config.video_token_id) == (420, 421)
    assert config.token_order == "column_major"
    assert config.vision_feature_layer == -2
    assert config.text_config.vocab_size == 422
    assert VilaConfig.from_pretrained(CHECKPOINT).to_json_string() == config.to_json_string()


@pytest.mark.parametrize(
    ("s2", "width"),
    [({}, 4 * 1152), ({"s2": True, "s2_scales": "384,768", "s2_max_split_size": 384}, 8 * 1152)],
    ids=["VILA1.5-3b", "VILA1.5-3b-s2"],
)
def test_the_root_config_of_the_3b(s2: dict[str, Any], width: int, tmp_path: Path) -> None:
    """The published settings, without weights."""
    llama = {"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32}
    llama |= {"num_attention_heads": 20, "num_key_value_heads": 20, "vocab_size": 32000}
    llama |= {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "pad_token_id": 0}
    siglip = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    siglip |= {"num_attention_heads": 16, "image_size": 384, "patch_size": 14}
    root = json.loads((CHECKPOINT / "config.json").read_text())
    root["llm_cfg"].update(llama)
    root["vision_tower_cfg"].update(siglip)
    root.update(model_dtype="torch.bfloat16", **s2)
    (tmp_path / "config.json").write_text(json.dumps(root))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.dtype == torch.bfloat16
    assert (config.image_side, config.image_seq_length) == (768 if s2 else 384, 196)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert model.model.multi_modal_projector.linear_1.weight.shape == (2560, width)
    assert model.get_input_embeddings().weight.shape == (32002, 2560)
    assert model.lm_head.weight.shape == (32002, 2560)
    text = config.text_config
    assert (text.head_dim, text.rms_norm_eps, text.num_hidden_layers) == (128, 1e-5, 32)
    assert text.rope_parameters["rope_theta"] == 10000.0


def test_selection_layer_of_the_root_config(tmp_path: Path) -> None:
    folder = write_original(small_model(), tmp_path / "vila", mm_vision_select_layer=-1)
    assert AutoConfig.from_pretrained(folder).vision_feature_layer == -1


@pytest.mark.parametrize("given", ["bfloat16", torch.bfloat16, "auto", None])
def test_dtype(given: Any, tmp_path: Path) -> None:
    folder = write_original(small_model(), tmp_path / "vila", model_dtype="torch.bfloat16")
    options = {} if given is None else {"dtype": given}
    model = AutoModelForImageTextToText.from_pretrained(folder, **options)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_dtype_overrides_the_root_config(tmp_path: Path) -> None:
    folder = write_original(small_model(), tmp_path / "vila", model_dtype="torch.bfloat16")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    assert model.dtype == torch.float32
    assert_same_model(model, small_model())


@pytest.mark.parametrize("loader", [AutoModel, VilaModel])
def test_keywords_of_loading_and_configuration(loader: Any, folder: Path) -> None:
    model = loader.from_pretrained(
        folder, dtype="auto", attn_implementation="eager", token_order="row_major"
    )
    assert model.dtype == torch.float32
    assert model.language_model.config._attn_implementation == "eager"
    assert model.vision_tower.config._attn_implementation == "eager"
    assert model.multi_modal_projector.token_order == "row_major"
    model = loader.from_pretrained(folder, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_device_map(tmp_path: Path) -> None:
    expected = small_model()
    folder = write_original(expected, tmp_path / "vila")
    places = {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu"}
    places |= {"model.language_model": "disk", "lm_head": "cpu"}
    model = AutoModelForImageTextToText.from_pretrained(
        folder, device_map=places, offload_folder=tmp_path / "offload"
    )
    assert any(parameter.device.type == "meta" for parameter in model.parameters())
    inputs = prompt_inputs(AutoProcessor.from_pretrained(folder), "single")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, expected(**inputs).logits)


@pytest.fixture
def cached_on_the_hub(tmp_path: Path) -> tuple[str, Path]:
    """A Hub id whose repository is in the Hub client's cache."""
    cache, commit = tmp_path / "cache", "0123456789" * 4
    repository = cache / "models--someone--VILA1.5-3b"
    write_original(small_model(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    return "someone/VILA1.5-3b", cache


def test_a_hub_id(cached_on_the_hub: tuple[str, Path]) -> None:
    name, cache = cached_on_the_hub
    options: dict[str, Any] = {"cache_dir": cache, "local_files_only": True}
    model = VilaForConditionalGeneration.from_pretrained(name, **options)
    assert_same_model(model, small_model())
    assert model.config.name_or_path == name
    assert AutoConfig.from_pretrained(name, **options).image_seq_length == 4
    assert type(AutoProcessor.from_pretrained(name, **options)) is VilaProcessor


@pytest.mark.parametrize("loader", [AutoModelForImageTextToText, AutoModel])
def test_token_compression(loader: Any, folder: Path, tmp_path: Path) -> None:
    setting = TokenCompressionConfig(retention_ratio=0.25, min_visual_tokens=0)
    model = loader.from_pretrained(folder, token_compression=setting)
    inputs = prompt_inputs(AutoProcessor.from_pretrained(folder), "video")
    expected = model(**inputs)[0]
    # Without a head, hidden states come back at the caller's width.
    width = inputs["input_ids"].shape[1]
    assert expected.shape[1] == (width if loader is AutoModel else width - 12 + 3)
    (sample,) = model.token_compression.last.samples
    assert int(sample.kept_visual.sum()) == 3
    model.save_pretrained(tmp_path / "own")
    loaded = loader.from_pretrained(tmp_path / "own")
    assert loaded.token_compression.config == setting
    assert torch.equal(loaded(**inputs)[0], expected)
    plain = loader.from_pretrained(tmp_path / "own", token_compression=False)
    assert plain(**inputs)[0].shape[1] == inputs["input_ids"].shape[1]


@register_quantization_config("halved")
class HalvedConfig(QuantizationConfigMixin):
    """A quantisation that needs no package: it halves the language model's weights."""

    def __init__(self, **_: Any) -> None:
        self.quant_method = "halved"


@register_quantizer("halved")
class HalvedQuantizer(HfQuantizer):
    requires_calibration = False
    is_trainable = True

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        return True

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        model.prepared_by = "halved"

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        model.model.language_model.layers[0].mlp.up_proj.weight.data /= 2
        return model


def test_quantization(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder, quantization_config=HalvedConfig())
    assert model.prepared_by == "halved"
    assert model.config.quantization_config.quant_method == "halved"
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    expected = small_model().state_dict()[name]
    assert torch.equal(model.state_dict()[name], expected / 2)


def test_pipeline(folder: Path) -> None:
    content = [{"type": "image", "image": images("single")[0]}, {"type": "text", "text": "What?"}]
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    answer = pipeline("image-text-to-text", model=model, processor=processor)(
        text=[{"role": "user", "content": content}], max_new_tokens=4, return_full_text=False
    )
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    sequences = model.generate(**inputs, max_new_tokens=4)
    expected = processor.decode(
        sequences[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert answer[0]["generated_text"] == expected


# Placeholders


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_original(small_model(), tmp_path / "vila")


def test_placeholders_come_after_tokens_without_embeddings(
    folder: Path,
) -> None:
    """Such as a padding token that was added for training and never embedded."""
    added = {"content": "[PAD]", "lstrip": False, "normalized": False, "rstrip": False}
    settings = json.loads((folder / "llm/tokenizer_config.json").read_text())
    decoder = settings["added_tokens_decoder"]
    decoder["420"] = {**added, "single_word": False, "special": True}
    edit_json(folder / "llm/tokenizer_config.json", added_tokens_decoder=decoder, pad_token="[PAD]")
    edit_json(folder / "llm/special_tokens_map.json", pad_token="[PAD]")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer.convert_tokens_to_ids("[PAD]") == 420
    assert processor.image_token_id == model.config.image_token_id == 421
    assert processor.video_token_id == model.config.video_token_id == 422
    expected = small_model()
    inputs = prompt_inputs(processor, "single")
    own = model(**inputs).logits
    inputs["input_ids"][inputs["input_ids"] == 421] = 420
    assert torch.equal(own[..., :420], expected(**inputs).logits[..., :420])
    assert (own[..., 420:] == torch.finfo(torch.float32).min).all()


def test_placeholders_come_after_embeddings_without_tokens(tmp_path: Path) -> None:
    model = small_model(vocab_size=450)
    model.config.image_token_index, model.config.video_token_index = 448, 449
    model.config.unpredicted_token_ids = [448, 449]
    model.lm_head.unpredicted_token_ids = (448, 449)
    for weight in (model.get_input_embeddings().weight, model.lm_head.weight):
        weight.data[448:] = 0.0
    folder = write_original(model, tmp_path / "vila")
    loaded = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.image_token_id == loaded.config.image_token_id == 448
    inputs = prompt_inputs(processor, "video")
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert (loaded(**inputs).logits[..., 440] > -1e3).all()


def test_the_turn_end_token_ends_an_answer(folder: Path) -> None:
    edit_json(folder / "llm/added_tokens.json", **{"<|eot_id|>": 419})
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [2, 419]


def test_generation_settings_of_the_language_model(folder: Path) -> None:
    edit_json(folder / "llm/generation_config.json", max_new_tokens=3, bos_token_id=1)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.generation_config.max_new_tokens == 3
    given = GenerationConfig(max_new_tokens=5)
    model = AutoModelForImageTextToText.from_pretrained(folder, generation_config=given)
    assert model.generation_config.max_new_tokens == 5


# This library's own format


def test_a_saved_model_loads_exactly(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    own = tmp_path / "own"
    model.save_pretrained(own, max_shard_size="30KB")
    assert len(list(own.glob("*.safetensors"))) > 1
    loaded, info = AutoModelForImageTextToText.from_pretrained(own, output_loading_info=True)
    assert not any(info.values())
    assert_same_model(loaded, model)
    assert loaded.config.to_json_string() == model.config.to_json_string()
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
    saved = json.loads((own / "config.json").read_text())
    assert saved["architectures"] == ["VilaForConditionalGeneration"]


def test_a_saved_processor_loads_exactly(folder: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    processor.save_pretrained(tmp_path / "own")
    again = AutoProcessor.from_pretrained(tmp_path / "own")
    assert type(again) is VilaProcessor
    assert again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template
    for prompt in ("single", "video"):
        inputs, expected = prompt_inputs(again, prompt), prompt_inputs(processor, prompt)
        assert inputs.keys() == expected.keys()
        assert all(torch.equal(inputs[name], value) for name, value in expected.items())


FRESH = """
import sys, torch
import hf_token_compress
from transformers import AutoModelForImageTextToText, AutoProcessor
from safetensors.torch import save_file

folder, result = sys.argv[1:]
torch.set_num_threads(1)
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
inputs = processor(text="USER: hello ASSISTANT:", return_tensors="pt")
save_file({"logits": model(**inputs).logits.detach()}, result)
"""


def test_a_saved_checkpoint_loads_with_this_library_alone(folder: Path, tmp_path: Path) -> None:
    own, result = tmp_path / "own", tmp_path / "result.safetensors"
    AutoModelForImageTextToText.from_pretrained(folder).save_pretrained(own)
    AutoProcessor.from_pretrained(folder).save_pretrained(own)
    subprocess.run([sys.executable, "-c", FRESH, str(own), str(result)], check=True, cwd=tmp_path)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text="USER: hello ASSISTANT:", return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert torch.equal(load_file(result)["logits"], model(**inputs).logits)


def test_run_takes_a_published_checkpoint(tmp_path: Path) -> None:
    image = DATA / "images/img0.png"
    options = ["--prompt", "What?", "--max-new-tokens", "3", "--json"]
    arguments = ["run", "--model", CHECKPOINT, "--image", image, "--image", image, *options]
    answered = CliRunner().invoke(app, list(map(str, arguments)))
    assert answered.exit_code == 0, answered.output
    answer = json.loads(answered.stdout)
    assert (answer["visual_tokens_before"], answer["visual_tokens_after"]) == (18, 9)


# Broken checkpoints


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name)


def truncate(name: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def change(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, **changes)


def drop_weight(part: str, name: str) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        weights = load_file(folder / part / "model.safetensors")
        del weights[name]
        save_file(weights, folder / part / "model.safetensors")

    return drop


PROJECTOR = {"model_type": "v2l_projector", "mm_projector_type": "mlp2x_gelu"}
INTERN_VIT = {"model_type": "intern_vit_6b", "architectures": ["InternVisionModel"]}
BROKEN: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "no_llm": (remove("llm"), OSError, "llm/config.json"),
    "no_vision_tower": (remove("vision_tower"), OSError, "vision_tower/config.json"),
    "no_projector": (remove("mm_projector"), OSError, "mm_projector/config.json"),
    "truncated_llm": (truncate("llm/model.safetensors"), OSError, "llm/model.safetensors"),
    "truncated_tower": (
        truncate("vision_tower/model.safetensors"),
        OSError,
        "vision_tower/model.safetensors",
    ),
    "no_weights": (
        lambda folder: (folder / "llm/model.safetensors").unlink(),
        OSError,
        "llm/model.safetensors",
    ),
    "cut_config": (truncate("llm/config.json"), OSError, "llm/config.json"),
    "projector_type": (
        change("mm_projector/config.json", mm_projector_type="mlp2x_gelu"),
        ValueError,
        "'mlp2x_gelu'",
    ),
    "projector_type_of_the_root": (
        change("config.json", mm_projector_cfg=PROJECTOR),
        ValueError,
        "'mlp2x_gelu'",
    ),
    "missing_weight": (
        drop_weight("mm_projector", "layers.2.bias"),
        ValueError,
        "multi_modal_projector.linear_1.bias",
    ),
    "intern_vit": (
        change("config.json", vision_tower_cfg=INTERN_VIT),
        NotImplementedError,
        "InternViT",
    ),
    "another_tower": (
        change("config.json", vision_tower_cfg={"model_type": "clip_vision_model"}),
        NotImplementedError,
        "clip_vision_model",
    ),
    "a_llava": (change("config.json", llm_cfg=None), ValueError, "llm"),
    "padded_images": (
        change("config.json", image_aspect_ratio="pad"),
        NotImplementedError,
        "image_aspect_ratio",
    ),
    "s2_tiles": (
        change("config.json", s2=True, s2_scales="24,60", s2_max_split_size=24),
        ValueError,
        "60",
    ),
}


@pytest.mark.parametrize(("breaks", "kind", "word"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint(
    breaks: Callable[[Path], None], kind: type[Exception], word: str, folder: Path
) -> None:
    breaks(folder)
    with one_sentence(kind, word):
        AutoModelForImageTextToText.from_pretrained(folder)


def test_intern_vit_is_refused_by_every_auto_class(folder: Path) -> None:
    edit_json(folder / "config.json", vision_tower_cfg=INTERN_VIT)
    for loader in (AutoConfig, AutoModel, AutoProcessor):
        with one_sentence(NotImplementedError, "InternViT"):
            loader.from_pretrained(folder)


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = write_original(small_model(), tmp_path / "vila", shards=3)
    (folder / "llm/model-00002-of-00003.safetensors").unlink()
    with one_sentence(OSError, "llm/model-00002-of-00003.safetensors"):
        AutoModelForImageTextToText.from_pretrained(folder)


def test_folders_of_different_checkpoints(folder: Path, tmp_path: Path) -> None:
    other = write_original(small_model(hidden_size=16), tmp_path / "other")
    shutil.copy(other / "mm_projector/model.safetensors", folder / "mm_projector")
    with one_sentence(ValueError, "multi_modal_projector"):
        AutoModelForImageTextToText.from_pretrained(folder)
