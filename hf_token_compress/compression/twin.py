"""A private twin of a model: its modules re-created around the same parameters.

A twin can hold other configurations, be in evaluation mode and stop half-way, and the model sees
nothing of it. So several threads can use twins of one model while others run the model itself.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from typing_extensions import override

from ..models.offload import OFFLOAD_LOCK
from .peft_hooks import hooks_for_scoring


@dataclass(frozen=True)
class Twin:
    """A twin, and the twins of its parts."""

    module: Any
    _maker: _TwinMaker

    def of(self, part: nn.Module) -> Any:
        """The twin of a part of the model."""
        return self._maker.modules[id(part)]

    def later(self, part: nn.Module) -> nn.Module:
        """The twin of an untouched part, which is made when it is called."""
        return _Later(part, self._maker.for_later())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the twin inside the `with` block; offloaded weights need a lock for it."""
        if any("_hf_hook" in vars(part) for part in self._maker.modules.values()):
            with OFFLOAD_LOCK:
                yield
        else:
            yield


def make_twin(
    model: nn.Module,
    *,
    backend: str | None = None,
    recorder: object = None,
    untouched: Iterable[nn.Module] = (),
    stock_attention: Iterable[nn.Module] = (),
    samples: int | None = None,
    frozen: bool = False,
    evaluation: bool = True,
) -> Twin:
    """Re-create every module of a model around the same parameters.

    Hooks stay, those of Accelerate and PEFT among them. An instance-level `forward` and compiled
    calls are left behind. Buffers are shared, except vectors such as RoPE's frequencies.

    Args:
        model: The model, or a part of it.
        backend: Attention implementation of the twin; None for that of the model.
        recorder: What `recorder_of` finds in the backend's attention and mask functions.
        untouched: Modules to use as they are, because the twin does not call them, or calls what
            `Twin.later` makes of them.
        stock_attention: Modules that keep the model's attention implementation.
        samples: B, samples of the batch to score; None if the twin is not for scoring.
        frozen: Hide from autograd that parameters are trained.
        evaluation: Put the twin into evaluation mode; otherwise it is in the model's.
    """
    maker = _TwinMaker(
        backend=backend,
        recorder=recorder,
        untouched=set(map(id, untouched)),
        stock_attention=set(map(id, stock_attention)),
        samples=samples,
        frozen=frozen,
        evaluation=evaluation,
    )
    return Twin(maker.make(model), maker)


def recorder_of(config: PreTrainedConfig) -> Any:
    """The `recorder` of the twin that holds this configuration."""
    return vars(config)[_RECORDER]


_RECORDER = "_hf_token_compress_recorder"


@dataclass
class _TwinMaker:
    """Makes each module and each configuration once; arguments as for `make_twin`."""

    backend: str | None
    recorder: object
    untouched: set[int]
    stock_attention: set[int]
    samples: int | None
    frozen: bool
    evaluation: bool
    modules: dict[int, nn.Module] = field(default_factory=dict)
    configs: dict[int, PreTrainedConfig] = field(default_factory=dict)

    def make(self, module: nn.Module, *, stock_attention: bool = False) -> nn.Module:
        if id(module) in self.untouched:
            return module
        stock_attention = stock_attention or id(module) in self.stock_attention
        if (compiled := module._modules.get("_orig_mod")) is not None:
            self.modules[id(module)] = self.make(compiled, stock_attention=stock_attention)
            return self.modules[id(module)]
        if id(module) in self.modules:
            return self.modules[id(module)]
        # A compressed class would compress again.
        cls = getattr(type(module), "stock_class", type(module))
        # Classes such as those of FSDP have a `__new__` of their own.
        twin: nn.Module = object.__new__(cls)
        self.modules[id(module)] = twin
        state = vars(twin)
        # A copy, because a forward in another thread may add to it.
        for name, value in vars(module).copy().items():
            if isinstance(value, dict) and name != "_parameters":
                value = value.copy()
            elif isinstance(value, PreTrainedConfig) and self.backend and not stock_attention:
                value = self._config(value)
            state[name] = value
        state["_compiled_call_impl"] = None
        if self.evaluation:
            state["training"] = False
        if self.samples is not None:
            twin._forward_pre_hooks = hooks_for_scoring(twin._forward_pre_hooks, self.samples)
        for name in ("forward", "_old_forward", "_token_compression"):
            state.pop(name, None)
        if (hook := state.get("_hf_hook")) is not None:
            # Make no circle, which would keep weights. Transformers reads the signature.
            state["forward"] = functools.update_wrapper(
                functools.partial(_hooked_forward, weakref.ref(twin), hook),
                MethodType(cls.forward, weakref.proxy(twin)),
            )
        # RoPE that depends on the length writes into its frequencies.
        twin._buffers = {name: _own_buffer(value) for name, value in twin._buffers.items()}
        if self.frozen:
            twin._parameters = {
                name: _frozen(own) if own is not None and own.requires_grad else own
                for name, own in twin._parameters.items()
            }
        for name, child in module._modules.items():
            if child is not None:
                twin._modules[name] = self.make(child, stock_attention=stock_attention)
        return twin

    def for_later(self) -> _TwinMaker:
        """A maker of untouched parts, with the same configurations.

        It does not hold the twins that this one made, because they will hold it.
        """
        return replace(self, untouched=set(), modules={})

    def _config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """A copy of a configuration, with copies of those inside it."""
        if id(config) in self.configs:
            return self.configs[id(config)]
        twin = self.configs[id(config)] = copy.copy(config)
        for name, value in vars(config).items():
            if isinstance(value, PreTrainedConfig):
                vars(twin)[name] = self._config(value)
        vars(twin)[_RECORDER] = self.recorder
        twin._attn_implementation = self.backend
        return twin


class _Later(nn.Module):
    """A module whose twin is made when it is called."""

    def __init__(self, module: nn.Module, maker: _TwinMaker) -> None:
        super().__init__()
        # Past `nn.Module`, which would list them as parts.
        vars(self).update(_module=module, _maker=maker)

    @override
    def __getattr__(self, name: str) -> Any:
        # Decoders ask a layer for its type.
        return getattr(vars(self)["_module"], name)

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the twin's."""
        return self._maker.make(self._module)(*args, **kwargs)


def _own_buffer(buffer: Tensor | None) -> Tensor | None:
    is_vector = buffer is not None and buffer.ndim == 1 and buffer.is_floating_point()
    return buffer.clone() if is_vector else buffer  # type: ignore[union-attr]


def _frozen(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach(), requires_grad=False)


def _hooked_forward(reference: weakref.ref[nn.Module], hook: Any, *args: Any, **kwargs: Any) -> Any:
    """The forward of a module under a hook of Accelerate, which unloads weights in any case."""
    module: Any = reference()
    args, kwargs = hook.pre_forward(module, *args, **kwargs)
    output = None
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not hook.no_grad):
            output = type(module).forward(module, *args, **kwargs)
    finally:
        output = hook.post_forward(module, output)
    return output
