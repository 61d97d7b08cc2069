"""Configuration of VILA1.5: a SigLIP tower, a 2 x 2 merging projector and a LLaMA."""

from __future__ import annotations

from typing import Any, Literal

from transformers.models.llava.configuration_llava import LlavaConfig
from typing_extensions import override

from .names import MODEL_TYPE, ORIGINAL_MODEL_TYPE, PROJECTOR_TYPE
from .original_config import convert_config

TokenOrder = Literal["column_major", "row_major"]

# SigLIP so400m at 384 pixels, the tower of the published checkpoints.
_DEFAULT_VISION_CONFIG = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}


class VilaConfig(LlavaConfig):
    """Configuration of a VILA1.5 model.

    Attributes:
        vision_config: Configuration of the vision tower; by default SigLIP so400m at 384 pixels.
        text_config: Configuration of the language model; by default a LLaMA.
        image_token_index: Placeholder id, one per visual token of an image.
        video_token_index: Placeholder id, one per visual token of a video frame.
        unpredicted_token_ids: Ids that the model never predicts; by default the two placeholders,
            which the published checkpoints do not have.
        token_order: Order of an image's merged tokens. VILA1.5 was trained with "column_major",
            from the left column to the right one; its successors were trained with "row_major",
            and their weights have the same names and shapes.
        projector_type: "mlp_downsample", the only one.
        s2_scales: Side lengths in pixels at which an image is encoded (S2), each a multiple of the
            tower's image size; None to encode it once. The image processor resizes to the largest.
        num_video_frames: Frames that the processor samples from a video by default.
    """

    model_type = MODEL_TYPE
    attribute_map = {  # noqa: RUF012 - declared as in the base class
        "image_token_id": "image_token_index",
        "video_token_id": "video_token_index",
    }

    vision_config: Any = None
    text_config: Any = None
    image_token_index: int = 32000
    video_token_index: int = 32001
    unpredicted_token_ids: list[int] | None = None
    vision_feature_select_strategy: Literal["default", "full"] = "full"
    token_order: TokenOrder = "column_major"
    projector_type: str = PROJECTOR_TYPE
    s2_scales: list[int] | None = None
    num_video_frames: int = 8

    def __post_init__(self, **kwargs: Any) -> None:
        vision = self.vision_config
        if vision is None:
            self.vision_config = dict(_DEFAULT_VISION_CONFIG)
        elif isinstance(vision, dict):
            self.vision_config = {"model_type": "siglip_vision_model", **vision}
        if self.text_config is None:
            self.text_config = {"model_type": "llama", "vocab_size": self.video_token_index + 1}
        super().__post_init__(**kwargs)
        if self.s2_scales is not None:
            self.s2_scales = sorted(self.s2_scales)
            side = self.vision_config.image_size
            if not self.s2_scales or any(scale % side or scale < side for scale in self.s2_scales):
                raise ValueError(
                    f"s2_scales must be multiples of the vision tower's image_size {side}, but "
                    f"they are {self.s2_scales}."
                )
        if self.unpredicted_token_ids is None:
            self.unpredicted_token_ids = [self.image_token_index, self.video_token_index]
        self.image_seq_length = self.merged_side**2

    @property
    def image_side(self) -> int:
        """Side of the input images in pixels."""
        return self.s2_scales[-1] if self.s2_scales else self.vision_config.image_size

    @property
    def splits(self) -> list[int]:
        """Tiles along a side, for each scale."""
        side = self.vision_config.image_size
        return [scale // side for scale in self.s2_scales or [side]]

    @property
    def feature_side(self) -> int:
        """Side of the projector's input grid in features."""
        tower_side = self.vision_config.image_size // self.vision_config.patch_size
        return int(tower_side * self.splits[0])

    @property
    def merged_side(self) -> int:
        """Side of an image in visual tokens: the projector merges 2 x 2 features."""
        return (self.feature_side + 1) // 2

    @classmethod
    @override
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        settings, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return _native(settings), unused

    @classmethod
    @override
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(_native(config_dict), **kwargs)


def _native(settings: dict[str, Any]) -> dict[str, Any]:
    original = settings.get("model_type") == ORIGINAL_MODEL_TYPE
    return convert_config(settings) if original else settings
