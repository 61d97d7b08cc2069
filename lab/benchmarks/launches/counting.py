"""Count what the forward of whole prompts launches, and where the host waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hf_token_compress import TokenCompressionConfig, compress, uncompress
from hf_token_compress.compression.identity import identify
from hf_token_compress.config import Modality
from hf_token_compress.mapper import MapperConfig, RelevanceMapper
from hf_token_compress.mapper.inputs import INPUTS

from .pretended import Event, Recorder, module_on_device, on_device
from .subjects import Subject

NETWORKS = ("conv1d", "grid")
SETTINGS = (
    "uniform",
    "attention",
    "attention diverse",
    "attention top_p",
    "gated_fusion",
    "gated_fusion diverse",
    "conv1d",
    "conv1d diverse",
    "grid",
    "grid diverse",
)
"""A scorer, or the network of a mapper ("grid" with all inputs), and how tokens are selected: those
with the highest scores by default."""


@dataclass(frozen=True)
class Counts:
    """The operations of a call, in order."""

    events: Sequence[Event]

    @property
    def launches(self) -> int:
        """Operations that launch kernels."""
        return sum(event.kind == "launch" for event in self.events)

    @property
    def syncs(self) -> int:
        """Operations that the host waits for."""
        return sum(event.kind == "sync" for event in self.events)

    def by_phase(self) -> Counter[tuple[str, str]]:
        """Operations of each phase and kind."""
        return Counter((event.phase, event.kind) for event in self.events)

    def waits(self) -> Counter[str]:
        """Synchronisations of each line, with the phase and the reason."""
        return Counter(
            f"{event.line}: {event.reason} [{event.phase}]"
            for event in self.events
            if event.kind == "sync"
        )

    def waits_beyond(self, stock: Counts) -> Counter[str]:
        """Those of lines of the library, and more than stock's of lines of Transformers."""

        def stripped(counts: Counter[str]) -> Counter[str]:
            # The library may stand between, or call at another place.
            found: Counter[str] = Counter()
            for line, times in counts.items():
                found[line.rsplit(" > ", 1)[-1].rsplit(" [", 1)[0]] += times
            return found

        more = stripped(self.waits()) - stripped(stock.waits())
        return Counter(
            {
                line: more[own]
                for line in self.waits()
                if (own := line.rsplit(" > ", 1)[-1].rsplit(" [", 1)[0]) in more
            }
        )


class Counting:
    """Counts calls of one model.

    Args:
        subject: The model and its prompts.
        modality: What the prompts show.
    """

    def __init__(self, subject: Subject, modality: Modality) -> None:
        self._subject, self._modality = subject, modality
        self._identity = identify(subject.model)
        self._recorder = Recorder()
        with self._recorder.running():
            module_on_device(subject.model)

    @torch.no_grad()
    def prefill(self, setting: str | None, batch: int) -> Counts:
        """Count the forward of prompts; what is computed once per model is left out.

        Args:
            setting: One of `SETTINGS`; a quarter of the visual tokens is kept. None for the stock
                model.
            batch: Number of prompts.
        """
        with self._recorder.running(), self._compressed(setting) as model:
            inputs = on_device(self._subject.inputs(batch))
            model(**inputs, logits_to_keep=1)
            return self._counted(lambda: model(**inputs, logits_to_keep=1))

    @torch.no_grad()
    def decode(self, setting: str | None, batch: int) -> Counts:
        """Count the last step of `generate`; arguments as for `prefill`."""
        with self._recorder.running(), self._compressed(setting) as model:
            inputs = on_device(self._subject.inputs(batch))
            ends: list[int] = []

            def step_ends(module: Any, args: Any, output: Any) -> None:
                ends.append(len(self._recorder.events))

            handle = model.register_forward_hook(step_ends)
            try:
                counts = self._counted(
                    lambda: model.generate(**inputs, max_new_tokens=3, do_sample=False)
                )
            finally:
                handle.remove()
            return Counts(counts.events[ends[-2] : ends[-1]])

    def _counted(self, call: Any) -> Counts:
        self._recorder.events.clear()
        call()
        return Counts(self._recorder.events.copy())

    @contextmanager
    def _compressed(self, setting: str | None) -> Iterator[Any]:
        model = self._subject.model
        if setting is None:
            yield model
            return
        scorer, _, selection = setting.partition(" ")
        network = scorer if scorer in NETWORKS else None
        config = TokenCompressionConfig(
            retention_ratio=0.25,
            scorer="attention" if network else scorer,
            selection="diverse" if selection == "diverse" else "top_k",
            top_p=0.5 if selection == "top_p" else None,
        )
        compress(model, config)
        try:
            if network:
                mapper = module_on_device(self._mapper(network))
                model.token_compression.use_mapper(mapper)
            yield model
        finally:
            uncompress(model)

    def _mapper(self, network: str) -> RelevanceMapper:
        torch.manual_seed(0)
        # The paper's network sees attention alone.
        inputs = tuple(INPUTS) if network == "grid" else ("attention",)
        config = MapperConfig(
            self._identity, network=network, modality=self._modality, inputs=inputs
        )
        return RelevanceMapper(config).eval()
