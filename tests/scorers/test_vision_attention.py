"""What scorers get that need the attention of the vision tower.

The reference is the attention map that the tower's own eager implementation computes.
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from accelerate import cpu_offload
from errors import one_sentence
from largest_tensor import LargestTensor
from matrix import each_attention, each_dtype
from packaging.version import Version
from pairs import make_pair
from tiny_models import (
    FAMILIES,
    IMAGE,
    ONE_IMAGE,
    RAGGED,
    RAGGED_VIDEOS,
    TEXT_CONFIG,
    VIDEO,
    Prompt,
    family_of,
    family_prompts,
    make_inputs,
    tiny_family,
    tiny_model,
)
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import LlavaConfig, LlavaForConditionalGeneration
from typing_extensions import override

from hf_token_compress import Scorer, compress, register_scorer
from hf_token_compress.compression import vision_attention as own_module
from hf_token_compress.models.registry import model_family
from hf_token_compress.models.vila import VilaConfig
from hf_token_compress.scorers import registry as scorer_registry

pytestmark = pytest.mark.core

BATCHES = ("ragged", "ragged_videos")
each_family = pytest.mark.parametrize("family", FAMILIES)
each_prompt = pytest.mark.parametrize(
    ("family", "prompts"),
    [
        *family_prompts("several_images", "image_and_video", *BATCHES),
        *family_prompts("several_images", families=["gemma3", "idefics3", "llava_next"]),
        *family_prompts("image_and_video", families=["llava_next_video"]),
    ],
)
each_batch = pytest.mark.parametrize(("family", "prompts"), family_prompts(*BATCHES))


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(prompt, vision attention) of each call of the scorer "seen", which scores with it."""
    calls: list[Any] = []
    monkeypatch.setattr(scorer_registry.SCORERS, "registered", {})

    @register_scorer("seen")
    class Seen(Scorer):
        needs = frozenset({"vision_attention"})

        @override
        def score(self, prompt: Any, *, vision_attention: Tensor) -> Tensor:
            calls.append((prompt, vision_attention))
            return vision_attention

    return calls


def setting(scorer: str = "seen", ratio: float = 0.25) -> dict[str, Any]:
    return {"scorer": scorer, "retention_ratio": ratio, "min_visual_tokens": 0}


def attention_of(model: Any, inputs: dict[str, Tensor], seen: list[Any]) -> Tensor:
    """What the scorer gets, float32 [B, S]; the model is compressed on the way."""
    with torch.no_grad():
        compress(model, setting())(**inputs)
    attention: Tensor = seen[-1][1]
    assert attention.dtype == torch.float32
    assert attention.shape == inputs["input_ids"].shape
    return attention


# The reference


def eager_maps(model: Any, modality: str, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Maps [B, heads, N, N] of the first of the tower's two layers, from each call in order."""
    stock = copy.deepcopy(model)
    family_of(stock).visual_tower(stock).set_attn_implementation("eager")
    maps = []
    attention = next(part for part in first_layer(stock).modules() if hasattr(part, "is_causal"))
    module = sys.modules[type(attention).__module__]
    eager = module.eager_attention_forward

    def recording(caller: Any, *args: Any, **kwargs: Any) -> Any:
        output = eager(caller, *args, **kwargs)
        if caller is attention:
            maps.append(output[1])
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "eager_attention_forward", recording)
        encode(stock, modality, inputs)
    return maps


def first_layer(model: Any) -> Any:
    """The first of the tower's two layers."""
    tower = family_of(model).visual_tower(model)
    layers = next(part for part in tower.modules() if isinstance(part, nn.ModuleList))
    assert len(layers) == 2
    return layers[0]


def encode(model: Any, modality: str, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Features of each image or video by the stock method."""
    names = {"image": ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images")}
    names["video"] = ("pixel_values_videos", "video_grid_thw")
    method = getattr(model.model, f"get_{modality}_features")
    given = {name: inputs[name] for name in names[modality] if name in inputs}
    with torch.no_grad():
        return list(method(**given, return_dict=True).pooler_output)


def qwen2_vl_tokens(model: Any, modality: str, inputs: Any, received: list[Tensor]) -> Tensor:
    """The processor puts the four patches of a token one after the other."""
    patches = torch.cat(received, dim=1)[0]
    return torch.stack([patches[start : start + 4].mean() for start in range(0, len(patches), 4)])


def llava_onevision_tokens(
    model: Any, modality: str, inputs: Any, received: list[Tensor]
) -> Tensor:
    """The stock model arranges the map as if it were the tower's features."""
    stock = copy.deepcopy(model)
    features = received[0][..., None].expand(-1, -1, 3)
    stock.model.vision_tower = Answer(SimpleNamespace(hidden_states=[features]))
    stock.model.multi_modal_projector = nn.Identity()
    stock.model.image_newline = nn.Parameter(torch.zeros(3))
    return torch.cat([own[:, 0] for own in encode(stock, modality, inputs)])


def vila15_tokens(model: Any, modality: str, inputs: Any, received: list[Tensor]) -> Tensor:
    """Counted patch by patch: 7 x 7 in a tile; 2 x 2 make a token, fewer at the edges."""
    tokens = []
    for frame in range(len(received[0])):
        grids = [received[0][frame].view(7, 7)]
        if len(received) > 1:
            # The larger scale has 2 x 2 tiles, each for all frames: 2 x 2 of its patches lie on
            # one of the smaller.
            tiles = received[1].view(2, 2, -1, 7, 7)[:, :, frame]
            upper, lower = (torch.cat([left, right], dim=1) for left, right in tiles)
            large = torch.cat([upper, lower])
            cells = [large[row::2, column::2] for row in (0, 1) for column in (0, 1)]
            grids.append(torch.stack(cells).mean(0))
        grid = torch.stack(grids).mean(0)
        for column in range(0, 7, 2):
            tokens += [grid[row : row + 2, column : column + 2].mean() for row in range(0, 7, 2)]
    return torch.stack(tokens)


def llava_next_tokens(model: Any, modality: str, inputs: Any, received: list[Tensor]) -> Tensor:
    """As LLaVA-OneVision's, with a first token that the stock model leaves out."""
    return llava_onevision_tokens(model, modality, inputs, [pad(received[0], (1, 0))])


def square_tokens(model: Any, modality: str, inputs: Any, received: list[Tensor]) -> Tensor:
    """Counted patch by patch: 8 x 8 in an image or tile, and 2 x 2 make a token."""
    grids = [tile.view(8, 8) for tile in received[0]]
    places = [(row, column) for row in range(0, 8, 2) for column in range(0, 8, 2)]
    tokens = [
        grid[row : row + 2, column : column + 2].mean() for grid in grids for row, column in places
    ]
    return torch.stack(tokens)


class Answer(nn.Module):
    """Gives one answer to every call."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer


# Families whose tower begins with a CLS token.
WITH_CLS = ("llava_next", "llava_next_video")
TOKENS = {
    "gemma3": square_tokens,
    "idefics3": square_tokens,
    "llava_next": llava_next_tokens,
    "llava_next_video": llava_next_tokens,
    "llava_onevision": llava_onevision_tokens,
    "qwen2_vl": qwen2_vl_tokens,
    "qwen3_vl": qwen2_vl_tokens,
    "vila15": vila15_tokens,
}


def reference(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Float32 [B, S]."""
    expected = torch.zeros(inputs["input_ids"].shape)
    for modality, placeholder in (("image", IMAGE), ("video", VIDEO)):
        marked = inputs["input_ids"] == placeholder
        if marked.any():
            maps = eager_maps(model, modality, inputs)
            family = model.config.model_type
            if family in WITH_CLS:
                received = [own[:, :, 0, 1:].mean(dim=1) for own in maps]  # [B, N] each
            else:
                received = [own.mean(dim=(1, 2)) for own in maps]  # [B, N] each
            own_tokens = TOKENS[family]
            expected[marked] = own_tokens(model, modality, inputs, received)
    return expected


# Equalities


@each_attention
@each_prompt
def test_it_is_that_of_the_towers_eager_maps(
    family: str, prompts: tuple[Prompt, ...], attention: str, seen: list[Any]
) -> None:
    inputs = make_inputs(prompts, family=family)
    model = tiny_model(attention, family=family)
    expected = reference(model, inputs)
    actual = attention_of(model, inputs, seen)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    # It is not nearly the same everywhere.
    assert expected[expected > 0].std() > 1e-4


def test_a_tower_without_code_of_its_own_merges_consecutive_patches(seen: list[Any]) -> None:
    inputs = make_inputs(RAGGED_VIDEOS, family="qwen3_vl")
    model = tiny_model(family="qwen3_vl")
    expected = reference(model, inputs)
    torch.testing.assert_close(attention_of(model, inputs, seen), expected, rtol=0, atol=1e-6)


def test_both_scales_of_s2_count(seen: list[Any]) -> None:
    maker = tiny_family("vila15")
    torch.manual_seed(0)
    config = VilaConfig(**{**maker.config().to_dict(), "s2_scales": [28, 56]})
    model = maker.model_class(config).eval()
    inputs = make_inputs(RAGGED_VIDEOS, family="vila15")
    for name in ("pixel_values", "pixel_values_videos"):
        inputs[name] = inputs[name].repeat_interleave(2, -1).repeat_interleave(2, -2)
        inputs[name] += torch.randn(inputs[name].shape, generator=torch.Generator().manual_seed(0))
    expected = reference(model, inputs)
    torch.testing.assert_close(attention_of(model, inputs, seen), expected, rtol=0, atol=1e-6)


def test_a_cls_token_alone_asks(seen: list[Any]) -> None:
    model = llava_with_clip()
    inputs = make_inputs(RAGGED, family="llava")
    (maps,) = eager_maps(model, "image", inputs)
    expected = torch.zeros(inputs["input_ids"].shape)
    expected[inputs["input_ids"] == IMAGE] = maps[:, :, 0, 1:].mean(dim=1).flatten()
    torch.testing.assert_close(attention_of(model, inputs, seen), expected, rtol=0, atol=1e-6)


def llava_with_clip() -> Any:
    vision = {"model_type": "clip_vision_model", "num_hidden_layers": 2, "image_size": 32}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "patch_size": 8}
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config={**TEXT_CONFIG, "model_type": "llama"},
        vision_config={**vision, **sizes, "initializer_factor": 20.0},
        image_token_id=IMAGE,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    return LlavaForConditionalGeneration(config).eval()


@each_batch
def test_a_prompt_in_a_batch_gets_the_same_as_alone(
    family: str, prompts: tuple[Prompt, ...], seen: list[Any]
) -> None:
    model = tiny_model(family=family)
    inputs = make_inputs(prompts, family=family, padding_side="right")
    batch = attention_of(model, inputs, seen)
    for sample, prompt in enumerate(prompts):
        own = make_inputs([prompt], family=family)
        if own.keys() <= {"input_ids", "attention_mask", "mm_token_type_ids"}:
            assert not batch[sample].any()
            continue
        alone = attention_of(tiny_model(family=family), own, seen)[0]
        torch.testing.assert_close(batch[sample, : len(alone)], alone, rtol=0, atol=1e-6)
        assert not batch[sample, len(alone) :].any()


@each_batch
@each_attention
@each_dtype
def test_the_features_stay_as_they_are(
    family: str,
    prompts: tuple[Prompt, ...],
    attention: str,
    dtype: torch.dtype,
    seen: list[Any],
) -> None:
    model = tiny_model(attention, dtype, family=family)
    inputs = make_inputs(prompts, family=family, dtype=dtype)
    assert_stock_features(model, inputs, seen)


def assert_stock_features(model: Any, inputs: dict[str, Tensor], seen: list[Any]) -> Tensor:
    """Returns the attention."""
    expected = []
    for modality, placeholder in (("image", IMAGE), ("video", VIDEO)):
        marked = inputs["input_ids"] == placeholder
        if marked.any():
            features = torch.cat(encode(model, modality, inputs)).flatten(0, -2)
            expected.append((marked, features))
    attention = attention_of(model, inputs, seen)
    for marked, features in expected:
        assert torch.equal(seen[-1][0].inputs_embeds[marked], features)
    return attention


@each_batch
def test_keeping_all_equals_the_stock_model_bit_for_bit(
    family: str, prompts: tuple[Prompt, ...]
) -> None:
    inputs = make_inputs(prompts, family=family)
    stock, compressed = make_pair(setting(ratio=1.0), family=family)
    with torch.no_grad():
        assert torch.equal(compressed(**inputs).logits, stock(**inputs).logits)


@each_family
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_in_training_stay_as_they_are(family: str, checkpointing: bool) -> None:
    """With dropout in the tower, at the ratio at which every scorer keeps the same tokens."""
    inputs = make_inputs(RAGGED, family=family)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    gradients = []
    for scorer in ("uniform", "seen"):
        model = tiny_model(family=family)
        tower = family_of(model).visual_tower(model)
        for part in tower.modules():
            for name in ("dropout", "attention_dropout"):
                if hasattr(part, name):
                    setattr(part, name, 0.3)
        if checkpointing:
            # Its name changes with the version of Transformers.
            old = model.gradient_checkpointing_enable
            getattr(model, "activation_checkpointing_enable", old)()
        compress(model, setting(scorer, ratio=1.0)).train()
        torch.manual_seed(0)
        model(**inputs, labels=labels).loss.backward()
        gradients.append([own.grad for own in tower.parameters() if own.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


# Cost


@each_family
def test_it_is_computed_only_if_a_scorer_needs_it(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kernel = own_module.instruction_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(args)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(own_module, "instruction_attention", counted)
    inputs = make_inputs([ONE_IMAGE], family=family)
    for scorer, expected in (("uniform", 0), ("attention", 0), ("seen", 1)):
        model = compress(tiny_model(family=family), setting(scorer))
        with torch.no_grad():
            model(**inputs)
        assert len(calls) == expected


def test_no_map_of_all_patches_is_made(seen: list[Any]) -> None:
    inputs = make_inputs([(3, (32, 32), 4, "end", 2)])
    with LargestTensor() as largest:
        attention_of(tiny_model(), inputs, seen)
    patches = len(inputs["pixel_values"])
    assert patches == 4096
    assert largest.elements < patches**2 / 8


def test_the_report_counts_it_as_scoring() -> None:
    inputs = make_inputs([ONE_IMAGE])
    model = compress(tiny_model(), setting(ratio=1.0))
    model(**inputs)
    report = model.token_compression.last
    assert min(report.scoring_ms, report.vision_ms, report.rewriting_ms) > 0


# The model


@each_family
def test_the_model_is_left_as_it_was(family: str, seen: list[Any]) -> None:
    model = tiny_model(family=family)
    inputs = make_inputs([ONE_IMAGE], family=family)
    compress(model, setting())
    before = {name: state(part) for name, part in model.named_modules()}
    with torch.no_grad():
        model(**inputs)
    assert seen
    assert {name: state(part) for name, part in model.named_modules()} == before


def state(module: nn.Module) -> dict[str, Any]:
    """Without what Transformers itself notes in the first forward of the decoder."""
    config = getattr(module, "config", None)
    return {
        "names": set(vars(module)) - {"_output_capturing_hooks_installed"},
        "hooks": list(module._forward_pre_hooks),
        "training": module.training,
        "backend": getattr(config, "_attn_implementation", None),
    }


@each_family
def test_weights_may_be_offloaded(family: str, seen: list[Any]) -> None:
    model = tiny_model(family=family)
    inputs = make_inputs(RAGGED, family=family)
    expected = attention_of(copy.deepcopy(model), inputs, seen)
    offloaded = cpu_offload(model, execution_device=torch.device("cpu"))
    assert torch.equal(attention_of(offloaded, inputs, seen), expected)
    assert all(own.is_meta for own in family_of(model).visual_tower(model).parameters())


@each_family
def test_replaced_forwards_are_called(family: str, seen: list[Any]) -> None:
    """As libraries of kernels replace them on the modules of a model."""
    model = tiny_model(family=family)
    inputs = make_inputs([ONE_IMAGE], family=family)
    before = attention_of(copy.deepcopy(model), inputs, seen)
    for part in family_of(model).visual_tower(model).modules():
        if isinstance(part, nn.LayerNorm):
            part.forward = torch.zeros_like
    flat = assert_stock_features(model, inputs, seen)
    marked = before > 0
    # Without content, every patch gets the same.
    assert before[marked].std() > 100 * flat[marked].std()


@each_family
def test_hooks_on_the_layer_change_it_once(family: str, seen: list[Any]) -> None:
    model = tiny_model(family=family)
    inputs = make_inputs(RAGGED, family=family)
    shift = torch.linspace(-3, 3, 32)
    first_layer(model).register_forward_pre_hook(lambda _, args: (args[0] * shift, *args[1:]))
    expected = reference(model, inputs)
    actual = assert_stock_features(model, inputs, seen)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


# Refusals


@each_family
def test_features_of_the_caller_have_none(family: str) -> None:
    inputs = make_inputs([ONE_IMAGE], family=family)
    model = tiny_model(family=family)
    with torch.no_grad():
        names = {"pixel_values", "image_grid_thw", "image_sizes", "batch_num_images"}
        pixels = {name: inputs[name] for name in names & inputs.keys()}
        features = model.model.get_image_features(**pixels, return_dict=True)
        inputs = {name: own for name, own in inputs.items() if name != "pixel_values"}
        inputs["mm_encoder_outputs"] = {"image": features}
        compress(model, setting())
        with one_sentence(ValueError, "mm_encoder_outputs", "pixels"):
            model(**inputs)
        # Where every token stays, nothing is scored.
        model(**inputs, token_compression=1.0)


def test_attention_outside_the_interface_is_refused() -> None:
    model = tiny_model(family="vila15")

    class Own(nn.Module):
        @override
        def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
            return hidden_states, None

    first_layer(model).self_attn = Own()
    compress(model, setting())
    with one_sentence(ValueError, "SiglipVisionModel", "AttentionInterface"):
        model(**make_inputs([ONE_IMAGE], family="vila15"))


@pytest.mark.parametrize(
    ("family", "word"), [("qwen2_5_vl", "token_attention"), ("aria", "no patch")]
)
def test_patches_of_unknown_tokens_are_refused(family: str, word: str) -> None:
    model = compress(tiny_model(family=family), setting())
    with one_sentence(ValueError, word, type(model).__name__):
        model(**make_inputs([ONE_IMAGE], family=family))


def test_towers_with_masks_are_refused() -> None:
    model = compress(tiny_model(family="mistral3"), setting())
    with one_sentence(ValueError, "PixtralVisionModel", "mask"):
        model(**make_inputs([ONE_IMAGE], family="mistral3"))


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.24.0"), reason="needs Transformers 5.24"
)
def test_patches_that_the_processor_leaves_in_rows() -> None:
    """PaddleOCR-VL's projector merges squares of them."""
    model = tiny_model(family="paddleocr_vl")
    received = [torch.randn(1, 24), torch.randn(1, 8)]
    inputs = {"image_grid_thw": torch.tensor([[1, 4, 6], [1, 2, 4]])}
    family = model_family(type(model))
    actual = family.token_attention(model, inputs, "image", [torch.cat(received, 1)], [6, 2])
    for own, patches, size in zip(actual, received, [(4, 6), (2, 4)], strict=True):
        expected = nn.functional.avg_pool2d(patches.view(1, *size), 2)
        torch.testing.assert_close(own, expected.flatten())
