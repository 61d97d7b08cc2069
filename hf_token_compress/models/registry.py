"""Model families by `config.model_type`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..registry import Registry
from .refused import why_refused
from .verified import VERIFIED

if TYPE_CHECKING:
    from .family import ModelFamily

FAMILIES: Registry[ModelFamily] = Registry(
    "family",
    f"{__package__}.family:ModelFamily",
    {name: f"{__package__}.{own.family}" for name, own in VERIFIED.items()},
)


def supported_families() -> tuple[str, ...]:
    """The `model_type`s that are verified or registered, sorted.

    Other models whose forward takes `mm_encoder_outputs` can be compressed, too.
    """
    return FAMILIES.names()


def register_family(model_type: str, family: type[ModelFamily]) -> None:
    """Let models with that `config.model_type` be compressed.

    Raises:
        TypeError: `family` is not a subclass of `ModelFamily`.
        ValueError: That family is supported already.
    """
    FAMILIES.register(model_type, family)


def model_family(model_class: Any) -> ModelFamily:
    """The family for a class of Transformers models; `GenericFamily` if it has none.

    Raises:
        ValueError: Models of this class cannot be compressed.
    """
    config_class = getattr(model_class, "config_class", None)
    model_type = getattr(config_class, "model_type", None)
    reason = why_refused(model_class)
    if reason is not None:
        raise ValueError(
            f"Token compression does not support {model_class.__name__} (model type "
            f"{model_type!r}): {reason}."
        )
    family_class = FAMILIES.find(model_type) if model_type else None
    if family_class is None:
        # Imported late, as the families are.
        from .generic import GenericFamily

        return GenericFamily()
    return family_class()
