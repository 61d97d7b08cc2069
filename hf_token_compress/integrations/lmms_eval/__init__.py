"""What lmms-eval finds through the entry point group `lmms_eval.models`.

lmms-eval imports this module together with its list of models, before it loads one. That imports
`hf_token_compress`, so a folder that was saved with `token_compression` is compressed under every
model class of lmms-eval that calls `from_pretrained`. Nothing else is imported here: an entry point
that fails or is slow would fail or slow down every run of lmms-eval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """What lmms-eval registers: the model `hf_token_compress`, which it imports when it is used."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="hf_token_compress", chat_class_path=f"{__name__}.model.CompressedModel"
    )
