"""Tensors that claim to be on a CUDA device and compute on the CPU, to count without a GPU.

Every operation on them is recorded as what it would be on a GPU: a launch, a view or a
synchronisation. An operation counts as one launch, however many kernels it has inside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .phases import phase_of

Kind = Literal["launch", "view", "sync"]

DEVICE = torch.device("cuda", 0)

_EMPTY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
_VIEWS = _EMPTY | {"alias", "detach", "lift_fresh", "resize_", "set_", "_unsafe_view"}
"""Operations beside those that PyTorch knows as views that launch nothing."""

_WAITS = {
    "_local_scalar_dense": "a value is read",
    "equal": "a value is read",
    "is_nonzero": "a value is read",
    "nonzero": "the length of nonzero is read",
    "masked_select": "the length of masked_select is read",
    "bincount": "the length of bincount is read",
    **dict.fromkeys(
        ("_unique", "_unique2", "unique_dim", "unique_consecutive"), "the length of unique is read"
    ),
}


@dataclass(frozen=True)
class Event:
    """One operation.

    Attributes:
        name: Its name in ATen, or of a Triton kernel.
        kind: "launch" (also of a copy that the host does not wait for), "view" or "sync".
        reason: Why the host waits.
        phase: Part of the call that it belongs to, see `phases`.
        line: Where the project asked for it, or Transformers if the project did not.
    """

    name: str
    kind: Kind
    reason: str
    phase: str
    line: str


class PretendedTensor(Tensor):
    """A tensor that says it is on `DEVICE`, around one that is on the CPU."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> PretendedTensor:
        """Claim the shape, strides and dtype of `own`."""
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            own.size(),
            strides=own.stride(),
            storage_offset=own.storage_offset(),
            dtype=own.dtype,
            layout=own.layout,
            device=DEVICE,
            requires_grad=False,
        )
        wrapper.own = own
        return wrapper

    def tolist(self) -> Any:
        """As a GPU's: copied to the host, then read."""
        return self.to("cpu").tolist()

    def data_ptr(self) -> int:
        """Where the values are."""
        return self.own.data_ptr()

    def __repr__(self, **options: Any) -> str:
        return f"PretendedTensor({self.own!r})"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{function} of a pretended tensor outside Recorder.running().")


class Recorder(TorchDispatchMode):
    """Runs operations of pretended tensors on the CPU, and records them."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    @contextmanager
    def running(self) -> Iterator[Recorder]:
        """Pretend that there is a GPU, inside the `with` block."""
        with ExitStack() as stack:
            for patch in _patches(self):
                stack.enter_context(patch)
            torch._C._set_only_lift_cpu_tensors(True)
            stack.callback(torch._C._set_only_lift_cpu_tensors, False)
            torch._C._ensureCUDADeviceGuardSet()
            stack.enter_context(self)
            yield self

    def note(self, name: str, kind: Kind, reason: str = "") -> None:
        """Record an operation of the line that runs."""
        self.events.append(Event(name, kind, reason, *_origin()))

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = function._schema.name.split("::")[-1]
        pretended = [
            leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, PretendedTensor)
        ]
        if name == "is_pinned":
            return True
        if name == "_pin_memory":
            return args[0]
        # 1. Where the result lives.
        onto = bool(pretended)
        if kwargs.get("device") is not None:
            onto = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = torch.device("cpu")
        elif name == "copy_":
            onto = isinstance(args[0], PretendedTensor)
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        # 2. What it is on a GPU.
        if pretended or onto:
            _check_devices(name, args, kwargs)
            self.note(name, *_kind(function, name, args, kwargs, onto))
        # 3. The values.
        result = function(*tree_map(_own, args), **tree_map(_own, kwargs))
        if name in _EMPTY and onto and result.is_floating_point():
            # What a kernel that does not run would have written.
            result.fill_(0.5)
        if not onto:
            return result
        known = {id(leaf.own): leaf for leaf in pretended}  # in-place operations
        return tree_map(lambda leaf: _pretended(leaf, known), result)


def on_device(value: Any) -> Any:
    """Tensors, in containers of any kind, as pretended ones."""
    return tree_map(lambda leaf: _pretended(leaf, {}), value)


def module_on_device(module: nn.Module) -> nn.Module:
    """A module with its parameters and buffers in place of pretended ones."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                own = PretendedTensor(parameter.detach())
                part._parameters[name] = nn.Parameter(own, requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = PretendedTensor(buffer)
    return module


def _own(leaf: Any) -> Any:
    return leaf.own if isinstance(leaf, PretendedTensor) else leaf


def _pretended(leaf: Any, known: dict[int, PretendedTensor]) -> Any:
    if not isinstance(leaf, Tensor) or isinstance(leaf, PretendedTensor):
        return leaf
    return known[id(leaf)] if id(leaf) in known else PretendedTensor(leaf)


def _kind(function: Any, name: str, args: Any, kwargs: Any, onto: bool) -> tuple[Kind, str]:
    """What an operation is on a GPU, and why the host waits for it."""
    if name == "_to_copy" or name == "copy_":
        source = args[1 if name == "copy_" else 0]
        from_host = not isinstance(source, PretendedTensor)
        if from_host == onto:
            if source.numel() == 0:
                return "view", ""
            if not (kwargs.get("non_blocking") or args[2:3] == (True,)):
                return "sync", "copied to the device" if onto else "copied to the host"
        return "launch", ""
    if function.is_view or name in _VIEWS:
        return "view", ""
    if name in _WAITS:
        return "sync", _WAITS[name]
    if name.startswith("index") and isinstance(args[1], (list, tuple)):
        return _kind_of_index(name, args)
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "sync", "the length of repeat_interleave is read"
    if name == "isin" and not kwargs.get("assume_unique"):
        elements, tests = args[:2]
        # Many test elements are sorted and made unique.
        if isinstance(tests, Tensor) and isinstance(elements, Tensor):
            few = tests.numel() < 10 * max(elements.numel(), 1) ** 0.145
            return ("launch", "") if few else ("sync", "isin sorts its test elements")
    return "launch", ""


def _kind_of_index(name: str, args: Any) -> tuple[Kind, str]:
    indices = [index for index in args[1] if isinstance(index, Tensor)]
    masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
    if masks:
        fills = name.startswith(("index_put", "_index_put"))
        # PyTorch fills by a mask without looking where it is true.
        if not fills or args[2].numel() > 1 or len(indices) > 1 or indices[0] is not args[1][0]:
            return "sync", "the length of a boolean index is read"
    if any(not isinstance(index, PretendedTensor) for index in indices):
        return "sync", "an index is copied to the device"
    return "launch", ""


def _check_devices(name: str, args: Any, kwargs: Any) -> None:
    """Raise where a GPU would: an operation of tensors on the host and on the device."""
    if name in ("_to_copy", "copy_") or name.startswith(("index", "_index")):
        return
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_host = [leaf for leaf in leaves if not isinstance(leaf, PretendedTensor) and leaf.ndim]
    if on_host and len(on_host) < len(leaves):
        raise RuntimeError(f"{name} takes tensors of the CPU and of the device ({_origin()[1]}).")


def _numbers(data: Any) -> Any:
    """Nested lists of numbers: values of tensors are read one by one, as PyTorch does."""
    if isinstance(data, Tensor):
        return data.tolist() if data.ndim else data.item()
    return [_numbers(part) for part in data] if isinstance(data, (list, tuple)) else data


_LIBRARY = f"{os.sep}hf_token_compress{os.sep}"
_TRANSFORMERS = f"{os.sep}transformers{os.sep}"
_HELPERS = ("/compression/stopwatch.py",)
"""Files of the library whose callers are named instead."""


def _origin() -> tuple[str, str]:
    """The phase, and the line that runs: the project's, and what it calls in Transformers."""
    frame = sys._getframe(2)
    files: list[tuple[str, str]] = []
    lines = {_LIBRARY: "", _TRANSFORMERS: ""}
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        for folder in lines:
            if folder in file and not file.endswith(_HELPERS):
                short = folder.strip(os.sep) + "/" + file.rsplit(folder, 1)[1]
                files.append((short, function))
                inner = folder == _LIBRARY or not lines[_LIBRARY]
                if inner and not lines[folder]:
                    lines[folder] = f"{short}:{frame.f_lineno} ({function})"
        frame = frame.f_back  # type: ignore[assignment]
    return phase_of(files), " > ".join(filter(None, lines.values())) or "(outside)"


def _patches(recorder: Recorder) -> Sequence[Any]:
    """What a machine without a GPU lacks: the runtime, events and Triton's launches."""
    attention = torch.nn.functional.scaled_dot_product_attention

    def synchronize(*args: Any, **kwargs: Any) -> None:
        recorder.note("synchronize", "sync", "the device is synchronised")

    def sdpa(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(query, PretendedTensor):
            return attention(query, key, value, *args, **kwargs)
        # One launch, and no need to compute: counts do not depend on the values.
        recorder.note("scaled_dot_product_attention", "launch")
        batch, heads, length, _ = query.shape
        result = query.own.new_zeros(batch, length, heads, value.shape[-1])
        return PretendedTensor(result.transpose(1, 2))

    class DeviceEvent:
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def record(self, *args: Any) -> None: ...

        def wait(self, *args: Any) -> None: ...

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            recorder.note("event", "sync", "an event is waited for")

        def elapsed_time(self, end: Any) -> float:
            self.synchronize()
            return 1.0

    def made(make: Any) -> Any:
        def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if isinstance(data, Tensor) or device is None or torch.device(device).type != "cuda":
                return make(data, *args, device=device, **kwargs)
            return make(_numbers(data), *args, **kwargs).to(device)

        return tensor

    def launch(own: Any, config: Any = None) -> None:
        recorder.note(f"triton {own.kernel.fn.__name__}", "launch")

    return (
        mock.patch("torch.cuda._lazy_init"),
        mock.patch("torch.cuda.synchronize", synchronize),
        mock.patch("torch.accelerator.synchronize", synchronize),
        mock.patch("torch.accelerator.current_stream"),
        mock.patch("torch.cuda.Event", DeviceEvent),
        mock.patch("torch.Event", DeviceEvent),
        mock.patch("torch.tensor", made(torch.tensor)),
        mock.patch("torch.as_tensor", made(torch.as_tensor)),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", sdpa),
        mock.patch("hf_token_compress.kernels.launch.Launch.run", launch),
        # Its layer 0 is a plain one, though its weights are of another type.
        mock.patch(
            "hf_token_compress.compression.llama_layer.nn",
            SimpleNamespace(**{**vars(nn), "Parameter": PretendedTensor}),
        ),
    )
