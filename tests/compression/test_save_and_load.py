"""A saved model is a stock checkpoint with its setting in config.json."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import QUARTER, ModelPair
from safetensors.torch import load_file, save_file
from tiny_models import RAGGED, make_inputs, tiny_base_model, tiny_model
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLModel,
)
from transformers.cache_utils import Cache

from hf_token_compress import TokenCompressionConfig, compress, load_tiny, uncompress
from hf_token_compress.compression.identity import identify
from hf_token_compress.mapper import (
    MapperConfig,
    MapperNotFoundError,
    MapperSet,
    RelevanceMapper,
    load_mappers,
)

pytestmark = pytest.mark.core

LOADERS: dict[str, Any] = {
    "AutoModelForImageTextToText": AutoModelForImageTextToText,
    "Qwen2VLForConditionalGeneration": Qwen2VLForConditionalGeneration,
    "AutoModel": AutoModel,
    "Qwen2VLModel": Qwen2VLModel,
}
each_loader = pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)

PLAIN_TRANSFORMERS = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration

folder, inputs, result = sys.argv[1:]
model, loading = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
assert type(model) is Qwen2VLForConditionalGeneration
assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
inputs = load_file(inputs)
torch.set_num_threads(1)
save_file(
    {
        "logits": model(**inputs).logits.detach(),
        "sequences": model.generate(**inputs, max_new_tokens=5),
        **{f"weight.{name}": value for name, value in model.state_dict().items()},
    },
    result,
)
assert "hf_token_compress" not in sys.modules
"""


@pytest.fixture
def saved(pair: ModelPair, tmp_path: Path) -> Path:
    """A checkpoint saved by the compressed model."""
    folder = tmp_path / "saved"
    pair.compressed.save_pretrained(folder)
    return folder


def output_of(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    output = model(**inputs)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def is_compressed(model: Any) -> bool:
    """Whether the language model sees fewer tokens than the prompt has."""
    inputs = make_inputs(RAGGED)
    outputs = model(**inputs, use_cache=True).values()
    cache = next(value for value in outputs if isinstance(value, Cache))
    return bool(cache.get_seq_length() < inputs["input_ids"].shape[1])


def test_plain_transformers_loads_the_stock_model(
    saved: Path, pair: ModelPair, tmp_path: Path
) -> None:
    inputs = make_inputs(RAGGED)
    save_file(inputs, tmp_path / "inputs.safetensors")
    arguments = [saved, tmp_path / "inputs.safetensors", tmp_path / "result.safetensors"]
    subprocess.run(
        [sys.executable, "-c", PLAIN_TRANSFORMERS, *map(str, arguments)], check=True, cwd=tmp_path
    )
    result = load_file(arguments[-1])
    assert torch.equal(result["logits"], pair.stock(**inputs).logits)
    assert torch.equal(result["sequences"], pair.stock.generate(**inputs, max_new_tokens=5))
    weights = pair.stock.state_dict()
    assert {name for name in result if name.startswith("weight.")} == {
        f"weight.{n}" for n in weights
    }
    assert all(torch.equal(result[f"weight.{name}"], value) for name, value in weights.items())


def test_the_saved_folder_differs_from_stock_only_in_the_setting(
    saved: Path, stock_folder: Path
) -> None:
    assert {path.name for path in saved.iterdir()} == {path.name for path in stock_folder.iterdir()}
    tensors, stock_tensors = (load_file(f / "model.safetensors") for f in (saved, stock_folder))
    assert tensors.keys() == stock_tensors.keys()
    config, stock_config = (
        json.loads((folder / "config.json").read_text()) for folder in (saved, stock_folder)
    )
    setting = config.pop("token_compression")
    assert config == stock_config
    assert config["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert setting["retention_ratio"] == 0.25
    assert setting["hf_token_compress_version"]


def test_saving_does_not_change_the_model(pair: ModelPair, tmp_path: Path) -> None:
    pair.compressed.save_pretrained(tmp_path / "compressed")
    pair.stock.save_pretrained(tmp_path / "stock")
    assert pair.compressed.config.to_dict() == pair.stock.config.to_dict()
    assert is_compressed(pair.compressed)


@each_loader
def test_a_saved_model_loads_compressed(saved: Path, loader: Any, pair: ModelPair) -> None:
    model = loader.from_pretrained(saved)
    assert model.token_compression.config == QUARTER
    assert is_compressed(model)
    if isinstance(model, Qwen2VLForConditionalGeneration):
        inputs = make_inputs(RAGGED)
        assert torch.equal(model(**inputs).logits, pair.compressed(**inputs).logits)


@each_loader
def test_none_is_as_if_left_out(saved: Path, stock_folder: Path, loader: Any) -> None:
    model = loader.from_pretrained(saved, token_compression=None)
    assert model.token_compression.config == QUARTER
    assert not is_compressed(loader.from_pretrained(stock_folder, token_compression=None))


@each_loader
def test_false_loads_the_stock_model(saved: Path, loader: Any, pair: ModelPair) -> None:
    model = loader.from_pretrained(saved, token_compression=False)
    assert type(model) in (Qwen2VLForConditionalGeneration, Qwen2VLModel)
    assert not hasattr(model, "token_compression")
    assert not is_compressed(model)


@each_loader
@pytest.mark.parametrize("form", ["config", "dict", "number"])
def test_the_argument_sets_and_overrides(
    stock_folder: Path, saved: Path, loader: Any, form: str
) -> None:
    setting = TokenCompressionConfig(retention_ratio=0.75, min_visual_tokens=0, scorer="uniform")
    argument: Any = setting if form == "config" else setting.to_dict()
    if form == "number":
        setting, argument = TokenCompressionConfig(retention_ratio=0.75), 0.75
    for folder in (stock_folder, saved):
        model = loader.from_pretrained(folder, token_compression=argument)
        assert model.token_compression.config == setting
        assert is_compressed(model)


def test_the_argument_is_documented_where_it_is_taken() -> None:
    text = Qwen2VLForConditionalGeneration.from_pretrained.__doc__
    assert "pretrained_model_name_or_path" in text
    assert "token_compression (`TokenCompressionConfig`" in text


def test_without_the_argument_a_stock_checkpoint_stays_stock(stock_folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(stock_folder)
    assert type(model) is Qwen2VLForConditionalGeneration


@each_loader
def test_loading_info(stock_folder: Path, loader: Any) -> None:
    model, info = loader.from_pretrained(
        stock_folder, token_compression=QUARTER, output_loading_info=True
    )
    assert is_compressed(model)
    assert not info["missing_keys"]


def test_loading_in_another_dtype(saved: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(saved, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert is_compressed(model)


def test_a_setting_of_a_newer_version_warns_and_loads(saved: Path) -> None:
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["token_compression"].update(warp_factor=9, hf_token_compress_version="99.0")
    path.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"99\.0.*warp_factor"):
        model = AutoModelForImageTextToText.from_pretrained(saved)
    assert model.token_compression.config == QUARTER


def saved_setting(model: Any, folder: Path) -> dict[str, Any]:
    model.save_pretrained(folder)
    setting: dict[str, Any] = json.loads((folder / "config.json").read_text())["token_compression"]
    return setting


def test_the_setting_names_where_the_mapper_in_use_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    mappers = [RelevanceMapper(MapperConfig(identify(model))) for _ in range(2)]
    compress(model, {"min_visual_tokens": 0}).token_compression.use_mapper(mappers[0])
    mappers[0].save_pretrained("map")
    with pytest.warns(UserWarning, match="other machines"):
        setting = saved_setting(model, tmp_path / "model")
    assert (setting["mapper"], setting["mapper_revision"]) == (str(tmp_path / "map"), None)
    loaded = RelevanceMapper.from_pretrained("map")
    assert loaded.source == load_mappers("map").for_modality("image").source == setting["mapper"]
    MapperSet({"image": mappers[0]}, "here").save_pretrained("both/image")
    assert load_mappers("both").for_modality("image").source == str(tmp_path / "both" / "image")

    compress(named := tiny_model(), {"mapper": "map", "min_visual_tokens": 0})
    with pytest.warns(UserWarning, match="other machines"):
        setting = saved_setting(named, tmp_path / "model")
    assert setting["mapper"] == str(tmp_path / "map")

    mappers[0].source, mappers[0].revision = "owner/mapper", "v1"
    setting = saved_setting(model, tmp_path / "model")
    assert (setting["mapper"], setting["mapper_revision"]) == ("owner/mapper", "v1")


def test_a_folder_of_this_machine_is_warned_of(tmp_path: Path) -> None:
    model = tiny_model()
    RelevanceMapper(MapperConfig(identify(model))).save_pretrained(tmp_path / "map")
    compress(model, {"mapper": str(tmp_path / "map")})
    with pytest.warns(UserWarning, match=r"other machines.*save_mapper=True"):
        model.save_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_pretrained(tmp_path / "model", save_mapper=True)
        tiny, _ = load_tiny("qwen2-vl", token_compression="tiny-qwen2-vl")
        assert saved_setting(tiny, tmp_path / "tiny")["mapper"] == "tiny-qwen2-vl"


@each_loader
def test_a_model_saved_with_its_mapper_loads_anywhere(loader: Any, tmp_path: Path) -> None:
    """With a mapper that is in memory only; saved a second time from where it was loaded."""
    model = tiny_model()
    image, video = (
        RelevanceMapper(MapperConfig(identify(model), modality=kind)) for kind in ("image", "video")
    )
    compress(model, {"min_visual_tokens": 0, "retention_ratio": 0.25})
    model.token_compression.use_mapper(image)
    video.write_files(tmp_path / "first" / "video")  # of an earlier model in this folder
    model.save_pretrained(tmp_path / "first", save_mapper=True)
    assert image.source is None
    (tmp_path / "first").rename(tmp_path / "moved")
    loaded = loader.from_pretrained(tmp_path / "moved")
    assert_compresses_alike(loaded, model)
    loaded.save_pretrained(tmp_path / "again", save_mapper=True)
    shutil.rmtree(tmp_path / "moved")
    again = loader.from_pretrained(tmp_path / "again")
    assert_compresses_alike(again, model)
    assert set(again.token_compression.scorer.mappers.mappers) == {"image"}
    assert again.token_compression.config.retention_ratio == 0.25
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()
    stock = loader.from_pretrained(tmp_path / "again", token_compression=False)
    assert not hasattr(stock, "token_compression")


def assert_compresses_alike(*models: Any) -> None:
    for model in models:
        with torch.no_grad():
            output_of(model, make_inputs(RAGGED))
    reports = [model.token_compression.last.samples for model in models]
    for own, other in zip(*reports, strict=True):
        assert torch.equal(own.kept_indices, other.kept_indices)
        assert torch.equal(own.scores, other.scores)


def test_a_model_without_a_mapper_cannot_be_saved_with_it(tmp_path: Path) -> None:
    model = compress(tiny_model(), QUARTER)
    with one_sentence(ValueError, "save_mapper", "'gated_fusion'"):
        model.save_pretrained(tmp_path / "model", save_mapper=True)
    with one_sentence(ValueError, "save_mapper", "push_to_hub"):
        model.save_pretrained(tmp_path / "model", save_mapper=True, push_to_hub=True)
    assert not (tmp_path / "model").exists()


def test_a_saved_mapper_that_is_missing_names_the_way_out(saved: Path) -> None:
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["token_compression"] = {"mapper": "/srv/elsewhere/mapper"}
    path.write_text(json.dumps(config))
    words = ("/srv/elsewhere/mapper", "token_compression=False")
    with one_sentence(MapperNotFoundError, *words):
        AutoModelForImageTextToText.from_pretrained(saved)
    stock = AutoModelForImageTextToText.from_pretrained(saved, token_compression=False)
    assert type(stock) is Qwen2VLForConditionalGeneration


def test_another_mapper_in_use_does_not_take_the_revision_of_the_first(tmp_path: Path) -> None:
    model = tiny_model()
    mapper = RelevanceMapper(MapperConfig(identify(model)))
    mapper.save_pretrained(tmp_path / "map")
    first = {"mapper": str(tmp_path / "map"), "mapper_revision": "v1"}
    compress(model, first).token_compression.use_mapper(mapper)
    mapper.source = "owner/mapper"
    setting = saved_setting(model, tmp_path / "model")
    assert (setting["mapper"], setting["mapper_revision"]) == ("owner/mapper", None)


def test_uncompress_saves_no_setting(saved: Path, tmp_path: Path) -> None:
    model = uncompress(AutoModelForImageTextToText.from_pretrained(saved))
    again = tmp_path / "again"
    model.save_pretrained(again)
    assert "token_compression" not in json.loads((again / "config.json").read_text())
    loaded = AutoModelForImageTextToText.from_pretrained(again)
    assert type(loaded) is Qwen2VLForConditionalGeneration


def test_a_model_loaded_with_false_saves_no_setting(saved: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(saved, token_compression=False)
    again = tmp_path / "again"
    model.save_pretrained(again)
    assert "token_compression" not in json.loads((again / "config.json").read_text())


def test_a_changed_setting_is_the_one_that_is_saved(pair: ModelPair, tmp_path: Path) -> None:
    compress(pair.compressed, {"retention_ratio": 0.125})
    pair.compressed.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.token_compression.config == TokenCompressionConfig(retention_ratio=0.125)


def test_the_base_model_round_trips(tmp_path: Path) -> None:
    model = compress(tiny_base_model(), QUARTER)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.token_compression.config == QUARTER
    inputs = make_inputs(RAGGED)
    assert torch.equal(output_of(loaded, inputs), output_of(model, inputs))


def test_two_loads_that_share_one_config_are_independent(saved: Path, stock_folder: Path) -> None:
    config = Qwen2VLConfig.from_pretrained(stock_folder)
    options: dict[str, Any] = {"config": config}
    first = AutoModelForImageTextToText.from_pretrained(
        stock_folder, token_compression=QUARTER, **options
    )
    second = AutoModelForImageTextToText.from_pretrained(stock_folder, **options)
    assert is_compressed(first)
    assert not is_compressed(second)


def test_a_saved_config_object_serves_every_load(saved: Path) -> None:
    """A config that is read once and passed to several loads keeps its setting."""
    config = Qwen2VLConfig.from_pretrained(saved)
    for _ in range(2):
        model = AutoModelForImageTextToText.from_pretrained(saved, config=config)
        assert is_compressed(model)


def test_sharded_checkpoints(pair: ModelPair, tmp_path: Path) -> None:
    pair.compressed.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert is_compressed(AutoModelForImageTextToText.from_pretrained(tmp_path))


def test_an_invalid_argument_is_refused_before_loading(tmp_path: Path) -> None:
    with one_sentence(TypeError, "token_compression"):
        Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "none", token_compression=True)
    with one_sentence(ValueError, "retention_ratio"):
        Qwen2VLForConditionalGeneration.from_pretrained(
            tmp_path / "none", token_compression={"retention_ratio": 2.0}
        )


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"scorer": "atention"}, ValueError, "attention"),
        ("attention", ValueError, "{'scorer': 'attention'}"),
        ("25%", ValueError, "0.25"),
        ({"scorer": "divprune", "top_p": 0.5}, ValueError, "top_p"),
        ({"scorer": "random", "scorer_options": {"sead": 1}}, ValueError, "seed"),
        ({"mapper": "nobody/mapper"}, MapperNotFoundError, "nobody/mapper"),
    ],
)
def test_what_is_wrong_without_the_weights_is_said_before_loading(
    setting: Any, error: type[Exception], words: str, stock_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(stock_folder / "config.json", tmp_path)
    for loader in (Qwen2VLForConditionalGeneration, AutoModelForImageTextToText):
        with one_sentence(error, words):
            loader.from_pretrained(tmp_path, token_compression=setting)  # has no weights


def test_a_wrong_setting_over_a_saved_one_is_named_before_loading(
    saved: Path, tmp_path: Path
) -> None:
    config = json.loads((saved / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with one_sentence(ValueError, "atention"):
        AutoModelForImageTextToText.from_pretrained(
            tmp_path, token_compression={"scorer": "atention"}
        )


def test_the_ratio_goes_into_token_compression(stock_folder: Path) -> None:
    with one_sentence(TypeError, "token_compression=<ratio>"):
        AutoModelForImageTextToText.from_pretrained(stock_folder, retention_ratio=0.25)
    with one_sentence(TypeError, "token_compression=<ratio>"):
        load_tiny("qwen2-vl", retention_ratio=0.25)
