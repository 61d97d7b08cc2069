"""The verified families: every one passes the same tests, on small random models.

`hf-token-compress families` prints this table.
"""

from __future__ import annotations

from typing import NamedTuple

GRID = "on the grid of the image"
SQUARE = "on a square grid"
TILES = "on the grid of each tile, crop or thumbnail, which counts as an image"
WHOLE_AND_TILES = "on a coarse grid of the whole image and a fine one of its tiles"
NOWHERE = "nowhere: each is made of the whole image"

HYBRID = "hybrid: scored at its first layer of attention"


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
    "ernie4_5_vl_moe": VerifiedFamily("ERNIE 4.5 VL", "ernie4_5_vl_moe:Ernie45Family", videos=True),
    "gemma3": VerifiedFamily("Gemma 3", "tiles:TiledFamily", TILES),
    "glm46v": VerifiedFamily("GLM-4.6V", "glm4v:Glm4vFamily", videos=True),
    "glm4v": VerifiedFamily("GLM-4V", "glm4v:Glm4vFamily", videos=True),
    "glm4v_moe": VerifiedFamily("GLM-4.5V", "glm4v:Glm4vFamily", videos=True),
    "glm_ocr": VerifiedFamily("GLM-OCR", "glm4v:Glm4vFamily", videos=True),
    "hunyuan_vl": VerifiedFamily("HunYuanVL", "hunyuan_vl:HunYuanVLFamily", note="newline tokens"),
    "idefics2": VerifiedFamily("Idefics2", "resampled:Idefics2Family", NOWHERE),
    "idefics3": VerifiedFamily("Idefics3", "tiles:JoinedTilesFamily", TILES),
    "internvl": VerifiedFamily("InternVL", "tiles:TiledFamily", TILES),
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
    "minimax_m3_vl": VerifiedFamily("MiniMax M3", videos=True),
    "mistral3": VerifiedFamily("Mistral 3", "mistral3:Mistral3Family"),
    "ovis2": VerifiedFamily("Ovis2", "tiles:TiledFamily", TILES),
    "paligemma": VerifiedFamily("PaliGemma", "paligemma:PaliGemmaFamily", SQUARE),
    "qianfan_ocr": VerifiedFamily("Qianfan-OCR", "tiles:TiledFamily", TILES),
    "qwen2_5_vl": VerifiedFamily("Qwen2.5-VL", videos=True),
    "qwen2_vl": VerifiedFamily("Qwen2-VL", videos=True),
    "qwen3_5": VerifiedFamily("Qwen3.5", videos=True, teacher=False, note=HYBRID),
    "qwen3_5_moe": VerifiedFamily("Qwen3.5-MoE", videos=True, teacher=False, note=HYBRID),
    "qwen3_vl": VerifiedFamily("Qwen3-VL", videos=True),
    "qwen3_vl_moe": VerifiedFamily("Qwen3-VL-MoE", videos=True),
    "smolvlm": VerifiedFamily("SmolVLM", "tiles:JoinedTilesFamily", TILES),
    "vila15": VerifiedFamily("VILA1.5", "vila.family:VilaFamily", videos=True),
    "vipllava": VerifiedFamily("VipLLaVA", places=SQUARE),
}
