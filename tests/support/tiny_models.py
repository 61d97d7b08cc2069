"""Random tiny models of every family, and prompts made of text, images, videos and turn ends."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import PreTrainedConfig

TEXT_IDS = 80
IMAGE, VISION_START, VISION_END, TURN_END, PADDING, VIDEO = 90, 91, 92, 93, 94, 95
VOCABULARY = 100
HIDDEN = 48

Segment: TypeAlias = int | tuple[int, ...] | Literal["end"]
"""A number of text tokens, an image (rows, columns), a video (frames, rows, columns), or the end
of a turn. Each family has its own unit for rows and columns."""

Prompt: TypeAlias = Sequence[Segment]

ONE_IMAGE: Prompt = (4, (6, 8), 7, "end", 2)
TWO_IMAGES: Prompt = (3, (4, 6), 2, (6, 6), 5, "end", 2)
TWO_TURNS: Prompt = (3, (6, 6), 5, "end", 2, 4, "end", 3, (4, 4), 6, "end", 2)
TEXT_ONLY: Prompt = (9, "end", 2)
ONE_VIDEO: Prompt = (4, (2, 4, 6), 7, "end", 2)
TWO_VIDEOS: Prompt = (3, (2, 4, 4), 2, (2, 6, 4), 5, "end", 2)
IMAGE_AND_VIDEO: Prompt = (2, (2, 4, 4), 3, (4, 4), 5, "end", 2)
RAGGED: tuple[Prompt, ...] = (ONE_IMAGE, TWO_TURNS, TEXT_ONLY, TWO_IMAGES)
RAGGED_VIDEOS: tuple[Prompt, ...] = (ONE_VIDEO, IMAGE_AND_VIDEO, TEXT_ONLY, TWO_VIDEOS, ONE_IMAGE)

IMAGE_PROMPTS: dict[str, tuple[Prompt, ...]] = {
    "one_image": (ONE_IMAGE,),
    "several_images": (TWO_IMAGES,),
    "several_turns": (TWO_TURNS,),
    "text_only": (TEXT_ONLY,),
    "ragged": RAGGED,
}
"""Prompts of a family without videos."""

PROMPTS: dict[str, tuple[Prompt, ...]] = {
    **IMAGE_PROMPTS,
    "one_video": (ONE_VIDEO,),
    "several_videos": (TWO_VIDEOS,),
    "image_and_video": (IMAGE_AND_VIDEO,),
    "ragged_videos": RAGGED_VIDEOS,
}

TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": PADDING,
    "eos_token_id": TURN_END,
    "bos_token_id": None,
    "tie_word_embeddings": False,
}
"""A language model with three query heads to a key head and weights large enough to matter."""


class Visual(NamedTuple):
    """One image or video of one prompt.

    Attributes:
        kind: "image" or "video".
        ids: Its placeholders, and the tokens around them.
        pixels: The output of the family's processor.
        size: Its numbers in the prompt.
    """

    kind: Literal["image", "video"]
    ids: list[int]
    pixels: Tensor
    size: tuple[int, ...]


class Fault(NamedTuple):
    """How a stock model fails.

    Attributes:
        message: Regular expression that its error matches.
        error: Class of the error.
        since: First version of Transformers that fails so.
    """

    message: str
    error: type[Exception] = Exception
    since: str = "5.19.0"


class TinyFamily(ABC):
    """How to make random tiny models of one family, and inputs for them.

    Attributes:
        architecture: What the names of its classes in Transformers begin with.
        prompts: The prompts of its tests, by name.
        since: First version of Transformers that it is tested with.
        hiding_differs: Why dropping tokens is not hiding them, such as a linear attention that
            reads hidden tokens too; None if it is.
        attentions: Attention implementations that it has.
        attention_layers: Decoder layers that have an attention map; None if all have one.
        answer_type: The `token_type_ids` of an answer, if it has any.
        faults: How the stock model fails, by kind of cell or by "kind-prompts".
        stock_differs: Why the stock model is wrong without an error, by "kind-prompts".
        image_sizes: (height, width) in pixels of images for its processor.
    """

    architecture: ClassVar[str]
    prompts: ClassVar[Mapping[str, tuple[Prompt, ...]]] = IMAGE_PROMPTS
    since: ClassVar[str] = "5.19.0"
    hiding_differs: ClassVar[str | None] = None
    attentions: ClassVar[tuple[str, ...]] = ("sdpa", "eager")
    attention_layers: ClassVar[tuple[int, ...] | None] = None
    answer_type: ClassVar[int] = 0
    faults: ClassVar[Mapping[str, Fault]] = {}
    stock_differs: ClassVar[Mapping[str, str]] = {}
    image_sizes: ClassVar[tuple[tuple[int, int], ...]] = ((40, 56), (64, 24))

    @property
    def model_class(self) -> Any:
        """The class with a language model head."""
        return getattr(transformers, f"{self.architecture}ForConditionalGeneration")

    @property
    def base_class(self) -> Any:
        """The class without one."""
        return getattr(transformers, f"{self.architecture}Model")

    @property
    def config_class(self) -> Any:
        """The class of their configuration."""
        return getattr(transformers, f"{self.architecture}Config")

    @property
    def takes_videos(self) -> bool:
        """Whether any of its prompts has a video."""
        segments = (
            own for prompts in self.prompts.values() for prompt in prompts for own in prompt
        )
        return any(isinstance(segment, tuple) and len(segment) == 3 for segment in segments)

    @abstractmethod
    def config(self, **text_options: Any) -> PreTrainedConfig:
        """Configuration with `TEXT_CONFIG` and these options."""

    @abstractmethod
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        """Draw an image or video; `alone` if it is the only one of its kind in its prompt."""

    @abstractmethod
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        """Inputs other than ids [B, S] and mask, from the visuals of each prompt."""

    def position_ids(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Position ids of the whole prompt: counted without padding, as in stock `generate`."""
        return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    def visual_tower(self, model: Any) -> Any:
        """The vision tower of a model with a language model head."""
        return model.model.vision_tower

    def initialise(self, model: Any) -> None:  # noqa: B027 - most have nothing to change
        """Change parameters that a random model starts with at zero."""

    def processor(self) -> Any:
        """The family's real processor, with small sizes and a tokenizer of a few words.

        Raises:
            NotImplementedError: It cannot be built without a checkpoint.
        """
        raise NotImplementedError

    def image_text(self, processor: Any) -> str:
        """What stands for one image in the text that the processor takes."""
        return str(processor.image_token)

    def video_text(self, processor: Any) -> str:
        """What stands for one video in the text that the processor takes.

        Raises:
            NotImplementedError: It takes no videos.
        """
        raise NotImplementedError

    def process(self, processor: Any, **arguments: Any) -> dict[str, Any]:
        """What the processor makes of text, and images or videos, of one prompt."""
        return dict(processor(**arguments, return_tensors="pt"))


FAMILIES = ("llava_onevision", "qwen2_vl", "vila15")
"""The families of the wide tests; the matrix and the layouts are tested on every family."""


def every_family() -> tuple[str, ...]:
    """The families that have a file, tested with the installed Transformers or not, sorted."""
    import families

    names = (module.name for module in pkgutil.iter_modules(families.__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def marked_families() -> list[Any]:
    """Parameters for every family; those that need a newer Transformers are skipped."""
    return [
        pytest.param(name, marks=skipped_before(tiny_family(name).since)) for name in every_family()
    ]


def skipped_before(version: str) -> Any:
    """Marks of a test that needs that version of Transformers."""
    if Version(transformers.__version__) >= Version(version):
        return ()
    return pytest.mark.skip(reason=f"needs Transformers {version}")


def tiny_family(name: str) -> TinyFamily:
    """The family of that `config.model_type`."""
    family: TinyFamily = import_module(f"families.{name}").Family()
    return family


def family_of(model: Any) -> TinyFamily:
    """The family of a model."""
    return tiny_family(model.config.model_type)


def family_prompts(*names: str, families: Sequence[str] = FAMILIES) -> list[Any]:
    """Parameters (family, prompts) for all prompts of every family, or for those named."""
    return [
        pytest.param(name, prompts, id=f"{name}-{title}")
        for name in families
        for title, prompts in tiny_family(name).prompts.items()
        if not names or title in names
    ]


def tiny_config(attention: str = "sdpa", *, family: str = "qwen2_vl", **text_options: Any) -> Any:
    """Configuration of a random tiny model."""
    maker = tiny_family(family)
    config = maker.config(**text_options)
    config._attn_implementation = (
        attention if attention in maker.attentions else maker.attentions[0]
    )
    return config


def tiny_model(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    *,
    family: str = "qwen2_vl",
    **text_options: Any,
) -> Any:
    """A random model in evaluation mode; the same arguments give the same weights."""
    torch.manual_seed(seed)
    config = tiny_config(attention, family=family, **text_options)
    maker = tiny_family(family)
    model = maker.model_class(config)
    maker.initialise(model)
    model.generation_config.pad_token_id = PADDING
    model.generation_config.eos_token_id = TURN_END
    model.generation_config.suppress_tokens = [IMAGE, VISION_START, VISION_END, PADDING, VIDEO]
    return model.to(dtype).eval()


def tiny_base_model(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    *,
    family: str = "qwen2_vl",
) -> Any:
    """The same without a language model head."""
    torch.manual_seed(seed)
    maker = tiny_family(family)
    model = maker.base_class(tiny_config(attention, family=family))
    maker.initialise(model)
    return model.to(dtype).eval()


def make_inputs(
    prompts: Sequence[Prompt],
    *,
    family: str = "qwen2_vl",
    padding_side: Literal["left", "right"] = "left",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What a processor would return for these prompts.

    Every prompt has its own generator, so its ids and pixels are the same alone and in a batch.
    """
    maker = tiny_family(family)
    samples: list[list[int]] = []
    visuals: list[list[Visual]] = []
    for prompt in prompts:
        generator = torch.Generator().manual_seed(seed + sum(map(ord, repr(prompt))))
        kinds = [len(segment) for segment in prompt if isinstance(segment, tuple)]
        ids: list[int] = []
        visuals.append([])
        for segment in prompt:
            if segment == "end":
                ids.append(TURN_END)
            elif isinstance(segment, int):
                ids += torch.randint(0, TEXT_IDS, (segment,), generator=generator).tolist()
            else:
                visual = maker.visual(segment, kinds.count(len(segment)) == 1, generator)
                visuals[-1].append(visual)
                ids += visual.ids
        samples.append(ids)
    longest = max(map(len, samples))

    def padded(values: list[int], fill: int) -> list[int]:
        padding = [fill] * (longest - len(values))
        return padding + values if padding_side == "left" else values + padding

    input_ids = torch.tensor([padded(ids, PADDING) for ids in samples])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.tensor([padded([1] * len(ids), 0) for ids in samples]),
        **maker.visual_inputs(visuals, input_ids),
    }
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
