"""The `token_compression` argument of `from_pretrained`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..config import TokenCompressionConfig
    from ..mapper import MapperSet

logger = logging.getLogger(__name__)

_DOWNLOAD_OPTIONS = ("cache_dir", "local_files_only", "token")
_FILE_OPTIONS = (*_DOWNLOAD_OPTIONS, "revision", "subfolder")
_HELP = """\
With hf_token_compress:
    token_compression (`TokenCompressionConfig`, `dict`, `float`, `str` or `False`, *optional*):
        Which visual tokens prompts keep: a config, its dict, a retention ratio in (0, 1], or the
        folder or Hub id of a mapper. By default the setting that was saved with the model, if
        there is one; `False` ignores it. A mapper is fetched with the `cache_dir`,
        `local_files_only` and `token` of the call, and one in the model's own repository with its
        `revision`. What is wrong with a setting raises the errors of `compress`.
"""


def accept_token_compression(model_base: type[PreTrainedModel]) -> None:
    """Let `from_pretrained` take `token_compression` (see `_HELP`), and apply a saved setting."""
    stock = model_base.__dict__["from_pretrained"].__func__
    if getattr(stock, "accepts_token_compression", False):
        return

    @functools.wraps(stock)
    def from_pretrained(
        cls: type[PreTrainedModel], *args: Any, token_compression: Any = None, **kwargs: Any
    ) -> Any:
        # Imported late, so that importing the library stays cheap.
        from ..models.registry import model_family
        from .attach import attach
        from .mixin import CONFIG_KEY
        from .setting import BARE_RATIO

        if "retention_ratio" in kwargs:
            raise TypeError(BARE_RATIO)
        name = str(args[0] if args else kwargs.get("pretrained_model_name_or_path"))
        # The Auto classes write the setting of a call into a config that has a saved one.
        of_auto_class = getattr(kwargs.get("config"), CONFIG_KEY, None)
        given = of_auto_class if token_compression is None else token_compression
        resolve = functools.partial(
            _resolve, name=name, arguments=kwargs, saved=token_compression is None
        )
        resolved = None
        if given is not None and given is not False:
            # Weights take long to load, so what is wrong without them is said before.
            model_family(cls)
            resolved = resolve(given)
        loaded = stock(cls, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        saved = _take_saved(model.config, CONFIG_KEY, name, kwargs)
        if given is None and saved is not None and saved is not False:
            model_family(type(model))
            resolved = resolve(saved)
        if resolved is not None:
            attach(model, *resolved)
        return loaded

    from_pretrained.__doc__ = f"{inspect.getdoc(stock) or ''}\n\n{_HELP}"
    from_pretrained.accepts_token_compression = True  # type: ignore[attr-defined]
    model_base.from_pretrained = classmethod(from_pretrained)  # type: ignore


def _take_saved(config: Any, key: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """Remove the saved setting from a model's config.

    The Auto classes write the `token_compression` of a call over it, even if that is None.
    """
    entries = vars(config)
    if key in entries and entries[key] is None:
        options = {own: arguments[own] for own in _FILE_OPTIONS if own in arguments}
        entries[key] = config.get_config_dict(name, **options)[0].get(key)
    return entries.pop(key, None)


def _resolve(
    setting: Any, *, name: str, arguments: Mapping[str, Any], saved: bool
) -> tuple[TokenCompressionConfig, MapperSet | None]:
    """A setting and its mappers, checked as far as that goes without the weights of the model.

    Args:
        setting: In the forms that `from_pretrained` takes.
        name: Folder or Hub id of the model.
        arguments: Keyword arguments of `from_pretrained`.
        saved: Whether the setting was not given in this call.
    """
    from ..config import TokenCompressionConfig
    from ..mapper.resolve import IN_MODEL
    from .setting import check_names, check_selection, scorer_of

    config = TokenCompressionConfig.coerce(setting)
    if config.mapper == IN_MODEL:
        revision = None if Path(name).is_dir() else arguments.get("revision")
        config = replace(config, mapper=name, mapper_revision=revision)
    check_names(config.scorer, config.mapper)
    mappers = _load_mappers(config, arguments, saved=saved)
    check_selection(config, scorer_of(config, mappers))
    return config, mappers


def _load_mappers(
    config: TokenCompressionConfig, arguments: Mapping[str, Any], *, saved: bool
) -> MapperSet | None:
    """The mappers of a setting, fetched as the arguments of `from_pretrained` say."""
    if config.mapper is None:
        return None
    from ..mapper import MapperNotFoundError, load_mappers

    download = {name: arguments[name] for name in _DOWNLOAD_OPTIONS if name in arguments}
    if not saved:
        return load_mappers(config.mapper, config.mapper_revision, **download)
    # The setting may also be that of an Auto class, which writes it into the model's config.
    logger.info(
        "token_compression names the mapper %r, which is loaded too; token_compression=False "
        "leaves it out.",
        config.mapper,
    )
    try:
        return load_mappers(config.mapper, config.mapper_revision, **download)
    except MapperNotFoundError as error:
        raise MapperNotFoundError(
            "The mapper of token_compression cannot be loaded, so name another one with "
            "token_compression={'mapper': …}, or load the model with token_compression=False: "
            f"{error}"
        ) from error
