"""The verified families: every one passes the same tests, on small random models.

`hf-token-compress families` prints this table.
"""

from __future__ import annotations

from typing import NamedTuple

GRID = "grid"
SQUARE = "square"
TILES = "grid of each tile"
WHOLE_AND_TILES = "whole image and tiles"
NOWHERE = "no place"


class VerifiedFamily(NamedTuple):
    """What is known of a family.

    Attributes:
        title: Its name.
        family: "module:class" of its `ModelFamily`, within this package.
        places: Where its visual tokens lie.
        videos: Whether it takes videos, too.
        teacher: Whether relevance can be worked out, to train a mapper.
        since: First version of Transformers that it is tested with.
        note: What else users should know, for a table.
    """

    title: str
    family: str = "family:ModelFamily"
    places: str = GRID
    videos: bool = False
    teacher: bool = True
    since: str = "5.19.0"
    note: str = ""


VERIFIED: dict[str, VerifiedFamily] = {
    "aya_vision": VerifiedFamily("Aya Vision", "tiles:TiledFamily", TILES),
    "cohere2_vision": VerifiedFamily("Command A Vision", "tiles:TiledFamily", TILES),
    "cosmos3_edge": VerifiedFamily("Cosmos 3 Edge", videos=True, since="5.24.0"),
    "exaone4_5": VerifiedFamily("EXAONE 4.5", videos=True, since="5.24.0"),
    "gemma3": VerifiedFamily("Gemma 3", "tiles:TiledFamily", TILES),
    "glm4v": VerifiedFamily("GLM-4V", "glm4v:Glm4vFamily", videos=True),
    "hyperclovax_vision_v2": VerifiedFamily("HyperCLOVA X SEED", videos=True, since="5.24.0"),
    "idefics2": VerifiedFamily("Idefics2", "resampled:Idefics2Family", NOWHERE),
    "idefics3": VerifiedFamily("Idefics3", "tiles:JoinedTilesFamily", TILES),
    "internvl": VerifiedFamily("InternVL", "tiles:TiledFamily", TILES),
    "lighton_ocr": VerifiedFamily("LightOnOCR", "mistral3:Mistral3Family"),
    "llava": VerifiedFamily("LLaVA", "llava:LlavaFamily", note="with CLIP, SigLIP or Pixtral"),
    "llava_next": VerifiedFamily(
        "LLaVA-NeXT", "llava_next:LlavaNextFamily", WHOLE_AND_TILES, note="newline tokens"
    ),
    "llava_next_video": VerifiedFamily(
        "LLaVA-NeXT-Video", "llava_next:LlavaNextFamily", WHOLE_AND_TILES, videos=True
    ),
    "llava_onevision": VerifiedFamily(
        "LLaVA-OneVision",
        "llava_onevision:LlavaOnevisionFamily",
        WHOLE_AND_TILES,
        videos=True,
        note="newline tokens",
    ),
    "mistral3": VerifiedFamily("Mistral 3", "mistral3:Mistral3Family"),
    "ovis2": VerifiedFamily("Ovis2", "tiles:TiledFamily", TILES),
    "paligemma": VerifiedFamily("PaliGemma", "paligemma:PaliGemmaFamily", SQUARE),
    "paddleocr_vl": VerifiedFamily(
        "PaddleOCR-VL", "paddleocr_vl:PaddleOcrVlFamily", since="5.24.0"
    ),
    "qianfan_ocr": VerifiedFamily("Qianfan-OCR", "tiles:TiledFamily", TILES),
    "qwen2_5_vl": VerifiedFamily("Qwen2.5-VL", videos=True),
    "qwen2_vl": VerifiedFamily("Qwen2-VL", videos=True),
    "qwen3_vl": VerifiedFamily("Qwen3-VL", videos=True),
    "smolvlm": VerifiedFamily("SmolVLM", "tiles:JoinedTilesFamily", TILES, since="5.24.0"),
    "vila15": VerifiedFamily("VILA1.5", "vila.family:VilaFamily", videos=True),
    "vipllava": VerifiedFamily("VipLLaVA", places=SQUARE),
}
