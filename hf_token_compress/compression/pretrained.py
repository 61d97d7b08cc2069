"""The `token_compression` argument of `from_pretrained`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def accept_token_compression(model_base: type[PreTrainedModel]) -> None:
    """Let `from_pretrained` take `token_compression`, and apply a saved setting.

    The value is a config, its dict, or the folder or Hub id of a mapper; False ignores a saved
    setting.
    """
    stock = model_base.__dict__["from_pretrained"].__func__
    if getattr(stock, "accepts_token_compression", False):
        return

    @functools.wraps(stock)
    def from_pretrained(
        cls: type[PreTrainedModel], *args: Any, token_compression: Any = None, **kwargs: Any
    ) -> Any:
        # Imported late, so that importing the library stays cheap.
        from ..config import TokenCompressionConfig
        from ..models.registry import model_family
        from .attach import compress
        from .mixin import CONFIG_KEY

        setting = token_compression
        if setting is not None and setting is not False:
            model_family(cls)
            setting = TokenCompressionConfig.coerce(setting)
        loaded = stock(cls, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        saved = vars(model.config).pop(CONFIG_KEY, None)
        setting = saved if setting is None else setting
        if setting is not None and setting is not False:
            compress(model, setting)
        return loaded

    from_pretrained.accepts_token_compression = True  # type: ignore[attr-defined]
    model_base.from_pretrained = classmethod(from_pretrained)  # type: ignore
