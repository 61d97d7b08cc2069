"""Limits on what compression launches, and on where it lets the host wait."""

from __future__ import annotations

import functools

import pytest
import torch

from hf_token_compress.config import Modality
from lab.benchmarks.launches.counting import Counting, Counts
from lab.benchmarks.launches.limits import LIMITS
from lab.benchmarks.launches.pretended import Recorder, on_device
from lab.benchmarks.launches.subjects import FAMILIES, make_subject

MODALITIES: tuple[Modality, ...] = ("image", "video")


@functools.lru_cache(maxsize=2)
def counting(family: str, modality: Modality, tokens: int = 500) -> Counting:
    return Counting(make_subject(family, modality, tokens), modality)


@functools.cache
def stock(family: str, modality: Modality, batch: int) -> Counts:
    return counting(family, modality).prefill(None, batch)


CELLS = [
    (family, modality, setting)
    for family in FAMILIES
    for modality in MODALITIES
    for setting in LIMITS[family]
    # Of one family every setting, of the others those that contain the rest.
    if (family, modality) == ("qwen2_vl", "image")
    or setting in ("uniform", "attention top_p", "gated_fusion diverse", "grid diverse")
]


@pytest.mark.parametrize(("family", "modality", "setting"), CELLS)
def test_no_more_launches_and_waits_than_allowed(
    family: str, modality: Modality, setting: str
) -> None:
    """One prompt and four; the message names what waits and would not in the stock model."""
    for batch, (launches, syncs) in zip((1, 4), LIMITS[family][setting], strict=True):
        base = stock(family, modality, batch)
        own = counting(family, modality).prefill(setting, batch)
        beyond = "\n".join(f"{times} x {line}" for line, times in own.waits_beyond(base).items())
        waits = own.syncs - base.syncs
        assert waits <= syncs, f"{waits} > {syncs} synchronisations at batch {batch}:\n{beyond}"
        more = own.launches - base.launches
        assert more <= launches, f"{more} > {launches} launches at batch {batch}: {own.by_phase()}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoding_step_launches_what_stock_does(family: str) -> None:
    own = counting(family, "image")
    expected, found = own.decode(None, 2), own.decode("attention", 2)
    names = [(event.name, event.kind) for event in expected.events]
    assert [(event.name, event.kind) for event in found.events] == names


def test_what_counts() -> None:
    """What a GPU does, from PyTorch's documentation of what synchronises."""
    recorder = Recorder()
    with recorder.running():
        values, mask = on_device((torch.arange(4.0), torch.tensor([True, False, True, True])))
        host = torch.ones(4)
        cases = {
            "launch": [
                lambda: values + 1,
                lambda: values.masked_fill(mask, 0.0),
                lambda: values.clone().masked_fill_(mask, 0.0),
                lambda: values[mask.long()],
                lambda: torch.repeat_interleave(values, mask.long(), output_size=3),
                lambda: host.pin_memory().to("cuda", non_blocking=True),
                lambda: values.to("cpu", non_blocking=True),
            ],
            "view": [lambda: values[1:], lambda: values.view(2, 2), lambda: values.new_empty(3)],
            "sync": [
                lambda: host.to("cuda"),
                lambda: torch.tensor([1, 2], device="cuda"),
                lambda: values.cpu(),
                lambda: values.tolist(),
                lambda: values[0].item(),
                lambda: bool(mask[0]),
                lambda: mask.nonzero(),
                lambda: values[mask],
                lambda: values[torch.tensor([1, 2])],
                lambda: torch.repeat_interleave(values, mask.long()),
                lambda: torch.accelerator.synchronize(),
                lambda: torch.Event(enable_timing=True).elapsed_time(torch.Event()),
            ],
        }
        for kind, calls in cases.items():
            for number, call in enumerate(calls):
                recorder.events.clear()
                call()
                kinds = [event.kind for event in recorder.events]
                assert kinds.count(kind) >= 1, (kind, number)
                assert kind == "sync" or "sync" not in kinds, (kind, number)
        with pytest.raises(RuntimeError, match="tensors of the CPU and of the device"):
            values + host
