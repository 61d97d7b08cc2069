"""Write a VILA1.5 model as the original code would: three folders, other names, no placeholders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from vila_reference import CHECKPOINT

PARTS = ("llm", "vision_tower", "mm_projector")


def write_original(model: Any, folder: Path, *, shards: int = 1, **root: Any) -> Path:
    """Save a `VilaForConditionalGeneration` in the published layout, with the reference tokenizer.

    Args:
        model: Its language model has 420 ids and the placeholders after them.
        folder: Where to.
        shards: Files of the language model's weights.
        **root: Overrides settings of the root config.
    """
    config = model.config
    shutil.copytree(CHECKPOINT / "llm", folder / "llm", ignore=_weights)
    text = config.text_config.to_dict()
    text["vocab_size"] -= len(config.unpredicted_token_ids)
    vision = config.vision_config.to_dict()
    projector = {"model_type": "v2l_projector", "mm_projector_type": "mlp_downsample"}
    settings = json.loads((CHECKPOINT / "config.json").read_text())
    settings.update(llm_cfg=text, vision_tower_cfg=vision, mm_projector_cfg=projector)
    scales = config.s2_scales
    if scales:
        settings.update(
            s2=True,
            s2_scales=",".join(map(str, scales)),
            s2_max_split_size=config.vision_config.image_size,
        )
    settings.update(root)
    weights: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    layers = {"norm": "layers.1", "linear_1": "layers.2", "linear_2": "layers.4"}
    for name, tensor in model.state_dict().items():
        head, _, rest = name.removeprefix("model.").partition(".")
        if head == "vision_tower":
            weights["vision_tower"][f"vision_model.{rest}"] = tensor
        elif head == "multi_modal_projector":
            layer, _, kind = rest.partition(".")
            weights["mm_projector"][f"{layers[layer]}.{kind}"] = tensor
        elif name != "lm_head.weight" or not config.tie_word_embeddings:
            if name.endswith(("embed_tokens.weight", "lm_head.weight")):
                tensor = tensor[: text["vocab_size"]]
            original = name if head == "lm_head" else f"model.{rest}"
            weights["llm"][original] = tensor
    # The original saves a pooling head that takes no part in the features.
    width = config.vision_config.hidden_size
    weights["vision_tower"]["vision_model.head.probe"] = model.state_dict()[
        "model.multi_modal_projector.norm.weight"
    ][:width].view(1, 1, width)
    (folder / "config.json").write_text(json.dumps(settings))
    for part, part_settings in zip(PARTS, (text, vision, projector), strict=True):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(part_settings))
    preprocessor = json.loads((CHECKPOINT / "vision_tower/preprocessor_config.json").read_text())
    (folder / "vision_tower/preprocessor_config.json").write_text(json.dumps(preprocessor))
    for part, tensors in weights.items():
        own = {name: tensor.contiguous() for name, tensor in tensors.items()}
        _save(own, folder / part, shards if part == "llm" else 1)
    return folder


def _save(tensors: dict[str, Any], folder: Path, shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        own = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        save_file(own, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(own, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _weights(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]
