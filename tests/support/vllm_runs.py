"""The same prompts in vLLM and in Transformers; vLLM is imported only where it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from hf_token_compress import Scorer, TokenCompressionConfig, register_scorer
from hf_token_compress.compression.identity import identify
from hf_token_compress.compression.reading import read_prompt
from hf_token_compress.data.scenes import make_clip, make_scene
from hf_token_compress.mapper import MapperConfig, RelevanceMapper
from hf_token_compress.prompt import MODALITIES, Modality, VisualSpan
from hf_token_compress.tiny import resolve_model

NEW_TOKENS = 4
LARGEST_STEP, CHUNK = 1024, 64
"""Tokens of a step of the engine: at most, and where prompts come in chunks."""


@dataclass(frozen=True)
class Ask:
    """A prompt: images, videos (uint8 [frames, height, width, 3]), and a question after them.

    Processors that count seconds get the frames per second, too.
    """

    question: str
    images: tuple[Image.Image, ...] = ()
    videos: tuple[np.ndarray, ...] = ()
    fps: float | None = None

    def text(self, processor: Any) -> str:
        """The prompt as the processor and vLLM take it, with one placeholder a visual."""
        content = [{"type": "image"} for _ in self.images]
        content += [{"type": "video"} for _ in self.videos]
        content += [{"type": "text", "text": self.question}]
        messages = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(messages, add_generation_prompt=True))

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """What is known of the videos besides their frames."""
        return [
            {
                "fps": self.fps,
                "total_num_frames": len(own),
                "frames_indices": list(range(len(own))),
                "duration": len(own) / self.fps if self.fps else None,
            }
            for own in self.videos
        ]

    def request(
        self, processor: Any, changes: Any = None, uuids: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The prompt for `LLM.generate`, with names of the images if there are any."""
        videos = (
            list(zip(self.videos, self.metadata, strict=True)) if self.fps else list(self.videos)
        )
        media: dict[str, list[Any]] = {"image": list(self.images), "video": videos}
        request: dict[str, Any] = {
            "prompt": self.text(processor),
            "multi_modal_data": {name: own for name, own in media.items() if own},
        }
        if changes is not None:
            request["mm_processor_kwargs"] = {"token_compression": changes}
        if uuids:
            request["multi_modal_uuids"] = {"image": list(uuids)}
        return request


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Attributes:
        kept: Kept tokens of each image or video, as indices into its tokens.
        tokens: The generated ids.
        log_probabilities: For each of them, those of a few ids.
        prompt_length: Tokens of the compressed prompt.
        cached: Prompt tokens from vLLM's prefix cache.
    """

    kept: list[list[int]]
    tokens: list[int]
    log_probabilities: list[dict[int, float]]
    prompt_length: int
    cached: int = 0


def image(seed: int, rows: int = 2, columns: int = 2) -> Image.Image:
    """An image like those that the tiny models were trained on."""
    return make_scene(seed, rows, columns).image


def video(seed: int, frames: int = 4) -> np.ndarray:
    """A clip like those that the tiny models were trained on."""
    return np.stack([np.asarray(own) for own in make_clip(seed, frames, 2, 2).images])


# 1. Checkpoints.

_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "layer_types": ["full_attention"] * 3,
    "initializer_range": 0.1,
}
_QWEN_VISION = {
    "depth": 2,
    "num_heads": 4,
    "patch_size": 12,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": 0.1,
}
_RANDOM: dict[str, dict[str, Any]] = {
    "random-llava-onevision": {
        "like": "tiny-llava-onevision",
        "text_config": _TEXT,
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
    },
    "random-qwen2-vl": {
        "like": "tiny-qwen2-vl-video",
        "text_config": _TEXT,
        "vision_config": {**_QWEN_VISION, "embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2},
    },
    "random-qwen2_5-vl": {
        "like": "tiny-qwen2-vl-video",
        "model_type": "qwen2_5_vl",
        "text_config": {**_TEXT, "model_type": "qwen2_5_vl_text"},
        "vision_config": {
            **_QWEN_VISION,
            "model_type": "qwen2_5_vl_vision",
            "hidden_act": "silu",
            "hidden_size": 64,
            "intermediate_size": 96,
            "out_hidden_size": 128,
            "tokens_per_second": 2,
            "window_size": 48,
            "fullatt_block_indexes": [1],
        },
    },
}
"""Models with random weights: the tiny model that they resemble, and what differs from it."""

_FIELDS: dict[Modality, tuple[str, ...]] = {
    "image": ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images"),
    "video": ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts"),
}
"""What processors return for images and for videos."""


def checkpoint(name: str, folder: Path) -> Path:
    """A folder with a model that vLLM loads: that of a tiny model, or one with random weights."""
    if name in _RANDOM:
        _save_random(folder, **_RANDOM[name])
        return folder
    return Path(resolve_model(name))


def _save_random(folder: Path, like: str, **changes: Any) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    source = Path(resolve_model(like))
    known = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for name, own in changes.items():
        known[name] = known[name] | own if isinstance(own, dict) else own
    config = AutoConfig.for_model(**known)
    for file in source.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            text = file.read_text(encoding="utf-8")
            if config.model_type == "qwen2_5_vl":
                text = text.replace("Qwen2VLProcessor", "Qwen2_5_VLProcessor")
            (folder / file.name).write_text(text, encoding="utf-8")
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(folder)


def random_mappers(model_folder: Path, folder: Path) -> Path:
    """A folder with mappers for the images and videos of a model, with random weights."""
    from transformers import AutoModelForImageTextToText

    identity = identify(AutoModelForImageTextToText.from_pretrained(model_folder))
    torch.manual_seed(0)
    for modality in MODALITIES:
        config = MapperConfig(
            identity,
            modality=modality,
            network="grid",
            network_options={"channels": 8, "blocks": 2},
        )
        RelevanceMapper(config).save_pretrained(folder / modality)
    return folder


# 2. Transformers.


@register_scorer("vllm_test_given")
class GivenScorer(Scorer):
    """One for the given positions of the only prompt, else zero."""

    def __init__(self, positions: Sequence[int] = ()) -> None:
        self.positions = list(positions)

    @override
    def score(self, prompt: Any) -> Tensor:
        scores = torch.zeros(prompt.visual_mask.shape)
        scores[:, self.positions] = 1.0
        return scores


@dataclass
class Reference:
    """Answers of Transformers.

    Attributes:
        folder: The model's folder.
        config: The setting.
    """

    folder: Path
    config: TokenCompressionConfig

    @cached_property
    def processor(self) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.folder)

    @cached_property
    def model(self) -> Any:
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(
            self.folder, token_compression=self.config, dtype="float32"
        ).eval()
        model.generation_config.eos_token_id = None
        return model

    @torch.no_grad()
    def answer(self, ask: Ask, changes: Any = None, new_tokens: int = NEW_TOKENS) -> Answer:
        """The answer to a prompt.

        vLLM scores each of several images or videos as if it were alone in the prompt, so that is
        done here, too.
        """
        given: dict[str, Any] = {}
        if ask.images:
            given["images"] = list(ask.images)
        if ask.videos:
            given["videos"] = list(ask.videos)
            if ask.fps:
                given["video_metadata"] = ask.metadata
        inputs = self.processor(text=ask.text(self.processor), return_tensors="pt", **given)
        config = self.config if changes is None else self.config.changed(changes)
        if len(ask.images) + len(ask.videos) > 1:
            config = self._given(inputs, config)
        output = self.model.generate(
            **inputs,
            max_new_tokens=new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            token_compression=config,
        )
        (sample,) = output.compression_report.samples
        counts = [len(span.positions) for span in sample.visuals]
        return Answer(
            kept=[own.nonzero().flatten().tolist() for own in sample.kept_visual.split(counts)],
            tokens=output.sequences[0, -new_tokens:].tolist(),
            log_probabilities=[
                dict(enumerate(own[0].float().log_softmax(-1).tolist())) for own in output.logits
            ],
            prompt_length=len(sample.kept_indices),
        )

    def _given(self, inputs: Any, config: TokenCompressionConfig) -> TokenCompressionConfig:
        """A setting that keeps what each image or video of the prompt keeps by itself."""
        prompt, _ = read_prompt(self.model, inputs)
        positions: list[int] = []
        for number, span in enumerate(prompt.visuals[0]):
            present = ~prompt.visual_mask[0]
            present[span.positions] = True
            output = self.model(
                **_with_one_visual(inputs, prompt.visuals[0], number, present),
                # Without the axis of text order, where gaps would be borders between prompts.
                position_ids=prompt.position_ids[-3:, ..., present],
                instruction_mask=prompt.instruction_mask[:, present],
                token_compression=config,
            )
            (sample,) = output.compression_report.samples
            positions += span.positions[sample.kept_visual].tolist()
        return TokenCompressionConfig(
            scorer="vllm_test_given",
            scorer_options={"positions": positions},
            retention_ratio=1.0,
            max_visual_tokens=len(positions),
            min_visual_tokens=0,
            min_tokens_per_visual=0,
            structure_share=0.0,
            position_ids=config.position_ids,
        )


def _with_one_visual(
    inputs: Any, spans: Sequence[VisualSpan], number: int, present: Tensor
) -> dict[str, Tensor]:
    """What is left of inputs with only one image or video, and the present tokens, bool [S]."""
    own = spans[number].modality
    index = sum(span.modality == own for span in spans[:number])
    left = {
        name: inputs[name][:, present]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        if name in inputs
    }
    grids = inputs.get(f"{own}_grid_thw")
    for name in _FIELDS[own]:
        if name not in inputs:
            continue
        values = torch.as_tensor(inputs[name])
        if grids is not None and name.startswith("pixel_values"):
            left[name] = values.split(grids.prod(-1).tolist())[index]
        else:
            left[name] = values[index : index + 1]
    return left


# 3. vLLM.


def engine_options(folder: Path, architecture: str, config: Any) -> dict[str, Any]:
    """Arguments of `LLM` and of `EngineArgs`."""
    return {
        "model": str(folder),
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 1024,
        "block_size": 32,
        "max_num_batched_tokens": LARGEST_STEP,
        "max_num_seqs": 8,
        "hf_overrides": {"architectures": [architecture], "token_compression": config},
    }


class Engine:
    """vLLM in this process, what its model kept, and what its scheduler did.

    Args:
        folder: The model's folder.
        architecture: A compressed one.
        config: The setting of the server.
        options: Arguments of `LLM`.

    Attributes:
        llm: The engine.
        core: Its core, with the scheduler and the worker.
        model: The model in the worker.
        steps: The scheduler's outputs, since somebody cleared them.
    """

    def __init__(
        self, folder: Path, architecture: str, config: TokenCompressionConfig, **options: Any
    ) -> None:
        from vllm import LLM

        from hf_token_compress.integrations.vllm.model import CompressedModel

        self.kept: dict[tuple[tuple[int, ...], str], dict[int, list[int]]] = {}
        keep = CompressedModel._keep

        def recorded(model: Any, features: Tensor, record: Any, laid_out: Any) -> Tensor:
            kept: Tensor = keep(model, features, record, laid_out)
            key = record.prompt_ids, json.dumps(record.setting, sort_keys=True)
            self.kept.setdefault(key, {})[record.number] = kept.tolist()
            return kept

        CompressedModel._keep = recorded  # type: ignore[method-assign]
        self.llm = LLM(**engine_options(folder, architecture, config.to_dict()) | options)
        self.core: Any = self.llm.llm_engine.engine_core.engine_core  # type: ignore[attr-defined]
        self.model = self.core.model_executor.driver_worker.worker.model_runner.model
        self.config = config
        self.steps: list[Any] = []
        schedule = self.core.scheduler.schedule

        def watched(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            self.steps.append(output)
            return output

        self.core.scheduler.schedule = watched
        self.set_step(CHUNK)

    def set_step(self, tokens: int) -> None:
        """Limit what a step computes, and what the vision tower encodes at once."""
        self.core.scheduler.max_num_scheduled_tokens = tokens
        self.model._encoded_at_once = tokens

    def answers(
        self,
        asks: Sequence[Ask],
        processor: Any,
        changes: Any = None,
        new_tokens: int = NEW_TOKENS,
        uuids: Sequence[str] = (),
    ) -> list[Answer]:
        """The answers to prompts that are sent at once."""
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0, max_tokens=new_tokens, logprobs=3, ignore_eos=True, detokenize=False
        )
        requests = [ask.request(processor, changes, uuids) for ask in asks]
        config = self.config if changes is None else self.config.changed(changes)
        answers = []
        outputs = self.llm.generate(requests, sampling, use_tqdm=False)
        for ask, output in zip(asks, outputs, strict=True):
            (completion,) = output.outputs
            ids = processor.tokenizer(ask.text(processor)).input_ids
            key = tuple(ids), json.dumps(config.to_dict(), sort_keys=True)
            kept = self.kept.get(key, {})
            answers.append(
                Answer(
                    kept=[kept[number] for number in sorted(kept)],
                    tokens=list(completion.token_ids),
                    log_probabilities=[
                        {token: own.logprob for token, own in step.items()}
                        for step in completion.logprobs
                    ],
                    prompt_length=len(output.prompt_token_ids),
                    cached=output.num_cached_tokens or 0,
                )
            )
        return answers


def largest_deviation(answer: Answer, reference: Answer) -> float:
    """The largest difference of a log-probability."""
    pairs = zip(answer.log_probabilities, reference.log_probabilities, strict=True)
    return max(abs(own[token] - theirs[token]) for own, theirs in pairs for token in own)


def assert_same(answer: Answer, reference: Answer, tolerance: float) -> None:
    """The same tokens were kept and generated, with the same log-probabilities."""
    assert answer.kept == reference.kept
    assert answer.prompt_length == reference.prompt_length
    assert answer.tokens == reference.tokens
    assert largest_deviation(answer, reference) <= tolerance
