"""One of two processes that share a compressed model by FSDP2: its rank, and a file to meet at."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from typing import Any

import torch
from errors import one_sentence
from pairs import QUARTER, assert_same
from tiny_models import RAGGED, TWO_IMAGES, make_inputs, tiny_model
from torch import distributed
from torch.distributed.fsdp import fully_shard

from hf_token_compress import compress, prepare_inputs, uncompress


def shard(model: Any) -> None:
    mesh = distributed.init_device_mesh("cpu", (2,))
    layers = (*model.model.language_model.layers, *model.model.visual.blocks)
    for part in (*layers, model):
        fully_shard(part, mesh=mesh)


def run(rank: int) -> None:
    config = replace(QUARTER, retention_ratio=0.5)
    whole = compress(tiny_model(), config)
    sharded = copy.deepcopy(whole)
    shard(sharded)
    batches = []  # of both processes
    for prompts in (RAGGED, [TWO_IMAGES]):
        inputs = make_inputs(prompts)
        labels = inputs["input_ids"].clone()
        labels[:, :-4] = -100
        batches.append({**inputs, "labels": labels})
    own = batches[rank]
    prompts = {name: value for name, value in own.items() if name != "labels"}
    # Before any forward, as reinforcement learning does.
    found = sharded.generate(**prompts, max_new_tokens=3)
    assert torch.equal(found, whole.generate(**prompts, max_new_tokens=3))
    prepared = prepare_inputs(sharded, **own)
    assert prepared["input_ids"].shape[1] < own["input_ids"].shape[1]
    assert torch.equal(prepared["input_ids"], prepare_inputs(whole, **own)["input_ids"])
    # One step: gradients are averaged over the processes.
    output = sharded(**own)
    assert_same(output.logits, whole(**own).logits)
    visual = (output.compression_report.samples[0], whole.token_compression.last.samples[0])
    assert torch.equal(*(sample.kept_visual for sample in visual))
    assert 2 * visual[0].visual_tokens_after == visual[0].visual_tokens_before
    output.loss.backward()
    for batch in batches:
        (whole(**batch).loss / 2).backward()
    gradients = {name: own.grad for name, own in whole.named_parameters() if own.grad is not None}
    for name, parameter in sharded.named_parameters():
        if name in gradients:
            found = parameter.grad.full_tensor()
            torch.testing.assert_close(found, gradients[name], rtol=1e-4, atol=1e-5, msg=name)
    assert len(gradients) > 60
    with one_sentence(ValueError, "fully_shard"):
        uncompress(sharded)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{sys.argv[2]}",
        rank=int(sys.argv[1]),
        world_size=2,
    )
    run(int(sys.argv[1]))
    # Neither process takes its connections down while the other one uses them.
    distributed.barrier()
    distributed.destroy_process_group()
