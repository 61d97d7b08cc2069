"""Train a mapper on what `collect` wrote; the multimodal model itself is not needed.

`accelerate launch --module hf_token_compress.cli train …` does it with several processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..mapper import MapperConfig, MapperInput, RelevanceMapper, label_divergence, relevance_label
from ..writing import clear_parts, write_json
from .augmentation import augment
from .checkpoint import Checkpoint, damaged, load_checkpoint, save_checkpoint
from .distributed import Accelerator, from_main_process, make_accelerator
from .joined import LABEL_OPTIONS, JoinedCollections
from .metrics import RECALL_SHARES, rank_correlation, top_recall
from .options import TrainOptions
from .shards import ShardFolder

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class Epoch:
    """Loss and metrics of one epoch.

    Attributes:
        number: Counted from 1.
        train_loss: Mean KL divergence over the training samples, as they were visited.
        metrics: On the validation samples: "kl", "recall_50", "recall_25", "recall_10" and
            "rank_correlation".
    """

    number: int
    train_loss: float
    metrics: dict[str, float]


def train_mapper(
    collections: ShardFolder | Sequence[ShardFolder],
    output: str | Path,
    options: TrainOptions | None = None,
    *,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> RelevanceMapper:
    """Train a mapper and save it.

    A run that was stopped continues after its last epoch and ends where it would have ended. Except
    for rounding, the weights do not depend on the number of processes.

    Args:
        collections: What `collect` wrote, in one folder or in several.
        output: Folder for the mapper, a checkpoint and the history.
        options: How to train.
        after_epoch: Called after each epoch, for progress bars.

    Returns:
        The mapper with the lowest validation loss (or the last), on this process's device.

    Raises:
        ValueError: There are too few samples, a label is NaN, the collections do not fit together
            (as in `JoinedCollections`), `output` holds another run, or the loss of an epoch is not
            finite; the checkpoint of the epoch before it is kept.
    """
    options = options or TrainOptions()
    output = Path(output)
    joined = JoinedCollections(
        [collections] if isinstance(collections, ShardFolder) else collections
    )
    run = _Run(joined, options, make_accelerator())
    settings = {"options": options.to_dict(), "collections": joined.described}
    # Load on rank 0 and broadcast: other ranks may not share the filesystem.
    start = from_main_process(lambda: load_checkpoint(output / CHECKPOINT_FILE, settings))
    if start is not None:
        try:
            run.restore(start)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise damaged(output / CHECKPOINT_FILE, error) from error
    while not run.finished:
        epoch = run.epoch()
        if run.accelerator.is_main_process:
            save_checkpoint(output / CHECKPOINT_FILE, run.checkpoint(), settings)
        if after_epoch is not None:
            after_epoch(epoch)
    mapper = run.best_mapper()
    if run.accelerator.is_main_process:
        mapper.save_pretrained(output)
        clear_parts(output)
        write_json(output / HISTORY_FILE, {"epochs": [asdict(epoch) for epoch in run.history]})
    run.accelerator.wait_for_everyone()
    return mapper


class _Run:
    """The state of one training."""

    def __init__(
        self, samples: JoinedCollections, options: TrainOptions, accelerator: Accelerator
    ) -> None:
        self.samples, self.options, self.accelerator = samples, options, accelerator
        self.inputs = options.inputs or _default_inputs(samples, options.network)
        samples.check_inputs(self.inputs)
        self.label = partial(
            relevance_label, mask_ratio=options.mask_ratio, temperature=options.temperature
        )
        # Split the samples.
        generator = torch.Generator().manual_seed(options.seed)
        order = torch.randperm(len(samples), generator=generator).tolist()
        measured = max(1, round(options.validation_fraction * len(order)))
        if len(order) < 2:
            raise ValueError(
                f"The collection has {len(order)} samples, but training needs at least two: one to "
                "learn from and one to measure on."
            )
        if measured == len(order):
            raise ValueError(
                f"A validation_fraction of {options.validation_fraction} leaves none of the "
                f"{len(order)} samples to learn from: choose a smaller one or collect more samples."
            )
        self.measured, self.learned = order[:measured], order[measured:]
        # Initial weights depend on the seed alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            mapper = RelevanceMapper(self._config({}))
        optimizer = torch.optim.AdamW(
            mapper.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(mapper, optimizer)
        self.steps_per_epoch = math.ceil(len(self.learned) / options.train_batch_size)
        self.history: list[Epoch] = []
        self.best = self._weights()

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or the loss has stopped falling."""
        losses = [epoch.metrics["kl"] for epoch in self.history]
        if len(losses) >= self.options.epochs:
            return True
        if not self.options.keep_best:
            return False
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= self.options.patience

    def epoch(self) -> Epoch:
        """Pass over the data once, then measure."""
        number = len(self.history)
        generator = torch.Generator().manual_seed((self.options.seed + 1) * 100_003 + number)
        order = torch.randperm(len(self.learned), generator=generator).tolist()
        self.model.train()
        total = torch.zeros((), device=self.accelerator.device)
        for step in range(self.steps_per_epoch):
            size = self.options.train_batch_size
            chosen = [self.learned[place] for place in order[step * size : (step + 1) * size]]
            self._set_learning_rate(number * self.steps_per_epoch + step)
            total += self._step(chosen)
        train_loss = float(self.accelerator.reduce(total)) / len(self.learned)
        self._check_finite(train_loss)
        epoch = Epoch(number + 1, train_loss, self._measure())
        self._check_finite(epoch.metrics["kl"])
        better = all(epoch.metrics["kl"] < earlier.metrics["kl"] for earlier in self.history)
        if better or not self.options.keep_best:
            self.best = self._weights()
        self.history.append(epoch)
        return epoch

    def _check_finite(self, loss: float) -> None:
        """Fail on all processes at once: they have the same loss."""
        if not math.isfinite(loss):
            raise ValueError(
                f"The training diverged in epoch {len(self.history) + 1}, whose loss is {loss}: "
                f"train with a learning rate below {self.options.learning_rate:g}."
            )

    def _step(self, chosen: Sequence[int]) -> Tensor:
        """One update on a batch that all processes share; returns this process's summed loss."""
        state = self.accelerator
        own = chosen[state.process_index :: state.num_processes]
        # A process without a sample still takes part in averaging the gradients.
        losses = self._losses(own or chosen[:1])
        loss = losses.sum() if own else losses.sum() * 0.0
        self.optimizer.zero_grad()
        # Gradients are averaged over processes, so divide by the samples of the whole batch.
        state.backward(loss * state.num_processes / len(chosen))
        state.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def _losses(self, places: Sequence[int]) -> Tensor:
        device = self.accelerator.device
        samples = [self.samples[place] for place in places]
        labels = [self.label(sample.relevance).to(device) for sample in samples]
        inputs = [
            self._augmented(place, sample.mapper_input()).to(device)
            for place, sample in zip(places, samples, strict=True)
        ]
        return label_divergence(labels, self.model(inputs))

    def _augmented(self, place: int, item: MapperInput) -> MapperInput:
        """This epoch's variant of a sample, the same on every process."""
        options = self.options
        if not (options.random_flip or options.head_dropout or options.noise):
            return item
        epoch = (options.seed + 1) * 100_003 + len(self.history)
        generator = torch.Generator().manual_seed((epoch * len(self.samples) + place) % 2**63)
        return augment(
            item,
            generator,
            random_flip=options.random_flip,
            head_dropout=options.head_dropout,
            noise=options.noise,
        )

    @torch.no_grad()
    def _measure(self) -> dict[str, float]:
        state = self.accelerator
        self.model.eval()
        names = ["kl", *(f"recall_{share:.0%}"[:-1] for share in RECALL_SHARES), "rank_correlation"]
        sums = torch.zeros(len(names), dtype=torch.float64, device="cpu")
        own = self.measured[state.process_index :: state.num_processes]
        model = state.unwrap_model(self.model)
        size = self.options.train_batch_size
        for start in range(0, len(own), size):
            samples = [self.samples[place] for place in own[start : start + size]]
            inputs = [sample.mapper_input().to(state.device) for sample in samples]
            for sample, logits in zip(samples, model(inputs), strict=True):
                found = logits.cpu()
                values = [
                    float(label_divergence([self.label(sample.relevance)], [found])),
                    *(top_recall(found, sample.relevance, share) for share in RECALL_SHARES),
                    rank_correlation(found, sample.relevance),
                ]
                sums += torch.tensor(values, dtype=torch.float64)
        sums = state.reduce(sums.float().to(state.device)).double().cpu()
        return dict(zip(names, (sums / len(self.measured)).tolist(), strict=True))

    def _set_learning_rate(self, step: int) -> None:
        steps = self.options.epochs * self.steps_per_epoch
        warmup = max(1, round(self.options.warmup_ratio * steps))
        if step < warmup:
            factor = (step + 1) / warmup
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * factor

    def _weights(self) -> dict[str, Tensor]:
        model = self.accelerator.unwrap_model(self.model)
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def checkpoint(self) -> Checkpoint:
        """Everything that the next epoch depends on."""
        return Checkpoint(
            weights=self._weights(),
            best=self.best,
            optimizer=self.optimizer.state_dict()["state"],
            history=[asdict(epoch) for epoch in self.history],
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after the epoch of a checkpoint."""
        self.accelerator.unwrap_model(self.model).load_state_dict(checkpoint.weights)
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**state, "state": checkpoint.optimizer})
        self.best = checkpoint.best
        self.history = [Epoch(**epoch) for epoch in checkpoint.history]

    def best_mapper(self) -> RelevanceMapper:
        """The mapper of the best epoch, or of the last one."""
        epoch = self.history[-1]
        if self.options.keep_best:
            epoch = min(self.history, key=lambda item: item.metrics["kl"])
        mapper = RelevanceMapper(self._config({"best_epoch": epoch.number, **epoch.metrics}))
        mapper.load_state_dict(self.best)
        return mapper.to(self.accelerator.device).eval()

    def _config(self, metrics: Mapping[str, Any]) -> MapperConfig:
        options = self.samples.options
        data = [collection["data"] for collection in self.samples.described]
        own = self.options.to_dict()
        own.pop("inputs", None)
        return MapperConfig(
            base_model=self.samples.identity,
            network=own.pop("network"),
            network_options=own.pop("network_options"),
            inputs=self.inputs,
            modality=options["modality"],
            scoring_depth=options["scoring_depth"],
            training={
                "data": data if len(data) > 1 else data[0],
                "samples": len(self.samples),
                "validation_samples": len(self.measured),
                "relevance": {name: options[name] for name in LABEL_OPTIONS},
                "instruction": options["instruction"],
                **own,
            },
            metrics=dict(metrics),
            versions={
                "hf_token_compress": __version__,
                "torch": version("torch"),
                "transformers": version("transformers"),
            },
        )


def _default_inputs(samples: JoinedCollections, network: str) -> tuple[str, ...]:
    """All that the collections hold; of the paper's network, what the paper gives it."""
    return ("attention",) if network == "conv1d" else samples.inputs


def read_history(folder: str | Path) -> list[Epoch]:
    """The history that a finished training wrote.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    path = Path(folder) / HISTORY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Epoch(**epoch) for epoch in content["epochs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}): train again, which goes on from the checkpoint "
            "and writes it anew."
        ) from error
