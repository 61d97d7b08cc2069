"""Make VILA1.5 known to the Auto classes of Transformers.

Entries are put into the Auto classes as soon as these are imported, which is too early to import
what they stand for: Transformers is still being imported. So the entries import it when used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from wrapt import register_post_import_hook

from .names import MODEL_TYPE, ORIGINAL_MODEL_TYPE


class ConfigEntry:
    """What `AutoConfig` finds under both model types; called or read, it gives a `VilaConfig`."""

    model_type = MODEL_TYPE

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """As `VilaConfig`."""
        return _config_class()(*args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As `VilaConfig.from_dict`."""
        return _config_class().from_dict(config_dict, **kwargs)


class ProcessorEntry:
    """What `AutoProcessor` finds; it loads a `VilaProcessor`."""

    @classmethod
    def from_pretrained(cls, location: Any, **kwargs: Any) -> Any:
        """As `VilaProcessor.from_pretrained`."""
        from .processing import VilaProcessor

        return VilaProcessor.from_pretrained(location, **kwargs)


# The Auto classes look their entries up by these names too.
ConfigEntry.__name__ = "VilaConfig"
ProcessorEntry.__name__ = "VilaProcessor"


def register_configuration(configuration_auto: Any) -> None:
    """To be called when `transformers.models.auto.configuration_auto` was imported."""
    for model_type in (MODEL_TYPE, ORIGINAL_MODEL_TYPE):
        configuration_auto.CONFIG_MAPPING.register(model_type, ConfigEntry, exist_ok=True)


def register_processor(processing_auto: Any) -> None:
    """To be called when `transformers.models.auto.processing_auto` was imported."""
    processing_auto.AutoProcessor.register(ConfigEntry, ProcessorEntry, exist_ok=True)


@cache
def register_models() -> None:
    """Enter the classes themselves under their configuration, before anybody has one.

    Every Auto class looks a model or processor up by its configuration, so this is early enough.
    """
    from transformers import AutoModel, AutoModelForImageTextToText

    from .configuration import VilaConfig
    from .modeling import VilaForConditionalGeneration, VilaModel

    AutoModel.register(VilaConfig, VilaModel, exist_ok=True)
    AutoModelForImageTextToText.register(VilaConfig, VilaForConditionalGeneration, exist_ok=True)
    register_post_import_hook(
        lambda module: module.AutoProcessor.register(VilaConfig, ProcessorEntry, exist_ok=True),
        "transformers.models.auto.processing_auto",
    )


def _config_class() -> Any:
    from .configuration import VilaConfig

    register_models()
    return VilaConfig
