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
    "aria": VerifiedFamily("Aria", "resampled:ResampledFamily", NOWHERE, since="5.24.0"),
    "aya_vision": VerifiedFamily("Aya Vision", "tiles:TiledFamily", TILES),
    "cohere2_vision": VerifiedFamily("Command A Vision", "tiles:TiledFamily", TILES),
    "cosmos3_edge": VerifiedFamily("Cosmos 3 Edge", videos=True, since="5.24.0"),
    "deepseek_vl": VerifiedFamily("DeepSeek-VL", places=SQUARE),
    "deepseek_vl_hybrid": VerifiedFamily("DeepSeek-VL (hybrid)", places=SQUARE),
    "ernie4_5_vl_moe": VerifiedFamily("ERNIE 4.5 VL", "ernie4_5_vl_moe:Ernie45Family", videos=True),
    "exaone4_5": VerifiedFamily("EXAONE 4.5", videos=True, since="5.24.0"),
    "gemma3": VerifiedFamily("Gemma 3", "tiles:TiledFamily", TILES),
    "gemma4": VerifiedFamily("Gemma 4", "gemma4:Gemma4Family", videos=True, since="5.24.0"),
    "glm46v": VerifiedFamily("GLM-4.6V", "glm4v:Glm4vFamily", videos=True),
    "glm4v": VerifiedFamily("GLM-4V", "glm4v:Glm4vFamily", videos=True),
    "glm4v_moe": VerifiedFamily("GLM-4.5V", "glm4v:Glm4vFamily", videos=True),
    "glm_ocr": VerifiedFamily("GLM-OCR", "glm4v:Glm4vFamily", videos=True),
    "got_ocr2": VerifiedFamily("GOT-OCR 2.0", places=SQUARE),
    "granite_docling": VerifiedFamily(
        "Granite Docling", "granite_docling:GraniteDoclingFamily", TILES, since="5.24.0"
    ),
    "hunyuan_vl": VerifiedFamily("HunYuanVL", "hunyuan_vl:HunYuanVLFamily", note="newline tokens"),
    "hyperclovax_vision_v2": VerifiedFamily("HyperCLOVA X SEED", videos=True, since="5.24.0"),
    "idefics2": VerifiedFamily("Idefics2", "resampled:Idefics2Family", NOWHERE),
    "idefics3": VerifiedFamily("Idefics3", "tiles:JoinedTilesFamily", TILES),
    "internvl": VerifiedFamily("InternVL", "tiles:TiledFamily", TILES),
    "janus": VerifiedFamily("Janus", places=SQUARE),
    "kimi_k25": VerifiedFamily(
        "Kimi K2.5",
        "kimi_k25:KimiK25Family",
        videos=True,
        since="5.24.0",
        note="each chunk of pooled frames counts as a video",
    ),
    "lfm2_vl": VerifiedFamily(
        "LFM2-VL", "lfm2_vl:Lfm2VlFamily", TILES, teacher=False, note="convolutions and attention"
    ),
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
    "minimax_m3_vl": VerifiedFamily("MiniMax M3", videos=True),
    "mistral3": VerifiedFamily("Mistral 3", "mistral3:Mistral3Family"),
    "ovis2": VerifiedFamily("Ovis2", "tiles:TiledFamily", TILES),
    "paddleocr_vl": VerifiedFamily(
        "PaddleOCR-VL", "paddleocr_vl:PaddleOcrVlFamily", since="5.24.0"
    ),
    "paligemma": VerifiedFamily("PaliGemma", "paligemma:PaliGemmaFamily", SQUARE),
    "perception_lm": VerifiedFamily(
        "Perception LM",
        "perception_lm:PerceptionLMFamily",
        TILES,
        videos=True,
        note="each frame counts as a video",
    ),
    "qianfan_ocr": VerifiedFamily("Qianfan-OCR", "tiles:TiledFamily", TILES),
    "qwen2_5_vl": VerifiedFamily("Qwen2.5-VL", videos=True),
    "qwen2_vl": VerifiedFamily("Qwen2-VL", videos=True),
    "qwen3_5": VerifiedFamily("Qwen3.5", videos=True, teacher=False, note=HYBRID),
    "qwen3_5_moe": VerifiedFamily("Qwen3.5-MoE", videos=True, teacher=False, note=HYBRID),
    "qwen3_vl": VerifiedFamily("Qwen3-VL", videos=True),
    "qwen3_vl_moe": VerifiedFamily("Qwen3-VL-MoE", videos=True),
    "smolvlm": VerifiedFamily("SmolVLM", "tiles:JoinedTilesFamily", TILES, since="5.24.0"),
    "video_llama_3": VerifiedFamily(
        "VideoLLaMA 3",
        "video_llama_3:VideoLlama3Family",
        videos=True,
        note="nowhere where the processor left tokens of a video out",
    ),
    "vila15": VerifiedFamily("VILA1.5", "vila.family:VilaFamily", videos=True),
    "vipllava": VerifiedFamily("VipLLaVA", places=SQUARE),
}
