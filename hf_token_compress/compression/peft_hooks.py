"""The hooks through which PEFT tells LoRA layers, for the time of a call, what to do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any


def hooks_for_scoring(hooks: Mapping[int, Any], samples: int | None) -> OrderedDict[int, Any]:
    """The forward pre-hooks of a module of a twin that runs on the whole prompts.

    - `adapter_names` names an adapter for every beam of every sample, but scoring comes before
      the beams.
    - Activated LoRA leaves the prompt before its invocation to the base model, so that both share
      a cache: the base model also chooses the tokens that stay.

    Args:
        hooks: The hooks of the model's module by their ids.
        samples: B, samples of the batch; None if the hooks are to stay as they are.
    """
    kept: OrderedDict[int, Any] = OrderedDict()
    for number, hook in hooks.items():
        options = hook.keywords if isinstance(hook, partial) else {}
        if "alora_offsets" in options:
            continue
        names = options.get("adapter_names")
        if samples and names is not None and len(names) > samples:
            hook = partial(hook.func, *hook.args, adapter_names=names[:: len(names) // samples])
        kept[number] = hook
    return kept
