"""Drop the visual tokens that do not matter for the question, before the language model runs.

```python
import hf_token_compress
from hf_token_compress import TokenCompressionConfig
from transformers import AutoModelForImageTextToText

config = TokenCompressionConfig(retention_ratio=0.25)
model = AutoModelForImageTextToText.from_pretrained(
    "Qwen/Qwen2-VL-7B-Instruct", token_compression=config
)
```

Importing the library lets `from_pretrained` of every Transformers model take `token_compression=`,
and registers VILA1.5 with the Auto classes. It changes nothing else in Transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

from ._version import __version__
from .config import TokenCompressionConfig
from .lazy import lazy_names
from .scorers.registry import SCORERS

if TYPE_CHECKING:
    from .compression import (
        CompressionReport,
        CompressionTotals,
        SampleReport,
        compress,
        prepare_inputs,
        uncompress,
    )
    from .mapper import RelevanceMapper
    from .models import EncodedVisuals, ModelFamily, register_family, supported_families
    from .prompt import MultimodalPrompt, TokenGrid, VisualLayout, VisualSpan
    from .scorers import Scorer, available_scorers, register_scorer
    from .scoring_layer import ScoringLayer
    from .tiny import load_tiny
    from .training import calibrate

_HOMES = {
    ".compression": ("compress", "prepare_inputs", "uncompress"),
    ".compression.report": ("CompressionReport", "SampleReport"),
    ".compression.totals": ("CompressionTotals",),
    ".mapper": ("RelevanceMapper",),
    ".models": ("EncodedVisuals", "ModelFamily", "register_family", "supported_families"),
    ".prompt": ("MultimodalPrompt", "TokenGrid", "VisualLayout", "VisualSpan"),
    ".scorers": ("Scorer", "available_scorers", "register_scorer"),
    ".scoring_layer": ("ScoringLayer",),
    ".tiny": ("load_tiny",),
    ".training": ("calibrate",),
}

__all__ = [
    "CompressionReport",
    "CompressionTotals",
    "EncodedVisuals",
    "ModelFamily",
    "MultimodalPrompt",
    "RelevanceMapper",
    "SampleReport",
    "Scorer",
    "ScoringLayer",
    "TokenCompressionConfig",
    "TokenGrid",
    "VisualLayout",
    "VisualSpan",
    "__version__",
    "available_scorers",
    "calibrate",
    "compress",
    "load_tiny",
    "prepare_inputs",
    "register_family",
    "register_scorer",
    "supported_families",
    "uncompress",
]


# torch and the model code load on first use, so importing the library stays cheap.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)


def _wrap_from_pretrained(modeling_utils: Any) -> None:
    from .compression.pretrained import accept_token_compression

    accept_token_compression(modeling_utils.PreTrainedModel)


def _register_vila_configuration(configuration_auto: Any) -> None:
    from .models.vila.registration import register_configuration

    register_configuration(configuration_auto)


def _register_vila_processor(processing_auto: Any) -> None:
    from .models.vila.registration import register_processor

    register_processor(processing_auto)


# This scorer needs the whole model, so its module stands above the scorers.
SCORERS.add_built_in("relevance", f"{__name__}.relevance.scorer:RelevanceScorer")

register_post_import_hook(_wrap_from_pretrained, "transformers.modeling_utils")
register_post_import_hook(
    _register_vila_configuration, "transformers.models.auto.configuration_auto"
)
register_post_import_hook(_register_vila_processor, "transformers.models.auto.processing_auto")
