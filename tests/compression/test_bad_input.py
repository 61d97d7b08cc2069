"""Wrong models, scorers and inputs give one clear sentence and the right type of error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from pairs import QUARTER, ModelPair, carried, make_pair
from tiny_models import (
    FAMILIES,
    IMAGE,
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    ONE_VIDEO,
    RAGGED,
    TEXT_ONLY,
    TWO_IMAGES,
    make_inputs,
    tiny_config,
    tiny_model,
)
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    BertConfig,
    BertModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLPreTrainedModel, Qwen2VLTextModel

from hf_token_compress import (
    Scorer,
    TokenCompressionConfig,
    available_scorers,
    compress,
    load_tiny,
    prepare_inputs,
    register_family,
    register_scorer,
    supported_families,
    uncompress,
)
from hf_token_compress.compression.reading import check_depth
from hf_token_compress.mapper import MapperNotFoundError
from hf_token_compress.scorers import registry as scorer_registry
from hf_token_compress.scorers.base import NotFiniteError

pytestmark = pytest.mark.core


def bert() -> BertModel:
    return BertModel(
        BertConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
        )
    )


@pytest.fixture
def inputs() -> dict[str, Any]:
    return make_inputs([ONE_IMAGE])


@pytest.fixture(params=["forward", "generate", "prepare"])
def call(request: pytest.FixtureRequest, pair: ModelPair) -> Any:
    """Every entry point must refuse wrong inputs."""
    model = pair.compressed
    return {
        "forward": lambda **inputs: model(**inputs),
        "generate": lambda **inputs: model.generate(**inputs, max_new_tokens=2),
        "prepare": lambda **inputs: prepare_inputs(model, **inputs),
    }[request.param]


# Models


def test_unsupported_family() -> None:
    with one_sentence(ValueError, "BertModel"):
        compress(bert(), QUARTER)


def test_unsupported_class_of_a_supported_family() -> None:
    class Backbone(Qwen2VLPreTrainedModel):
        config_class = Qwen2VLConfig

    with one_sentence(ValueError, "Backbone"):
        compress(Backbone(tiny_config()), QUARTER)
    with one_sentence(ValueError, "Qwen2VLTextModel"):
        compress(Qwen2VLTextModel(tiny_config().text_config), QUARTER)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), "Qwen/Qwen2-VL-7B-Instruct", None])
def test_not_a_transformers_model(model: Any) -> None:
    with one_sentence(TypeError, "Transformers model"):
        compress(model, QUARTER)


def test_a_wrong_setting_leaves_the_model_stock() -> None:
    model = tiny_model()
    with one_sentence(ValueError, "retention_ratio"):
        compress(model, {"retention_ratio": 2})
    with one_sentence(TypeError, "token_compression"):
        compress(model, True)
    assert type(model) is Qwen2VLForConditionalGeneration


@pytest.mark.parametrize("loader", [BertModel, AutoModel])
def test_from_pretrained_refuses_an_unsupported_family_before_loading(
    loader: Any, tmp_path: Path
) -> None:
    bert().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # loading would fail with another error
    with one_sentence(ValueError, "BertModel"):
        loader.from_pretrained(tmp_path, token_compression=QUARTER)


def test_uncompress_a_stock_model() -> None:
    with one_sentence(ValueError, "not compressed"):
        uncompress(tiny_model())


def test_prepare_inputs_of_a_stock_model(inputs: dict[str, Any]) -> None:
    with one_sentence(ValueError, "compress"):
        prepare_inputs(tiny_model(), **inputs)


def test_a_replaced_forward_is_not_overwritten() -> None:
    model = tiny_model()
    model.forward = lambda **inputs: None  # type: ignore[method-assign]
    with one_sentence(ValueError, "forward"):
        compress(model, QUARTER)
    assert type(model) is Qwen2VLForConditionalGeneration


def test_unknown_tiny_model() -> None:
    with one_sentence(ValueError, "nonsense"):
        load_tiny("nonsense")


def test_a_family_is_registered_once_and_with_its_base_class() -> None:
    assert "qwen2_vl" in supported_families()
    with one_sentence(TypeError, "ModelFamily"):
        register_family("bert", dict)  # type: ignore[arg-type]
    from hf_token_compress.models import ModelFamily

    with one_sentence(ValueError, "qwen2_vl"):
        register_family("qwen2_vl", ModelFamily)
    assert "bert" not in supported_families()


# Files


@pytest.fixture
def saved(pair: ModelPair, tmp_path: Path) -> Path:
    pair.compressed.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_cut_off_config_file(saved: Path) -> None:
    path = saved / "config.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(OSError, match=r"config\.json.*not a valid JSON file"):
        AutoModelForImageTextToText.from_pretrained(saved)


@pytest.mark.parametrize(
    ("value", "kind", "word"),
    [
        ({"retention_ratio": 3}, ValueError, "retention_ratio"),
        ([], TypeError, "token_compression"),
    ],
)
def test_a_damaged_setting_in_the_config_file(
    saved: Path, value: Any, kind: type[Exception], word: str
) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "token_compression": value}))
    with one_sentence(kind, word):
        AutoModelForImageTextToText.from_pretrained(saved)
    model = AutoModelForImageTextToText.from_pretrained(saved, token_compression=False)
    assert type(model) is Qwen2VLForConditionalGeneration


def test_a_saved_setting_of_an_unsupported_family(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    setting = {"token_compression": QUARTER.to_dict()}
    path.write_text(json.dumps({**json.loads(path.read_text()), **setting}))
    assert AutoConfig.from_pretrained(tmp_path).token_compression == QUARTER.to_dict()
    with one_sentence(ValueError, "BertModel"):
        AutoModel.from_pretrained(tmp_path)


def test_missing_weights_are_still_reported_by_transformers(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForImageTextToText.from_pretrained(saved)
    shutil.rmtree(saved)
    with pytest.raises(OSError, match="saved"):
        AutoModelForImageTextToText.from_pretrained(str(saved), token_compression=QUARTER)


# Options of a call


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (0, ValueError, ["retention_ratio"]),
        (2, ValueError, ["retention_ratio"]),
        ({"retention_ratio": "0.5"}, TypeError, ["retention_ratio"]),
        ([0.5, 2], ValueError, ["retention_ratio"]),
        ([0.5, 0.5], ValueError, ["2 retention ratios", "batch of 1"]),
        (True, TypeError, ["token_compression", "True"]),
        ({"retention_ration": 0.5}, ValueError, ["'retention_ration'", "'retention_ratio'"]),
        (
            {"scorer": "attention", "scorer_options": {"scoring_dept": 1}},
            ValueError,
            ["'attention'", "'scoring_dept'", "'scoring_depth'"],
        ),
        (
            {"scorer": "attention", "scorer_options": {"scoring_depth": 9}},
            ValueError,
            ["scoring_depth"],
        ),
        ({"scorer": "atention"}, ValueError, ["atention"]),
        ("no/such/mapper/here", MapperNotFoundError, ["no/such/mapper/here"]),
    ],
)
def test_invalid_setting_of_a_call(
    value: Any, kind: type[Exception], words: list[str], call: Any, inputs: dict[str, Any]
) -> None:
    with one_sentence(kind, *words):
        call(**inputs, token_compression=value)


def test_a_ratio_under_its_own_name_is_refused(call: Any, inputs: dict[str, Any]) -> None:
    with one_sentence(TypeError, "token_compression"):
        call(**inputs, retention_ratio=0.5)


def test_invalid_instruction_mask(call: Any, inputs: dict[str, Any]) -> None:
    mask = torch.ones_like(inputs["input_ids"])
    with one_sentence(ValueError, "instruction_mask"):
        call(**inputs, instruction_mask=mask[:, 1:])
    with one_sentence(TypeError, "instruction_mask"):
        call(**inputs, instruction_mask=mask.tolist())


def test_a_prompt_without_instruction_tokens(call: Any) -> None:
    batch = make_inputs([ONE_IMAGE, TEXT_ONLY, TWO_IMAGES])
    padded = batch["attention_mask"] == 0
    assert padded[0].any()
    mask = ~padded
    mask[1] = False
    call(**batch, instruction_mask=mask)
    mask[0] = padded[0]
    with one_sentence(ValueError, "Prompt 0 "):
        call(**batch, instruction_mask=mask)


@pytest.mark.parametrize("scorer", ["random", "uniform"])
def test_scorers_that_ignore_the_question_need_no_instruction_tokens(
    scorer: str, inputs: dict[str, Any]
) -> None:
    model = compress(tiny_model(), {"retention_ratio": 0.25, "scorer": scorer})
    none = torch.zeros_like(inputs["input_ids"])
    prepared = prepare_inputs(model, **inputs, instruction_mask=none)
    assert prepared["input_ids"].shape[1] < inputs["input_ids"].shape[1]


# Inputs that do not fit each other


@pytest.mark.parametrize("name", ["mm_token_type_ids", "image_grid_thw", "video_grid_thw"])
def test_missing_inputs(name: str, call: Any) -> None:
    inputs = make_inputs([IMAGE_AND_VIDEO])
    del inputs[name]
    with one_sentence(ValueError, name):
        call(**inputs)


@pytest.mark.parametrize("keep", [-1, -3, -20, 20, 5], ids=str)
def test_a_truncated_prompt(keep: int, call: Any, inputs: dict[str, Any]) -> None:
    """Cut within the image, or before it."""
    visual_end = int((inputs["input_ids"][0] == IMAGE).nonzero()[-1]) + 1
    end = visual_end + keep if keep < 0 else keep
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        inputs[name] = inputs[name][:, :end]
    with one_sentence(ValueError, "placeholders"):
        call(**inputs)


def test_more_placeholders_than_features(call: Any) -> None:
    two, one = make_inputs([TWO_IMAGES]), make_inputs([ONE_IMAGE])
    two.update(pixel_values=one["pixel_values"], image_grid_thw=one["image_grid_thw"])
    with one_sentence(ValueError, "placeholders"):
        call(**two)


@pytest.mark.parametrize("prompt", [(4, (4, 6), 3), TEXT_ONLY], ids=["one image", "text"])
def test_more_images_than_placeholders(prompt: Any, call: Any) -> None:
    two, inputs = make_inputs([TWO_IMAGES]), make_inputs([prompt])
    inputs.update(pixel_values=two["pixel_values"], image_grid_thw=two["image_grid_thw"])
    with one_sentence(ValueError, "of 2 images"):
        call(**inputs)


@pytest.mark.parametrize(("given", "placeholders"), [(2, 3), (3, 2)], ids=["fewer", "more"])
@pytest.mark.parametrize("way", ["forward", "generate", "prepare"])
@pytest.mark.parametrize("family", FAMILIES)
def test_frames_that_do_not_match_the_placeholders(
    family: str, way: str, given: int, placeholders: int
) -> None:
    """The video of one processor call, and the text of another."""
    model = make_pair(family=family).compressed
    video, text = (
        make_inputs([(4, (frames, 4, 6), 7, "end", 2)], family=family)
        for frames in (given, placeholders)
    )
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    mixed = {**video, **{name: text[name] for name in names if name in text}}
    with one_sentence(ValueError, "video placeholders"):
        if way == "prepare":
            prepare_inputs(model, **mixed)
        else:
            getattr(model, way)(**mixed)


@pytest.mark.parametrize("prompt", [ONE_IMAGE, ONE_VIDEO], ids=["image", "video"])
def test_pixels_that_do_not_match_their_grid(prompt: Any, call: Any) -> None:
    inputs = make_inputs([prompt])
    name = "pixel_values" if "pixel_values" in inputs else "pixel_values_videos"
    inputs[name] = inputs[name][:-4]
    with one_sentence(ValueError, f"{name} has 188 patches"):
        call(**inputs)


def test_an_image_that_crosses_two_prompts(call: Any) -> None:
    """Enough features in all, but a prompt ends within an image."""
    inputs = make_inputs([(3, (4, 4), 3), (3, (4, 6), 3)])
    inputs["image_grid_thw"] = inputs["image_grid_thw"].flip(0)
    with one_sentence(ValueError, "Prompt 0 "):
        call(**inputs)


def test_given_features_that_do_not_match_their_grid(call: Any, inputs: dict[str, Any]) -> None:
    model = tiny_model()
    encoded = model.get_image_features(
        inputs.pop("pixel_values"), inputs["image_grid_thw"], return_dict=True
    )
    encoded.pooler_output = [encoded.pooler_output[0][:-1]]
    with one_sentence(ValueError, "image 0 "):
        call(**inputs, mm_encoder_outputs={"image": encoded})


def test_fewer_given_features_than_grids(call: Any) -> None:
    inputs = make_inputs([TWO_IMAGES])
    encoded = tiny_model().get_image_features(
        inputs.pop("pixel_values"), inputs["image_grid_thw"], return_dict=True
    )
    encoded.pooler_output = list(encoded.pooler_output)[:1]
    with one_sentence(ValueError, "features"):
        call(**inputs, mm_encoder_outputs={"image": encoded})


def test_embeddings_without_ids(call: Any, pair: ModelPair, inputs: dict[str, Any]) -> None:
    inputs["inputs_embeds"] = pair.stock.get_input_embeddings()(inputs.pop("input_ids"))
    with one_sentence(ValueError, "inputs_embeds"):
        call(**inputs)


def test_ids_of_one_dimension(call: Any, inputs: dict[str, Any]) -> None:
    inputs["input_ids"] = inputs["input_ids"][0]
    with one_sentence(TypeError, "input_ids"):
        call(**inputs)


def test_position_ids_of_another_length(call: Any, inputs: dict[str, Any]) -> None:
    positions = torch.arange(7).expand(4, 1, -1)
    with one_sentence(ValueError, "position_ids"):
        call(**inputs, position_ids=positions)


def test_token_types_of_another_length(call: Any, inputs: dict[str, Any]) -> None:
    inputs["mm_token_type_ids"] = inputs["mm_token_type_ids"][:, 1:]
    with one_sentence(ValueError, "mm_token_type_ids", "input_ids"):
        call(**inputs)


def test_an_attention_mask_of_another_form(pair: ModelPair, inputs: dict[str, Any]) -> None:
    mask = inputs.pop("attention_mask")
    with one_sentence(ValueError, "attention_mask"):
        pair.compressed(**inputs, attention_mask=torch.zeros(1, 1, *mask.shape))
    with one_sentence(TypeError, "attention_mask"):
        pair.compressed(**inputs, attention_mask={"full_attention": mask})


def test_a_mask_that_hides_a_placeholder(call: Any, inputs: dict[str, Any]) -> None:
    inputs["attention_mask"][0, 10] = 0
    with one_sentence(ValueError, "attention_mask"):
        call(**inputs)


def test_a_filled_cache(pair: ModelPair, inputs: dict[str, Any]) -> None:
    text = make_inputs([TEXT_ONLY])
    cache = pair.compressed(**text).past_key_values
    for call in (pair.compressed, pair.compressed.generate):
        with one_sentence(ValueError, "cache"):
            call(**inputs, **carried(cache))


def test_images_on_the_cache_of_a_compressed_prompt(pair: ModelPair) -> None:
    inputs = make_inputs([ONE_IMAGE])
    cache = pair.compressed(**inputs).past_key_values
    with one_sentence(ValueError, "cache"):
        pair.compressed.generate(**inputs, **carried(cache))
    with pair.compressed.token_compression.disabled(), one_sentence(ValueError, "cache"):
        pair.compressed.generate(**inputs, **carried(cache))


def test_unknown_keywords_raise_as_in_the_stock_model(
    pair: ModelPair, inputs: dict[str, Any]
) -> None:
    for model in pair:
        with pytest.raises(ValueError, match="retention_ration"):
            model.generate(**inputs, retention_ration=0.1)


# Scorers


@pytest.fixture
def own_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test end with it."""
    monkeypatch.setattr(scorer_registry.SCORERS, "registered", {})


def scored_by(function: Any) -> Any:
    """A compressed model with a user's scorer."""

    @register_scorer("own")
    class OwnScorer(Scorer):
        def score(self, prompt: Any) -> Any:
            return function(prompt)

    return compress(tiny_model(), {"scorer": "own", "min_visual_tokens": 0, "retention_ratio": 0.5})


def spoiled(prompt: Any, value: float) -> torch.Tensor:
    scores = torch.rand(prompt.visual_mask.shape)
    scores[1, prompt.visual_mask[1].nonzero()[3]] = value
    return scores


@pytest.mark.usefixtures("own_scorers")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite(value: float) -> None:
    model = scored_by(lambda prompt: spoiled(prompt, value))
    with one_sentence(NotFiniteError, "prompt 1"):
        model(**make_inputs(RAGGED))


@pytest.mark.usefixtures("own_scorers")
def test_scores_of_text_and_padding_may_be_anything() -> None:
    def score(prompt: Any) -> torch.Tensor:
        scores = torch.rand(prompt.visual_mask.shape)
        return scores.masked_fill(~prompt.visual_mask, float("nan"))

    model = scored_by(score)
    assert model(**make_inputs(RAGGED)).logits.isfinite().all()


@pytest.mark.usefixtures("own_scorers")
@pytest.mark.parametrize(
    "shape", [lambda s: s[:, 1:], lambda s: s[0], lambda s: s[..., None], lambda s: s.T]
)
def test_scores_of_another_shape(shape: Any) -> None:
    model = scored_by(lambda prompt: shape(torch.rand(prompt.visual_mask.shape)))
    with one_sentence(ValueError, "shape"):
        model(**make_inputs(RAGGED))


@pytest.mark.usefixtures("own_scorers")
@pytest.mark.parametrize("value", [torch.bool, torch.complex64, None, 0.5], ids=str)
def test_scores_of_another_type(value: Any) -> None:
    """Tensors of another dtype, and things that are not tensors."""
    is_dtype = isinstance(value, torch.dtype)
    model = scored_by(
        lambda prompt: torch.zeros(prompt.input_ids.shape, dtype=value) if is_dtype else value
    )
    with one_sentence(TypeError, "floating-point"):
        model(**make_inputs([ONE_IMAGE]))


@pytest.mark.usefixtures("own_scorers")
def test_top_p_with_negative_scores() -> None:
    model = scored_by(lambda prompt: -torch.rand(prompt.visual_mask.shape))
    compress(model, {"scorer": "own", "min_visual_tokens": 0, "top_p": 0.5})
    with one_sentence(ValueError, "top_p"):
        model(**make_inputs([ONE_IMAGE]))


def test_a_decoder_without_a_list_of_layers_has_layer_0_only() -> None:
    model = tiny_model()
    decoder = model.get_decoder()
    decoder.layers = nn.Sequential(*decoder.layers)
    with one_sentence(ValueError, "scoring_depth"):
        check_depth(model, 1)


def test_unknown_scorer() -> None:
    with one_sentence(ValueError, "'astrology'"):
        compress(tiny_model(), {"scorer": "astrology"})


@pytest.mark.parametrize("scorer", ["random", "uniform", "attention"])
def test_unknown_scorer_option(scorer: str) -> None:
    with one_sentence(ValueError, "colour"):
        compress(tiny_model(), {"scorer": scorer, "scorer_options": {"colour": 1}})


@pytest.mark.parametrize(
    ("scorer", "name", "value", "kind"),
    [
        ("random", "seed", "x", TypeError),
        ("random", "seed", -1, ValueError),
        ("random", "seed", 2**64, ValueError),
        ("random", "seed", 2**70, ValueError),
        ("attention", "scoring_depth", 1.5, TypeError),
        ("attention", "scoring_depth", -1, ValueError),
        ("attention", "scoring_depth", 3, ValueError),
        ("attention", "scoring_depth", 2**70, ValueError),
    ],
)
def test_scorer_option_out_of_range(
    scorer: str, name: str, value: object, kind: type[Exception]
) -> None:
    with one_sentence(kind, name):
        compress(tiny_model(), {"scorer": scorer, "scorer_options": {name: value}})


def test_a_mapper_that_cannot_be_loaded(tmp_path: Path) -> None:
    model = tiny_model()
    with one_sentence(MapperNotFoundError, "nowhere"):
        compress(model, TokenCompressionConfig(mapper=str(tmp_path / "nowhere")))
    assert type(model) is Qwen2VLForConditionalGeneration


@pytest.mark.usefixtures("own_scorers")
def test_scorer_names_are_unique() -> None:
    with one_sentence(ValueError, "'random'"):
        register_scorer("random")(type("Mine", (Scorer,), {}))
    register_scorer("own")(type("First", (Scorer,), {}))
    with one_sentence(ValueError, "'own'"):
        register_scorer("own")(type("Second", (Scorer,), {}))
    assert available_scorers().count("own") == 1


@pytest.mark.usefixtures("own_scorers")
def test_only_scorers_are_registered() -> None:
    with one_sentence(TypeError, "Scorer"):
        register_scorer("own")(dict)
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Scorer,), {})()
