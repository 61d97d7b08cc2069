"""VILA1.5 as Transformers classes: LLaVA with another projector, S2 and videos."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import (
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple
from typing_extensions import override

from .configuration import VilaConfig
from .original import ReadsOriginalCheckpoints
from .projector import VilaProjector
from .s2 import cut_tiles, join_scales, join_tiles

_MODALITIES = ("image", "video", "text")
Method = TypeVar("Method", bound=Callable[..., Any])


def _as_in(stock_method: Any, added: str | None = None) -> Callable[[Method], Method]:
    """Decorator that gives the signature of a stock method, with one added keyword if named."""

    def decorated(method: Method) -> Method:
        signature = inspect.signature(stock_method)
        if added is not None:
            *parameters, keywords = signature.parameters.values()
            own = inspect.Parameter(added, inspect.Parameter.KEYWORD_ONLY, default=None)
            signature = signature.replace(parameters=[*parameters, own, keywords])
        method.__signature__ = signature  # type: ignore[attr-defined]
        return method

    return decorated


class VilaModel(ReadsOriginalCheckpoints, LlavaModel):
    """VILA1.5 without a language model head.

    Besides the inputs of LLaVA, `forward` takes `pixel_values_videos`, float
    [videos, frames, 3, H, W]. Their placeholder is `video_token_index`, and a frame is encoded like
    an image.
    """

    config_class = VilaConfig
    config: VilaConfig
    input_modalities: Any = _MODALITIES

    def __init__(self, config: VilaConfig) -> None:
        super().__init__(config)
        self.multi_modal_projector: Any = VilaProjector(config)
        self.post_init()

    @_as_in(LlavaModel.get_image_features)
    def get_image_features(self, pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Encode images, at all scales of the configuration."""
        if self.config.s2_scales:
            return self._get_scaled_image_features(pixel_values, *args, **kwargs)
        return super().get_image_features(pixel_values, *args, **kwargs)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def _get_scaled_image_features(
        self, pixel_values: Tensor, vision_feature_layer: int | None = None, **kwargs: Any
    ) -> Any:
        layer = self.config.vision_feature_layer
        layer = layer if vision_feature_layer is None else vision_feature_layer
        scales = []
        for split in self.config.splits:
            # [split * split * B, 3, tile, tile]
            tiles = cut_tiles(pixel_values, split, self.config.vision_config.image_size)
            output = self.vision_tower(tiles, output_hidden_states=True, return_dict=True)
            scales.append(join_tiles(output.hidden_states[layer], split))  # [B, C, side, side]
        features = self.multi_modal_projector(join_scales(scales))  # [B, tokens, D]
        return BaseModelOutputWithPooling(pooler_output=list(features))  # type: ignore[arg-type]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def get_video_features(self, pixel_values_videos: Tensor, **kwargs: Any) -> Any:
        """Encode the frames of videos.

        Args:
            pixel_values_videos: float [videos, frames, 3, H, W].
            **kwargs: As in `get_image_features`.

        Returns:
            Its output, with one float [frames * tokens, D] per video as `pooler_output`.

        Raises:
            ValueError: `pixel_values_videos` does not have five axes.
        """
        if pixel_values_videos.ndim != 5:
            raise ValueError(
                "pixel_values_videos must be one tensor [videos, frames, channels, height, width], "
                f"but it has the shape {list(pixel_values_videos.shape)}."
            )
        frames = pixel_values_videos.shape[1]
        frame_pixels = pixel_values_videos.flatten(0, 1)  # [videos * frames, 3, H, W]
        output = self.get_image_features(frame_pixels, return_dict=True, **kwargs)
        of_frames = torch.stack(list(output.pooler_output))  # [videos * frames, tokens, D]
        of_videos = of_frames.unflatten(0, (-1, frames))  # [videos, frames, tokens, D]
        output.pooler_output = list(of_videos.flatten(1, 2))  # [frames * tokens, D] each
        return output

    @_as_in(LlavaModel.forward, added="pixel_values_videos")
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        *args: Any,
        pixel_values_videos: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """LLaVA's forward, with videos as well as images."""
        outputs = dict(mm_encoder_outputs or {})
        if pixel_values_videos is not None:
            outputs["video"] = self.get_video_features(pixel_values_videos, return_dict=True)
        if outputs.get("video") is not None:
            if pixel_values is not None:
                outputs["image"] = self.get_image_features(pixel_values, return_dict=True)
                pixel_values = None
            input_ids, outputs = self._videos_as_images(input_ids, outputs)
        stock_forward: Any = super().forward
        return stock_forward(
            input_ids, pixel_values, *args, mm_encoder_outputs=outputs or None, **kwargs
        )

    def _videos_as_images(
        self, input_ids: Tensor | None, outputs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Merge the placeholders and features of frames into those of images, in order."""
        if input_ids is None:
            raise ValueError(
                "Videos need input_ids, which mark where frames go: pass them, not inputs_embeds."
            )
        is_frame = input_ids == self.config.video_token_id  # [B, S]
        is_visual = is_frame | (input_ids == self.config.image_token_id)
        of_frame = is_frame[is_visual]  # [visual tokens]
        videos = torch.cat(list(outputs["video"].pooler_output))  # [video tokens, D]
        images = videos[:0]
        if outputs.get("image") is not None:
            images = torch.cat(list(outputs["image"].pooler_output)).to(videos)  # [image tokens, D]
        if (int(of_frame.sum()), int((~of_frame).sum())) != (len(videos), len(images)):
            raise ValueError(
                f"input_ids have {int(of_frame.sum())} placeholders of video tokens and "
                f"{int((~of_frame).sum())} of image tokens, but the videos have {len(videos)} and "
                f"the images {len(images)}: pass everything from the same processor call."
            )
        # Interleave the features in the order of their placeholders.
        features = videos.new_empty(len(of_frame), videos.shape[1])  # [visual tokens, D]
        of_frame = of_frame.to(videos.device)
        features[of_frame], features[~of_frame] = videos, images
        merged = BaseModelOutputWithPooling(pooler_output=[features])  # type: ignore[arg-type]
        return input_ids.masked_fill(is_frame, self.config.image_token_id), {"image": merged}


class VilaForConditionalGeneration(ReadsOriginalCheckpoints, LlavaForConditionalGeneration):
    """VILA1.5 with its language model head.

    `from_pretrained` reads the published checkpoints, by folder or Hub id, as well as what
    `save_pretrained` writes.
    """

    config_class = VilaConfig
    config: VilaConfig
    input_modalities: Any = _MODALITIES
    # The head needs the whole vocabulary, so tensor parallelism must not split it.
    _tp_plan: Any = {}  # noqa: RUF012 - declared as in the base class

    def __init__(self, config: VilaConfig) -> None:
        # LLaVA's own constructor would build LLaVA's language model and then discard it.
        LlavaPreTrainedModel.__init__(self, config)
        self.model = VilaModel(config)
        self.lm_head: Any = VilaHead(
            config.text_config.hidden_size,
            config.text_config.vocab_size,
            config.unpredicted_token_ids or (),
        )
        self.post_init()

    @override
    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        if type(new_embeddings) is nn.Linear:
            # Resizing the vocabulary makes a plain layer.
            unpredicted, weight = self.lm_head.unpredicted_token_ids, new_embeddings.weight
            with torch.device("meta"):
                head: Any = VilaHead(weight.shape[1], weight.shape[0], unpredicted)
            head.weight = weight
            # Transformers draws the weights of modules without this mark.
            head._is_hf_initialized = getattr(new_embeddings, "_is_hf_initialized", False)
            new_embeddings = head
        self.lm_head = new_embeddings

    @override
    def post_init(self) -> None:
        super().post_init()
        if self.config.tie_word_embeddings:
            # The head is not sharded, so neither is the embedding that shares its weights.
            plan = self._tp_plan.items()
            self._tp_plan = {name: how for name, how in plan if not name.endswith("embed_tokens")}

    def get_video_features(self, pixel_values_videos: Tensor, **kwargs: Any) -> Any:
        """See `VilaModel.get_video_features`."""
        return self.model.get_video_features(pixel_values_videos, **kwargs)

    @_as_in(LlavaForConditionalGeneration.forward, added="pixel_values_videos")
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """LLaVA's forward, with videos as well as images."""
        return super().forward(*args, **kwargs)


class VilaHead(nn.Linear):
    """A language model head that never predicts some ids."""

    def __init__(
        self, hidden_size: int, vocab_size: int, unpredicted_token_ids: Sequence[int]
    ) -> None:
        super().__init__(hidden_size, vocab_size, bias=False)
        self.unpredicted_token_ids = tuple(unpredicted_token_ids)

    @override
    def forward(self, input: Tensor) -> Tensor:
        """From float [..., D] to logits [..., vocabulary]."""
        logits = super().forward(input)
        for token in self.unpredicted_token_ids:
            # These ids get no probability.
            logits[..., token] = torch.finfo(logits.dtype).min
        return logits
