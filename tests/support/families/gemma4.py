"""Random tiny Gemma 4 models: patches with their places, further inputs for every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tiny_models import (
    IMAGE,
    PROMPTS,
    TEXT_CONFIG,
    VIDEO,
    VISION_END,
    VISION_START,
    VOCABULARY,
    TinyFamily,
    Visual,
)
from tiny_processors import word_tokenizer
from torch import Tensor
from typing_extensions import override

WORDS = {"<image>": IMAGE, "<|video|>": VIDEO, "<boi>": VISION_START, "<eoi>": VISION_END}
AUDIO = {"<audio>": 82, "<boa>": 83, "<eoa>": 84}
PATCH, POOL, TIMESTAMP = 4, 2, 7


class Family(TinyFamily):
    architecture = "Gemma4"
    since = "5.24.0"
    prompts = PROMPTS

    @override
    def config(self, **text_options: Any) -> Any:
        options = {
            "head_dim": 8,
            "global_head_dim": 8,
            # No prompt of the tests is longer than the window.
            "sliding_window": 1024,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 1,
            "use_bidirectional_attention": "vision",
        }
        return self.config_class(
            text_config={**TEXT_CONFIG, **options, **text_options},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "patch_size": PATCH,
                "pooling_kernel_size": POOL,
                "position_embedding_size": 64,
                "initializer_range": 0.2,
            },
            audio_config=None,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            boi_token_id=VISION_START,
            eoi_token_id=VISION_END,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )

    @override
    def visual(self, size: tuple[int, ...], alone: bool, generator: torch.Generator) -> Visual:
        frames, rows, columns = (1, *size) if len(size) == 2 else size
        patches = POOL * rows * POOL * columns
        pixels = torch.rand(frames, patches, 3 * PATCH * PATCH, generator=generator)
        token = IMAGE if len(size) == 2 else VIDEO
        frame = [VISION_START, *[token] * (rows * columns), VISION_END]
        ids = frame if len(size) == 2 else [TIMESTAMP, *frame] * frames
        return Visual("image" if len(size) == 2 else "video", ids, pixels, (frames, rows, columns))

    @override
    def visual_inputs(self, visuals: Sequence[Sequence[Visual]], ids: Tensor) -> dict[str, Tensor]:
        inputs = {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
        for kind, pixel_name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            found = [visual for own in visuals for visual in own if visual.kind == kind]
            if not found:
                continue
            frames = [frame for visual in found for frame in visual.pixels]
            places = [_places(visual) for visual in found for _ in visual.pixels]
            pad = torch.nn.utils.rnn.pad_sequence
            inputs[pixel_name] = pad(frames, batch_first=True)
            inputs[f"{kind}_position_ids"] = pad(places, batch_first=True, padding_value=-1)
            if kind == "video":
                inputs["num_frames_per_video"] = torch.tensor([len(own.pixels) for own in found])
        return inputs

    @override
    def processor(self) -> Any:
        sizes = {"patch_size": PATCH, "pooling_kernel_size": POOL, "max_soft_tokens": 70}
        tokenizer = word_tokenizer(
            {**WORDS, **AUDIO},
            image_token="<image>",
            boi_token="<boi>",
            eoi_token="<eoi>",
            audio_token="<audio>",
            boa_token="<boa>",
            eoa_token="<eoa>",
        )
        return transformers.Gemma4Processor(
            transformers.Gemma4AudioFeatureExtractor(),
            transformers.Gemma4ImageProcessor(**sizes),
            tokenizer,
            transformers.Gemma4VideoProcessor(**sizes, do_sample_frames=False),
        )

    @override
    def video_text(self, processor: Any) -> str:
        return str(processor.video_token)


def _places(visual: Visual) -> Tensor:
    """Column and row of each patch, int64 [patches, 2]."""
    _, rows, columns = visual.size
    grid = torch.meshgrid(
        torch.arange(POOL * columns), torch.arange(POOL * rows), indexing="xy"
    )  # [rows, columns] each
    return torch.stack(grid, dim=-1).flatten(0, 1)
