"""Model families by `config.model_type`: one row each."""

from __future__ import annotations

from importlib import import_module

from .adapter import FamilyAdapter

_BUILT_IN = {
    "llava_onevision": ".llava_onevision:LlavaOnevisionAdapter",
    "qwen2_vl": ".qwen2_vl:Qwen2VLAdapter",
    "vila15": ".vila.adapter:VilaAdapter",
}
_REGISTERED: dict[str, type[FamilyAdapter]] = {}


def supported_families() -> tuple[str, ...]:
    """The `model_type`s that can be compressed, sorted."""
    return tuple(sorted({*_BUILT_IN, *_REGISTERED}))


def register_family(model_type: str, adapter: type[FamilyAdapter]) -> None:
    """Make models with that `config.model_type` compressible.

    Raises:
        TypeError: `adapter` is not a subclass of `FamilyAdapter`.
        ValueError: That family is supported already.
    """
    if not (isinstance(adapter, type) and issubclass(adapter, FamilyAdapter)):
        raise TypeError(f"The adapter of {model_type!r} must subclass FamilyAdapter: {adapter!r}.")
    if model_type in supported_families() and _REGISTERED.get(model_type) is not adapter:
        raise ValueError(f"The model family {model_type!r} is supported already.")
    _REGISTERED[model_type] = adapter


def family_adapter(model_class: type) -> FamilyAdapter:
    """The adapter for a class of Transformers models.

    Raises:
        ValueError: The family, or that class of it, is not supported.
    """
    config_class = getattr(model_class, "config_class", None)
    model_type = getattr(config_class, "model_type", None)
    adapter_class = _REGISTERED.get(model_type) if model_type else None
    if adapter_class is None and model_type in _BUILT_IN:
        module, class_name = _BUILT_IN[model_type].split(":")
        adapter_class = getattr(import_module(module, __package__), class_name)
    if adapter_class is None:
        raise ValueError(
            f"Token compression does not support {model_class.__name__} (model type "
            f"{model_type!r}): supported model types are {', '.join(supported_families())}."
        )
    if not issubclass(model_class, adapter_class.model_classes):
        names = " and ".join(cls.__name__ for cls in adapter_class.model_classes)
        raise ValueError(
            f"Token compression does not support {model_class.__name__}: of the model type "
            f"{model_type!r} it supports {names}."
        )
    return adapter_class()
