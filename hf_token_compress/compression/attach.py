"""Put compression on a loaded model, and take it off again."""

from __future__ import annotations

from typing import Any, TypeVar

from transformers import PreTrainedModel

from ..config import SettingLike, TokenCompressionConfig
from ..mapper import MapperSet
from ..models.generic import GenericFamily
from ..models.registry import model_family
from ..models.sharding import with_gathered_parameters
from ..notices import warn_once
from .cached_prefix import cached_length, given_cache
from .fast_path import FastPath
from .inputs import present_modalities
from .mixin import (
    STATE_ATTRIBUTE,
    TokenCompressionMixin,
    call_options,
    compressed_class,
)
from .setting import build_setting
from .state import TokenCompression

Model = TypeVar("Model", bound=PreTrainedModel)


def compress(model: Model, config: SettingLike) -> Model:
    """Compress the visual tokens of every later call of this model, in place.

    Only this instance changes, not other models of its class. The model under its head, which some
    trainers call directly, compresses too. If the model is compressed already, its setting is
    replaced.

    Args:
        model: A loaded Transformers model of a supported family.
        config: The whole setting: a `TokenCompressionConfig`, its dict, a retention ratio, or the
            folder or Hub id of a mapper.

    Returns:
        The same model.

    Raises:
        MapperNotFoundError: There is no such mapper, or the Hub cannot be reached or refuses.
        TypeError: `model` is not a Transformers model, or `config` has the wrong type.
        ValueError: The family is not supported, a setting is unknown or outside its range, the
            model has no layer `scoring_depth`, or the mapper is damaged or belongs to another
            model.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"compress takes a loaded Transformers model, not {type(model).__name__}: if it wraps "
            "one, compress that model before you wrap it."
        )
    return attach(model, TokenCompressionConfig.coerce(config))


def attach(model: Model, config: TokenCompressionConfig, mappers: MapperSet | None = None) -> Model:
    """Compress as `compress` does, with the mappers of the setting where they are loaded."""
    own_class: Any = type(model)
    compressed = issubclass(own_class, TokenCompressionMixin)
    new_class = own_class if compressed else compressed_class(own_class)
    setting = build_setting(model, config, mappers)
    if not compressed:
        _change_class(model, new_class)
    if isinstance(new_class.family, GenericFamily):
        warn_once(
            f"{type(model).__name__} is not one of the model families that hf_token_compress is "
            "tested with: its first prompt will be checked, but compare answers at "
            "retention_ratio=1.0 and below before you rely on it."
        )
    compression = vars(model).get(STATE_ATTRIBUTE)
    if compression is None:
        compression = TokenCompression(setting, FastPath.find(model, new_class.family))
        vars(model)[STATE_ATTRIBUTE] = compression
    else:
        # Whoever holds the state, such as an open `record()`, goes on with the new setting.
        compression.use_setting(model, setting)
    inner = _inner_model(model)
    if inner is not None:
        if not isinstance(inner, TokenCompressionMixin):
            inner_class: Any = type(inner)
            _change_class(inner, compressed_class(inner_class))
        vars(inner)[STATE_ATTRIBUTE] = compression
    return model


def uncompress(model: Model) -> Model:
    """Give a model back its stock class and behaviour, in place.

    Raises:
        ValueError: The model is not compressed, or has changed since in a way that cannot be kept.
    """
    if not isinstance(model, TokenCompressionMixin):
        raise ValueError("This model is not compressed: there is nothing to undo.")
    if type(model) is not compressed_class(model.stock_class):
        raise ValueError(
            "The class of the model was changed after compress() (by fully_shard, for instance): "
            "uncompress the model before that."
        )
    for part in (model, model.base_model):
        if isinstance(part, TokenCompressionMixin):
            _change_class(part, part.stock_class)
            del vars(part)[STATE_ATTRIBUTE]
    return model


def prepare_inputs(model: PreTrainedModel, **inputs: Any) -> dict[str, Any]:
    """The shorter inputs that a compressed model hands to the stock class.

    With these inputs, the stock model's `forward` and `generate` do what the compressed model does.
    Inputs without images and videos come back unchanged. Call it under `torch.no_grad()` unless
    gradients should reach the vision part.

    Args:
        model: A compressed model.
        **inputs: What the processor returned, and optionally `token_compression` and
            `instruction_mask` for this call. Add `use_cache=False` if the result is for a
            `generate` without a cache.

    Returns:
        The same keywords for the kept tokens, padded on the left. With `labels`, columns after the
        last visual token are padded as in `inputs`.

    Raises:
        ValueError: The model is not compressed, there is a filled cache, the inputs do not fit each
            other, or a prompt has no instruction token but the scorer needs one.
    """
    if not isinstance(model, TokenCompressionMixin):
        raise ValueError(
            "prepare_inputs needs a compressed model: call compress(model, config) first."
        )
    if cached_length(given_cache(inputs)) > 0:
        raise ValueError(
            "prepare_inputs takes whole prompts and no filled cache: continue the cache with "
            "generate or forward of the compressed model."
        )
    options = call_options(inputs)
    compression: TokenCompression = vars(model)[STATE_ATTRIBUTE]
    compression.last = None
    if options["token_compression"] is False:
        return inputs
    compression.check_call(options["token_compression"], inputs)
    if not present_modalities(model.family, inputs):
        return inputs
    spare_position = inputs.get("use_cache") is False
    # A prompt to train on has the padding of a forward; that for `generate` is on the left.
    padding = "left" if inputs.get("labels") is None else "forward"
    compress_now = with_gathered_parameters(model, "_compress")
    compressed = compress_now(inputs, padding=padding, spare_position=spare_position, **options)
    report: Any = compression.last
    report.check_scores()
    return compressed.inputs


def _inner_model(model: Any) -> Any:
    """The model under the head, which trainers call directly; None if it cannot compress.

    A `forward` that was put on the instance is left alone: through the head it compresses anyway.
    """
    inner = model.base_model
    if inner is model or not isinstance(inner, PreTrainedModel) or _has_other_forward(inner):
        return None
    try:
        model_family(getattr(inner, "stock_class", type(inner)))
    except ValueError:
        return None
    return inner


def _has_other_forward(model: Any) -> bool:
    """Whether the instance has a `forward` that is neither its class's nor Accelerate's."""
    own = vars(model).get("forward")
    is_stock = getattr(own, "__func__", None) is type(model).forward
    return own is not None and not is_stock and getattr(model, "_hf_hook", None) is None


def _change_class(model: Any, new_class: type) -> None:
    """Change the class of an instance, and keep the hooks that Accelerate put on it."""
    hook = getattr(model, "_hf_hook", None)
    if hook is not None:
        from accelerate.hooks import add_hook_to_module, remove_hook_from_module

        # A hook holds the `forward` of the old class: take it off and put it on again.
        remove_hook_from_module(model)
        vars(model).pop("forward", None)
    elif _has_other_forward(model):
        raise ValueError(
            "model.forward was replaced on this instance (by Accelerator.prepare or by hand): "
            "compress or uncompress the model before you replace it."
        )
    else:
        # Accelerate leaves the class's own method on an instance when it removes its hooks.
        vars(model).pop("forward", None)
    model.__class__ = new_class
    if hook is not None:
        add_hook_to_module(model, hook)
