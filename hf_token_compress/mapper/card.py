"""The model card of a mapper, or of two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .._version import __version__
from .config import MapperConfig

_TEMPLATE = """---
{card_data}
---

# Token mapper for {base}

{summary}
which visual tokens of a prompt ({modalities}) {base} needs for its answer. The library
hf_token_compress drops the others before the language model runs, after
[arXiv 2506.01097](https://arxiv.org/abs/2506.01097). The model itself is unchanged.

## Use

```python
import hf_token_compress
from transformers import AutoModelForImageTextToText

model = AutoModelForImageTextToText.from_pretrained(
    "{base}", token_compression={{"mapper": "{repo}", "retention_ratio": 0.25}}
)
```

{sections}

Made with hf_token_compress {version}.
"""

_SECTIONS = """## Network{of}

`{network}` with {options}; {heads} attention heads of a language model of {layers} layers and width
{width}{revision}.

## Training{of}

{training}

## Metrics{of}

{metrics}"""

# The SHA-256 of what stands above it: an edited card no longer matches.
_MARK = "<!-- As hf_token_compress wrote it: {digest} -->"


def is_untouched(card: Path) -> bool:
    """Whether a file is a card of `mapper_card` that nobody has edited since."""
    content = card.read_text(encoding="utf-8", errors="replace").rstrip()
    text, newline, mark = content.rpartition("\n")
    return mark == _mark(text + newline)


def _mark(text: str) -> str:
    return _MARK.format(digest=hashlib.sha256(text.encode()).hexdigest())


def mapper_card(
    mappers: Sequence[tuple[MapperConfig, int]], *, repo_id: str | None = None
) -> ModelCard:
    """A model card with metadata, a usage snippet, and all that is known of the training.

    Args:
        mappers: Of one model: the setting of each, and its number of weights.
        repo_id: Hub id that the usage snippet names.
    """
    configs = [config for config, _ in mappers]
    base = configs[0].base_model
    modalities = [config.modality for config in configs]
    licenses = {str(config.training.get("license", "apache-2.0")) for config in configs}
    datasets = list(dict.fromkeys(name for config in configs for name in _datasets(config)))
    data = ModelCardData(
        library_name="hf_token_compress",
        license=licenses.pop() if len(licenses) == 1 else "other",
        base_model=base.name,
        base_model_relation="adapter",
        tags=["token-compression", "visual-tokens", "multimodal", base.model_type, *modalities],
        pipeline_tag="image-text-to-text" if "image" in modalities else "video-text-to-text",
        datasets=datasets or None,
    )
    text = _TEMPLATE.format(
        card_data=data.to_yaml(),
        base=base.name,
        summary=_summary(mappers),
        modalities=" and ".join(f"{modality}s" for modality in modalities),
        repo=repo_id or "<this repository>",
        sections="\n\n".join(_sections(config, alone=len(mappers) == 1) for config in configs),
        version=configs[0].versions.get("hf_token_compress", __version__),
    )
    return ModelCard(text + _mark(text) + "\n")


def _datasets(config: MapperConfig) -> list[str]:
    named = config.training.get("datasets") or []
    return [named] if isinstance(named, str) else list(named)


def _summary(mappers: Sequence[tuple[MapperConfig, int]]) -> str:
    depth = mappers[0][0].scoring_depth
    if len(mappers) == 1:
        sizes, verb = f"A network of {mappers[0][1]:,} parameters", "predicts"
    else:
        each = " and ".join(
            f"{count:,} parameters for {config.modality}s" for config, count in mappers
        )
        sizes, verb = f"Networks of {each}", "predict"
    return f"{sizes} that {verb}, from attention in decoder layer {depth} alone,"


def _sections(config: MapperConfig, *, alone: bool) -> str:
    base = config.base_model
    return _SECTIONS.format(
        of="" if alone else f" for {config.modality}s",
        network=config.network,
        options=json.dumps(config.network_options, sort_keys=True),
        heads=base.heads,
        layers=base.layers,
        width=base.hidden_size,
        revision=f" (revision {base.revision})" if base.revision else "",
        training=_table(config.training),
        metrics=_table(config.metrics),
    )


def _table(values: dict[str, Any]) -> str:
    if not values:
        return "Not recorded."
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")
