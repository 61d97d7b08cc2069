"""The model card of a mapper."""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .._version import __version__
from .config import MapperConfig

_TEMPLATE = """---
{card_data}
---

# Token mapper for {base}

A network of {parameters:,} parameters that predicts, from attention in decoder layer {depth} alone,
which visual tokens of a prompt ({modality}s) {base} needs for its answer. The library
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

## Network

`{network}` with {options}; {heads} attention heads of a language model of {layers} layers and width
{width}{revision}.

## Training

{training}

## Metrics

{metrics}

Made with hf_token_compress {version}.
"""


def mapper_card(
    config: MapperConfig, parameter_count: int, *, repo_id: str | None = None
) -> ModelCard:
    """A model card with metadata, a usage snippet, and all that is known of the training.

    Args:
        config: Of the mapper.
        parameter_count: Its weights.
        repo_id: Hub id that the usage snippet names.
    """
    base = config.base_model
    training = config.training
    datasets = training.get("datasets") or []
    data = ModelCardData(
        library_name="hf_token_compress",
        license=str(training.get("license", "apache-2.0")),
        base_model=base.name,
        base_model_relation="adapter",
        tags=["token-compression", "visual-tokens", "multimodal", base.model_type, config.modality],
        pipeline_tag="video-text-to-text" if config.modality == "video" else "image-text-to-text",
        datasets=datasets or None,
    )
    return ModelCard(
        _TEMPLATE.format(
            card_data=data.to_yaml(),
            base=base.name,
            parameters=parameter_count,
            depth=config.scoring_depth,
            modality=config.modality,
            repo=repo_id or "<this repository>",
            network=config.network,
            options=json.dumps(config.network_options, sort_keys=True) or "its defaults",
            heads=base.heads,
            layers=base.layers,
            width=base.hidden_size,
            revision=f" (revision {base.revision})" if base.revision else "",
            training=_table(training),
            metrics=_table(config.metrics),
            version=config.versions.get("hf_token_compress", __version__),
        )
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
