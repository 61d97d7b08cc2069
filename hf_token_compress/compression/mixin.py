"""What a compressed model does differently: its forward, generate and save."""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from ..models.family import ModelFamily
from ..models.generic import GenericFamily
from ..models.registry import model_family
from ..models.sharding import with_gathered_parameters
from .cached_prefix import (
    CompressedPrefix,
    cached_length,
    caches_of,
    forget_prefix,
    given_cache,
    recall_prefix,
    remember_prefix,
)
from .callbacks import PromptRestorer, restored_callbacks
from .compressor import compress_inputs
from .continuation import continued_inputs, continued_prompt
from .generate_arguments import (
    check_chunked_prefill,
    copies_of_samples,
    generation_setting,
    prompt_mask,
    shortened_limits,
    with_inferred_inputs,
)
from .inputs import (
    is_shortened,
    present_modalities,
    refuse_unread_visuals,
    refuse_visual_prompts,
)
from .labels import check_labels
from .next_turn import Turn, turn_of_forward, turn_of_prompt
from .replaced_forward import noted_labels, noting_labels
from .rewriting import CompressedInputs
from .setting import BARE_RATIO
from .state import TokenCompression
from .widening import widened_output

CONFIG_KEY = "token_compression"
STATE_ATTRIBUTE = "_token_compression"
_CALL_OPTIONS = ("token_compression", "instruction_mask")


class TokenCompressionMixin:
    """Rewrites the inputs, then calls the stock class; no stock forward is copied.

    `compressed_class` puts it in front of a stock class. `forward` and `generate` take two more
    options per call: `token_compression`, in the forms of `from_pretrained` (a dict holds changes
    to the model's setting, and a list has one retention ratio for each sample), and
    `instruction_mask` (bool [B, S]). A `ModelOutput` of a compressed call has its report as the
    attribute `compression_report`.
    """

    stock_class: ClassVar[Any]
    family: ClassVar[ModelFamily]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A stock model: one that is made from the class, not by `compress`, has no setting."""
        return cls.stock_class(*args, **kwargs)

    @property
    def token_compression(self) -> TokenCompression:
        """Setting, last report and on/off switch of this model's compression."""
        return self._compression.of_model(self)

    @property
    def _compression(self) -> TokenCompression:
        """The same without a reference to the model, so that calls stay traceable."""
        compression: TokenCompression = vars(self)[STATE_ATTRIBUTE]
        return compression

    def _call_forward(self, *args: Any, **kwargs: Any) -> Any:
        options = call_options(kwargs)
        if options["token_compression"] is False:
            with self._compression.disabled():
                return self._call_forward(*args, **kwargs)
        inputs = _by_name(self.stock_class.forward, self, args, kwargs)
        self._compression.check_call(options["token_compression"], inputs)
        stock_forward = super().forward  # type: ignore[misc]
        cache = given_cache(inputs)
        if self._should_compress(inputs):
            turn = turn_of_forward(self, self.family, recall_prefix(cache), inputs)
            has_head = hasattr(self.stock_class, "generate")
            noted = None if has_head else noted_labels(self)
            labelled = turn.inputs if noted is None else {**turn.inputs, "labels": noted}
            compressed = self._compress(labelled, padding="forward", **options)
            report = self._compression.last
            if noted is not None:
                del compressed.inputs["labels"]
            shortened, filled = turn.joined(compressed)
            output = stock_forward(**shortened)
            remember_prefix(caches_of(cache, output), filled)
            output = widened_output(output, compressed, has_head=has_head)
            if isinstance(output, ModelOutput):
                output.compression_report = report
            return output
        if (prefix := recall_prefix(cache)) is not None:
            _refuse_visuals(self.family, inputs)
            inputs = continued_inputs(prefix, inputs)
        return stock_forward(**inputs)

    @torch.no_grad()
    def _call_generate(self, *args: Any, **kwargs: Any) -> Any:
        options = call_options(kwargs)
        if options["token_compression"] is False:
            with self._compression.disabled():
                return self._call_generate(*args, **kwargs)
        stock_generate = super().generate  # type: ignore[misc]
        arguments = _by_name(self.stock_class.generate, self, args, kwargs)
        if arguments.get("inputs") is not None and arguments.get("input_ids") is None:
            arguments["input_ids"] = arguments.pop("inputs")
        self._compression.check_call(options["token_compression"], arguments)
        cache = given_cache(arguments)
        prefix = recall_prefix(cache)
        turn = None
        if self._should_compress(arguments):
            turn = self._turn_of_prompt(prefix, arguments)
            if not present_modalities(self.family, turn.inputs):
                # The images of earlier turns came with a turn of text.
                visual = {*self.family.consumed_inputs(self), "mm_encoder_outputs"}
                arguments = {name: arguments[name] for name in arguments if name not in visual}
                turn = None
        if turn is None and not is_shortened(arguments):
            self._compression.last = None
        # 1. Shorten the prompt.
        report = None
        if turn is not None:
            options["instruction_mask"] = turn.own(options["instruction_mask"])
            compressed = self._compress_for_generate(turn.inputs, earlier=turn.earlier, **options)
            report = self._compression.last
            shortened, prefix = turn.joined(compressed, generating=True)
        elif prefix is not None:
            _refuse_visuals(self.family, arguments)
            mask = prompt_mask(self, arguments)
            shortened = continued_prompt(prefix, {**arguments, "attention_mask": mask})
        else:
            return stock_generate(**arguments)
        # 2. Generate; callbacks see the caller's prompt, and limits count it.
        prompt_ids = arguments["input_ids"]
        prompt_length = shortened["input_ids"].shape[1]
        restore = PromptRestorer(prompt_ids, prompt_length)
        generated = {
            **shortened,
            **restored_callbacks(arguments, restore),
            **shortened_limits(self, arguments, prompt_ids.shape[1] - prompt_length),
        }
        if report is not None and arguments.get("streamer") is not None:
            report.check_scores()  # before the first token is shown
        output = None
        # What stock `generate` passes at every step fits the cache as it is.
        forget_prefix(cache)
        try:
            output = stock_generate(**generated)
        finally:
            copies = copies_of_samples(self, arguments)
            prefix = prefix.for_batch(len(prompt_ids) * copies)
            remember_prefix(caches_of(cache, output), prefix)
        if report is not None:
            report.check_scores()
        # 3. Put the caller's prompt back.
        if isinstance(output, Tensor):
            return restore(output)
        # A `custom_generate` may return other dicts, or something of its own.
        if isinstance(output, dict) and isinstance(output.get("sequences"), Tensor):
            output["sequences"] = restore(output["sequences"])
        if report is not None and isinstance(output, ModelOutput):
            output.compression_report = report
        return output

    def _call_generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        stock_generate_batch = super().generate_batch  # type: ignore[misc]
        arguments = _by_name(self.stock_class.generate_batch, self, args, kwargs)
        if self._compression.enabled:
            refuse_visual_prompts(self, self.family, arguments)
        return stock_generate_batch(**arguments)

    def save_pretrained(
        self, save_directory: Any, *args: Any, save_mapper: bool = False, **kwargs: Any
    ) -> Any:
        """Save the model with the compression setting in config.json.

        With `save_mapper`, the folder holds the mapper in use too, in image/ or video/.
        """
        compression = self.token_compression
        if not save_mapper:
            setting = compression.saved_config
        elif kwargs.get("push_to_hub"):
            raise ValueError(
                "save_mapper=True does not go with push_to_hub=True: save into a folder, then "
                "upload that folder with `hf upload`."
            )
        else:
            setting = compression.save_mapper(save_directory)
        model_config = self.config  # type: ignore[attr-defined]
        setattr(model_config, CONFIG_KEY, setting.to_dict())
        try:
            return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        finally:
            delattr(model_config, CONFIG_KEY)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time, so rebuild it from the stock class, not by name.
        reduced: Any = super().__reduce_ex__(max(protocol, 2))
        return (_new_compressed, (self.stock_class,), *reduced[2:])

    def _should_compress(self, inputs: dict[str, Any]) -> bool:
        # Images and lengths first: decoding steps then read no context variable and no cache, and
        # stay traceable.
        has_visuals = bool(present_modalities(self.family, inputs))
        if has_visuals and self._compression.enabled:
            return True
        ids = inputs.get("input_ids")
        several = isinstance(ids, Tensor) and ids.ndim == 2 and ids.shape[1] > 1
        unverified = several and not has_visuals and isinstance(self.family, GenericFamily)
        if unverified and cached_length(given_cache(inputs)) == 0 and self._compression.enabled:
            refuse_unread_visuals(self, self.family, inputs)
        # A report cannot change inside a graph.
        if several and not torch.compiler.is_compiling() and self._begins_turn(inputs):
            self._compression.last = None
        return False

    def _begins_turn(self, inputs: dict[str, Any]) -> bool:
        """Whether a forward that compresses nothing is no step of a compressed call."""
        cache = given_cache(inputs)
        continues = cached_length(cache) > 0 and recall_prefix(cache) is None
        return not continues and not is_shortened(inputs)

    def _compress(
        self, inputs: dict[str, Any], *, token_compression: Any, **options: Any
    ) -> CompressedInputs:
        check_labels(inputs, options.get("instruction_mask"))
        setting = self._compression.for_call(self, token_compression)
        return compress_inputs(self, self.family, self._compression, inputs, setting, **options)

    def _compress_for_generate(self, arguments: dict[str, Any], **options: Any) -> CompressedInputs:
        check_chunked_prefill(self, arguments)
        return with_gathered_parameters(self, "_compress")(
            with_inferred_inputs(self, self.family, arguments),
            padding="left",
            spare_position=generation_setting(self, arguments, "use_cache") is False,
            **options,
        )

    def _turn_of_prompt(self, prefix: CompressedPrefix | None, arguments: dict[str, Any]) -> Turn:
        if cached_length(given_cache(arguments)) > 0:
            arguments = {**arguments, "attention_mask": prompt_mask(self, arguments)}
        return turn_of_prompt(self, self.family, prefix, arguments)


def compressed_class(stock_class: Any) -> Any:
    """The class of a compressed `stock_class`, under the stock name.

    Raises:
        ValueError: Models of this class cannot be compressed.
    """
    # A family may be registered after a model of it was compressed without.
    family_class: Any = type(model_family(stock_class))
    return _compressed_class(stock_class, family_class)


@functools.cache
def _compressed_class(stock_class: Any, family_class: Any) -> Any:

    @functools.wraps(stock_class.forward)
    def forward(self: TokenCompressionMixin, *args: Any, **kwargs: Any) -> Any:
        return self._call_forward(*args, **kwargs)

    # To take mixed precision off, Accelerate unwraps `forward` as far as it can.
    vars(forward).pop("__wrapped__")
    vars(forward)["__signature__"] = inspect.signature(stock_class.forward)
    namespace: dict[str, Any] = {
        "__module__": stock_class.__module__,
        "__qualname__": stock_class.__qualname__,
        "__doc__": stock_class.__doc__,
        "stock_class": stock_class,
        "family": family_class(),
        "forward": forward,
    }
    if hasattr(stock_class, "generate"):

        @functools.wraps(stock_class.generate)
        def generate(self: TokenCompressionMixin, *args: Any, **kwargs: Any) -> Any:
            return self._call_generate(*args, **kwargs)

        @functools.wraps(stock_class.generate_batch)
        def generate_batch(self: TokenCompressionMixin, *args: Any, **kwargs: Any) -> Any:
            return self._call_generate_batch(*args, **kwargs)

        def set_attribute(self: Any, name: str, value: Any) -> None:
            replaced = name == "forward" and getattr(value, "__self__", None) is self
            if replaced and value.__func__ is not type(self).forward:
                value = noting_labels(value)
            stock_class.__setattr__(self, name, value)

        namespace.update(
            generate=generate, generate_batch=generate_batch, __setattr__=set_attribute
        )
    return type(stock_class.__name__, (TokenCompressionMixin, stock_class), namespace)


def call_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the options of compression out of the arguments of a call; None if not given.

    Raises:
        TypeError: The ratio is given by its name, which a stock forward would ignore.
    """
    if "retention_ratio" in arguments:
        raise TypeError(BARE_RATIO)
    return {name: arguments.pop(name, None) for name in _CALL_OPTIONS}


def _new_compressed(stock_class: Any) -> Any:
    return object.__new__(compressed_class(stock_class))


def _by_name(
    function: Any, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """All arguments of a method call by name."""
    if not args:
        # Every decoding step takes this path, which stays cheap and traceable.
        return kwargs
    bound = inspect.signature(function).bind(self, *args, **kwargs).arguments
    bound.pop("self")
    return {**bound, **bound.pop("kwargs", {})}


def _refuse_visuals(family: ModelFamily, inputs: dict[str, Any]) -> None:
    if found := present_modalities(family, inputs):
        raise ValueError(
            f"The cache of a compressed prompt takes a new {found[0]} only with compression: pass "
            "token_compression=1.0 to keep all of its tokens, instead of False or disabled()."
        )
