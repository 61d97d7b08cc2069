"""Every image-text-to-text type of Transformers is verified, generic, or refused with a reason."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from errors import one_sentence
from packaging.version import Version
from pairs import HALF, KEEP_ALL
from tiny_models import (
    IMAGE_AND_VIDEO,
    ONE_IMAGE,
    RAGGED,
    RAGGED_VIDEOS,
    TEXT_CONFIG,
    every_family,
    make_inputs,
    tiny_config,
    tiny_model,
)
from transformers import (
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from typing_extensions import override

from hf_token_compress import compress, prepare_inputs, supported_families
from hf_token_compress.models import refused
from hf_token_compress.models.generic import GenericFamily
from hf_token_compress.models.registry import FAMILIES, model_family
from hf_token_compress.notices import warn_once

pytestmark = pytest.mark.core

SEAM = "mm_encoder_outputs"
# Others of these types lack the seam in older versions.
NEWEST = Version(transformers.__version__) >= Version("5.24.0")


def test_every_verified_family_is_tested() -> None:
    assert set(supported_families()) - set(FAMILIES.registered) == set(every_family())


@pytest.mark.parametrize("model_type", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
def test_type(model_type: str) -> None:
    model_class = getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type])
    own_type = model_class.config_class.model_type
    if SEAM not in inspect.signature(model_class.forward).parameters:
        if NEWEST:
            assert own_type in refused._REASONS, "a new type: say why it is refused"
        with one_sentence(ValueError, model_class.__name__, own_type):
            model_family(model_class)
    elif own_type in refused._UNLIKE:
        with one_sentence(ValueError, model_class.__name__, refused._UNLIKE[own_type]):
            model_family(model_class)
    elif own_type == "llama4" and NEWEST:
        with one_sentence(ValueError, model_class.__name__, "its own forward fails"):
            model_family(model_class)
    else:
        is_generic = isinstance(model_family(model_class), GenericFamily)
        assert is_generic == (own_type not in supported_families())


@pytest.mark.skipif(not NEWEST, reason="Llama 4 works there")
def test_llama4_still_fails_itself() -> None:
    """When this fails, Transformers has mended it, and it need not be refused."""
    text = {**TEXT_CONFIG, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
    }
    config = transformers.Llama4Config(text_config=text, vision_config=vision)
    model = transformers.Llama4ForConditionalGeneration(config)
    with pytest.raises(AttributeError, match="image_outputs"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


class OwnConfig(Qwen3VLConfig):
    model_type = "own_vl"


class OwnModel(Qwen3VLForConditionalGeneration):
    config_class = OwnConfig


def own_model() -> Any:
    settings = tiny_config(family="qwen3_vl").to_dict()
    del settings["model_type"]
    model = OwnModel(OwnConfig(**settings)).eval()
    model.load_state_dict(tiny_model(family="qwen3_vl").state_dict())
    return model


@pytest.mark.parametrize(
    ("prompts", "policy"),
    [(RAGGED, "original"), (RAGGED_VIDEOS, "original"), (RAGGED_VIDEOS, "grid")],
    ids=["images", "videos", "moved"],
)
def test_a_class_of_nobody_equals_stock(prompts: Any, policy: Any) -> None:
    inputs = make_inputs(prompts, family="qwen3_vl")
    stock, compressed = own_model(), compress(own_model(), replace(HALF, position_ids=policy))
    with torch.no_grad():
        prepared = prepare_inputs(compressed, **inputs)
        assert compressed.token_compression.checked
        assert torch.equal(compressed(**inputs).logits, stock(**prepared).logits)
    expected = stock(**inputs).logits
    assert torch.equal(compressed(**inputs, token_compression=1.0).logits, expected)


def test_a_notice_is_given_once() -> None:
    warn_once.cache_clear()
    with pytest.warns(UserWarning, match="OwnModel is not one of the model families"):
        compress(own_model(), KEEP_ALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compress(own_model(), KEEP_ALL)


REMOTE = """
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

class RemoteConfig(Qwen3VLConfig):
    model_type = "remote_vl"

class RemoteModel(Qwen3VLForConditionalGeneration):
    config_class = RemoteConfig
"""


def test_remote_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    stock = tiny_model(family="qwen3_vl")
    stock.config.auto_map = {
        "AutoConfig": "remote.RemoteConfig",
        "AutoModelForImageTextToText": "remote.RemoteModel",
    }
    stock.config.model_type = "remote_vl"
    stock.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "remote.py").write_text(REMOTE)
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "model", trust_remote_code=True, token_compression=HALF
    )
    inputs = make_inputs([IMAGE_AND_VIDEO], family="qwen3_vl")
    expected = compress(tiny_model(family="qwen3_vl"), HALF)(**inputs).logits
    assert torch.equal(model(**inputs).logits, expected)
    assert type(model).__name__ == "RemoteModel"


@pytest.mark.parametrize(
    ("grid", "count", "shape"),
    [
        ((1, 4, 6), 6, (1, 2, 3)),
        ((2, 2, 3), 12, (2, 2, 3)),
        ((1, 4, 6), 8, (1, 1, 8)),
        (None, 9, (1, 3, 3)),
    ],
    ids=["of_patches", "of_visual_tokens", "with_newlines", "none"],
)
def test_where_tokens_of_nobodys_class_lie(grid: Any, count: int, shape: Any) -> None:
    family, config = GenericFamily(), own_model().config
    assert config.vision_config.spatial_merge_size == 2
    inputs = {} if grid is None else {"image_grid_thw": torch.tensor([grid])}
    sizes = family.sizes(config, inputs, "image", [count])
    (layout,) = family.layouts(config, sizes, "image")
    assert [own.shape for own in layout.grids] == [shape]


def test_images_of_one_token() -> None:
    """Nothing could be dropped, as every image keeps a token."""
    with one_sentence(ValueError, "Qwen3VLConfig", "24 images of one token each", "features"):
        GenericFamily().sizes(tiny_config(family="qwen3_vl"), {}, "image", [1] * 24)


class OtherNames(OwnModel):
    """Calls its pixels in its own way."""

    @override
    def forward(
        self, image_patches: Any = None, mm_encoder_outputs: Any = None, **rest: Any
    ) -> Any:
        return super().forward(
            pixel_values=image_patches, mm_encoder_outputs=mm_encoder_outputs, **rest
        )


def test_pixels_under_another_name() -> None:
    inputs = make_inputs([ONE_IMAGE], family="qwen3_vl")
    inputs["image_patches"] = inputs.pop("pixel_values")
    stock = OtherNames(own_model().config).eval()
    expected = stock(**inputs).logits
    model = compress(stock, HALF)
    with one_sentence(ValueError, "image placeholders", "pixel_values", "pixel_inputs"):
        model(**inputs)
    with one_sentence(ValueError, "image placeholders", "pixel_values", "pixel_inputs"):
        model.generate(**inputs, max_new_tokens=1)
    with torch.no_grad():
        assert torch.equal(model(**inputs, token_compression=False).logits, expected)
        text = inputs["input_ids"][:, -2:]
        assert model(input_ids=text).logits.isfinite().all()


class ScaledConfig(LlavaConfig):
    model_type = "scaled_llava"


class ScalesFeatures(LlavaModel):
    """Changes features after `get_image_features`."""

    config_class = ScaledConfig

    @override
    def forward(
        self,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        mm_encoder_outputs: Any = None,
        **rest: Any,
    ) -> Any:
        if pixel_values is not None:
            features = self.get_image_features(pixel_values, return_dict=True)
            features.pooler_output = [2 * own for own in features.pooler_output]
            mm_encoder_outputs = {"image": features}
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            **rest,
        )


class CountsByTwo(LlavaModel):
    """Numbers its positions in its own way."""

    config_class = ScaledConfig

    @override
    def forward(
        self,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        mm_encoder_outputs: Any = None,
        **rest: Any,
    ) -> Any:
        if position_ids is None:
            position_ids = 2 * torch.arange(input_ids.shape[1])[None]
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            **rest,
        )


@pytest.mark.parametrize(
    ("model_class", "policy", "what"),
    [
        (ScalesFeatures, "original", "embeddings"),
        (ScalesFeatures, "compact", "embeddings"),
        (CountsByTwo, "original", "positions"),
        (CountsByTwo, "grid", "positions"),
    ],
)
def test_the_first_prompt_of_a_model_that_is_other_than_it_looks(
    model_class: Any, policy: str, what: str
) -> None:
    settings = tiny_config(family="llava").to_dict()
    del settings["model_type"]
    setting = {"retention_ratio": 0.5, "min_visual_tokens": 0, "position_ids": policy}
    model = compress(model_class(ScaledConfig(**settings)).eval(), setting)
    inputs = make_inputs(RAGGED, family="llava")
    with one_sentence(ValueError, model_class.__name__, what, "register_family"):
        model(**inputs)
