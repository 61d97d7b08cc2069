"""Training a mapper: it learns what can be learned, and ends the same however it was run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st
from mappers import IDENTITY, NETWORKS, make_input
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor

from hf_token_compress.mapper import RelevanceMapper, label_divergence, load_mappers
from hf_token_compress.mapper.inputs import INPUTS
from hf_token_compress.training import train
from hf_token_compress.training.metrics import rank_correlation, top_recall
from hf_token_compress.training.shards import (
    CollectedSample,
    Shard,
    ShardFolder,
    shard_path,
    write_index,
    write_shard,
)
from hf_token_compress.training.train import (
    Epoch,
    TrainOptions,
    read_history,
    train_mapper,
)
from hf_token_compress.writing import write_json

pytestmark = pytest.mark.core

SHAPES = ((1, 4, 4), (1, 5, 3), (2, 2, 3))
QUICK = TrainOptions(
    network_options=NETWORKS["grid"], epochs=4, train_batch_size=8, validation_fraction=0.25, seed=3
)


def left_of_the_brightest(item: Any, shape: tuple[int, int, int]) -> Tensor:
    """Relevance that takes a grid to tell: what head 1 sees, one cell to the left."""
    seen = item.attention[0, 1].exp().view(shape)
    return torch.nn.functional.pad(seen, (0, 1))[..., 1:].flatten() + 1e-6


def best_word(item: Any, _: tuple[int, int, int]) -> Tensor:
    """Relevance that only the text similarity tells."""
    return item.text[1].exp()


def write_collection(
    folder: Path,
    count: int,
    first: int = 0,
    nan_in: int | None = None,
    inputs: Sequence[str] | None = INPUTS,
    relevance: Callable[..., Tensor] = left_of_the_brightest,
) -> ShardFolder:
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(first, first + count):
        shape = SHAPES[number % len(SHAPES)]
        item = make_input(shape, seed=number)
        label = relevance(item, shape)
        if number == nan_in:
            label[2] = float("nan")
        samples.append(CollectedSample.of(number, item, label))
    size = 16
    shards = [shard_path(folder, number) for number in range(-(-count // size))]
    for number, path in enumerate(shards):
        write_shard(path, Shard(samples[number * size : (number + 1) * size]))
    write_index(folder, shards)
    options = {
        "modality": "image",
        "scoring_depth": 0,
        "instruction": "last_turn",
        **{"rule": "gae", "rule_options": {}, "targets": "sum", "recursive": False},
    }
    data = {"source": f"{first} to {first + count}"}
    content: dict[str, Any] = {"base_model": IDENTITY.to_dict(), "data": data, "options": options}
    if inputs is not None:
        content["inputs"] = inputs
    write_json(folder / "collection.json", content)
    return ShardFolder(folder)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return write_collection(tmp_path_factory.mktemp("collection"), 40)


def test_grid_learns_what_lies_beside_what_one_head_sees(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "collection", 300)
    options = TrainOptions(
        network_options={"channels": 16, "blocks": 2},
        epochs=25,
        train_batch_size=16,
        learning_rate=5e-3,
    )
    mapper = train_mapper(collection, tmp_path / "mapper", options)
    history = read_history(tmp_path / "mapper")
    first, best = history[0].metrics, mapper.config.metrics
    assert best["kl"] < 0.3 * first["kl"]
    assert best["recall_10"] > 0.8
    assert history[-1].train_loss < 0.3 * history[0].train_loss


def test_grid_learns_from_what_attention_does_not_tell(tmp_path: Path) -> None:
    """Relevance is a function of the text similarity; the attention is noise."""
    collection = write_collection(tmp_path / "collection", 120, relevance=best_word)
    options = TrainOptions(
        network_options={"channels": 16, "blocks": 0}, epochs=20, train_batch_size=16
    )
    for inputs, found in ((None, True), (("attention", "embedding"), False)):
        folder = tmp_path / f"{found}"
        mapper = train_mapper(collection, folder, replace(options, inputs=inputs))
        assert mapper.config.inputs == (inputs or INPUTS)
        assert (mapper.config.metrics["recall_25"] > 0.9) is found


def test_the_network_of_the_paper_sees_attention_unless_told(
    collection: ShardFolder, tmp_path: Path
) -> None:
    paper = TrainOptions(network="conv1d", network_options=NETWORKS["conv1d"], epochs=1)
    assert train_mapper(collection, tmp_path / "paper", paper).config.inputs == ("attention",)
    richer = train_mapper(collection, tmp_path / "richer", replace(paper, inputs=("text",)))
    assert richer.config.inputs == ("text",)
    again = RelevanceMapper.from_pretrained(tmp_path / "richer")
    item = make_input((1, 3, 3))
    assert torch.equal(again([item])[0], richer.cpu()([item])[0])


def test_collections_of_attention_train_mappers_of_attention(
    collection: ShardFolder, tmp_path: Path
) -> None:
    """As earlier versions collected them; a run that one of these began goes on."""
    former = write_collection(tmp_path / "former", 20, first=100, inputs=None)
    assert former[0].text is None
    assert train_mapper(former, tmp_path / "mapper", QUICK).config.inputs == ("attention",)
    both = train_mapper([former, collection], tmp_path / "both", QUICK)
    assert both.config.inputs == ("attention",)
    with one_sentence(ValueError, str(former.folder), "text and embedding", "inputs attention"):
        train_mapper([collection, former], tmp_path / "wanted", replace(QUICK, inputs=INPUTS))
    assert "inputs" not in QUICK.to_dict()
    for wrong in ("text", ("sound",), ()):
        with pytest.raises((TypeError, ValueError), match="inputs"):
            TrainOptions(inputs=wrong)


def test_a_seed_decides_the_weights(collection: ShardFolder, tmp_path: Path) -> None:
    first = train_mapper(collection, tmp_path / "first", QUICK)
    torch.rand(3)  # whatever else draws numbers
    again = train_mapper(collection, tmp_path / "again", QUICK)
    other = train_mapper(collection, tmp_path / "other", TrainOptions(**{**vars(QUICK), "seed": 4}))
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert any(
        not torch.equal(other.state_dict()[name], value)
        for name, value in first.state_dict().items()
    )


AUGMENTED = replace(
    QUICK, random_flip=True, head_dropout=0.3, noise=0.2, weight_decay=0.1, keep_best=False
)


@pytest.mark.parametrize(
    ("stop_after", "options"), [(1, QUICK), (3, QUICK), (2, AUGMENTED)], ids=["1", "3", "augmented"]
)
def test_a_stopped_training_ends_where_it_would_have_ended(
    stop_after: int, options: TrainOptions, collection: ShardFolder, tmp_path: Path
) -> None:
    whole = train_mapper(collection, tmp_path / "whole", options)
    seen: list[int] = []

    class StoppedError(Exception):
        pass

    def stop(epoch: Any) -> None:
        seen.append(epoch.number)
        if epoch.number == stop_after:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_mapper(collection, tmp_path / "parts", options, after_epoch=stop)
    rest: list[int] = []
    parts = train_mapper(
        collection, tmp_path / "parts", options, after_epoch=lambda epoch: rest.append(epoch.number)
    )
    assert seen + rest == [1, 2, 3, 4]
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    histories = [
        json.loads((tmp_path / run / "history.json").read_text()) for run in ("whole", "parts")
    ]
    assert histories[0] == histories[1]


def test_the_weights_with_the_lowest_validation_loss_are_kept(
    collection: ShardFolder, tmp_path: Path
) -> None:
    """A learning rate so high that it gets worse again, and then stops early."""
    options = TrainOptions(
        **{**vars(QUICK), "epochs": 30, "learning_rate": 0.3, "patience": 2, "warmup_ratio": 0.5}
    )
    mapper = train_mapper(collection, tmp_path, options)
    history = read_history(tmp_path)
    losses = [epoch.metrics["kl"] for epoch in history]
    best = losses.index(min(losses)) + 1
    assert len(history) == best + 2 < 30
    assert mapper.config.metrics["best_epoch"] == best
    assert mapper.config.metrics["kl"] == min(losses)
    weights = load_file(tmp_path / "checkpoint.safetensors")
    saved = RelevanceMapper.from_pretrained(tmp_path).state_dict()
    for name, value in saved.items():
        assert torch.equal(weights[f"best/{name}"], value)
    assert any(not torch.equal(weights[f"weights/{name}"], value) for name, value in saved.items())


def test_the_last_weights_are_kept_where_that_is_asked_for(
    collection: ShardFolder, tmp_path: Path
) -> None:
    """A learning rate that rises until it gets worse again."""
    options = replace(
        QUICK, epochs=8, learning_rate=3.0, patience=1, warmup_ratio=1.0, keep_best=False
    )
    mapper = train_mapper(collection, tmp_path, options)
    history = read_history(tmp_path)
    losses = [epoch.metrics["kl"] for epoch in history]
    assert len(history) == 8
    assert min(losses) < losses[-1] == mapper.config.metrics["kl"]


FORMER_NAMES = {
    "mask_ratio": "masked_share",
    "warmup_ratio": "warm_up",
    "validation_fraction": "held_out",
    "random_flip": "mirror",
}


def test_a_training_stored_under_former_names_is_resumed(
    collection: ShardFolder, tmp_path: Path
) -> None:
    finished = train_mapper(collection, tmp_path, QUICK)
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for current, former in FORMER_NAMES.items():
        assert f'"{current}"' in metadata["settings"]
        metadata["settings"] = metadata["settings"].replace(f'"{current}"', f'"{former}"')
    save_file(load_file(path), path, metadata)
    epochs: list[Epoch] = []
    resumed = train_mapper(collection, tmp_path, QUICK, after_epoch=epochs.append)
    assert epochs == []
    for name, value in finished.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_saved_says_how_it_was_made(
    network: str, collection: ShardFolder, tmp_path: Path
) -> None:
    options = TrainOptions(network=network, network_options=NETWORKS[network], epochs=1)
    train_mapper(collection, tmp_path, options)
    config = load_mappers(str(tmp_path)).for_modality("image").config
    assert config.base_model == IDENTITY
    assert config.network == network
    assert config.training["samples"] == 40
    assert config.training["data"] == {"source": "0 to 40"}
    assert config.training["relevance"]["rule"] == "gae"
    assert set(config.metrics) == {
        *("best_epoch", "kl", "recall_50", "recall_25", "recall_10", "rank_correlation")
    }
    assert {"hf_token_compress", "torch", "transformers"} == set(config.versions)


def test_collections_train_together_what_they_train_as_one(
    collection: ShardFolder, tmp_path: Path
) -> None:
    whole = train_mapper(collection, tmp_path / "whole", QUICK)
    parts = [write_collection(tmp_path / "a", 23), write_collection(tmp_path / "b", 17, first=23)]
    joined = train_mapper(parts, tmp_path / "joined", QUICK)
    for name, value in whole.state_dict().items():
        assert torch.equal(joined.state_dict()[name], value), name
    assert joined.config.metrics == whole.config.metrics
    assert joined.config.training["samples"] == 40
    assert joined.config.training["data"] == [{"source": "0 to 23"}, {"source": "23 to 40"}]
    with one_sentence(ValueError, "other data"):
        train_mapper(parts[::-1], tmp_path / "joined", QUICK)


def test_no_file_is_a_pickle(collection: ShardFolder, tmp_path: Path) -> None:
    train_mapper(collection, tmp_path, QUICK)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".safetensors"}


# Bad input


def test_a_label_of_nan(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "collection", 10, nan_in=7)
    with one_sentence(ValueError, "sample 7", "shard-00000.safetensors", "NaN"):
        train_mapper(collection, tmp_path / "mapper", QUICK)


def test_a_training_that_diverges_is_told_and_not_saved(
    collection: ShardFolder, tmp_path: Path
) -> None:
    options = replace(QUICK, learning_rate=1e9)
    with one_sentence(ValueError, "diverged in epoch ", "loss is nan", "learning rate below 1e+09"):
        train_mapper(collection, tmp_path, options)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "history.json").exists()


@pytest.mark.parametrize("poisoned", ["learned", "measured"])
def test_the_checkpoint_before_a_loss_that_is_not_finite_stays(
    poisoned: str, collection: ShardFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    saved: list[bytes] = []

    def infinite(labels: Any, logits: Any) -> Tensor:
        divergence = label_divergence(labels, logits)
        return divergence * float("inf") if divergence.requires_grad == learns else divergence

    def after_epoch(epoch: Epoch) -> None:
        saved.append(file.read_bytes())
        if epoch.number == 2:
            monkeypatch.setattr(train, "label_divergence", infinite)

    learns = poisoned == "learned"
    with one_sentence(ValueError, "diverged in epoch 3", "learning rate"):
        train_mapper(collection, tmp_path, QUICK, after_epoch=after_epoch)
    assert len(saved) == 2
    assert file.read_bytes() == saved[-1]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_another_training_is_not_mixed_in(collection: ShardFolder, tmp_path: Path) -> None:
    train_mapper(collection, tmp_path, QUICK)
    before = (tmp_path / "model.safetensors").read_bytes()
    with one_sentence(ValueError, str(tmp_path), "other options"):
        train_mapper(collection, tmp_path, TrainOptions(**{**vars(QUICK), "epochs": 9}))
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_damaged_checkpoint(collection: ShardFolder, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a checkp")
    with one_sentence(ValueError, "checkpoint", "damaged"):
        train_mapper(collection, tmp_path, QUICK)


def test_too_few_samples(tmp_path: Path) -> None:
    with one_sentence(ValueError, "1 samples", "at least two"):
        train_mapper(write_collection(tmp_path / "collection", 1), tmp_path / "mapper", QUICK)


def test_a_validation_fraction_that_leaves_nothing_to_learn_from(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "collection", 4)
    with one_sentence(ValueError, "validation_fraction"):
        train_mapper(collection, tmp_path / "mapper", replace(QUICK, validation_fraction=0.9))
    assert not (tmp_path / "mapper").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", "transformer"),
        ("mask_ratio", 1.0),
        ("temperature", 0),
        ("epochs", 0),
        ("train_batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("warmup_ratio", 1.1),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("patience", 0),
        ("weight_decay", float("nan")),
        ("head_dropout", 1.0),
        ("noise", -0.1),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_options_out_of_range(name: str, value: Any) -> None:
    with one_sentence(ValueError, f"{name} must be"):
        TrainOptions(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network_options", [("channels", 8)]),
        ("temperature", "1"),
        ("noise", True),
        ("epochs", 1.5),
        ("keep_best", "no"),
        ("random_flip", 1),
        ("seed", None),
    ],
)
def test_options_of_the_wrong_type(name: str, value: Any) -> None:
    with one_sentence(TypeError, f"{name} must be"):
        TrainOptions(**{name: value})


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("base_model", {"heads": 5}, ("attention heads", "3", "5")),
        ("base_model", {"fingerprint": [0.0] * 31 + [1.0]}, ("other weights in layer 0",)),
        ("options", {"modality": "video"}, ("modality", "'image'", "'video'")),
        ("options", {"scoring_depth": 2}, ("scoring_depth", "0", "2")),
        ("options", {"rule": "rollout"}, ("rule", "'gae'", "'rollout'")),
    ],
    ids=["heads", "weights", "modality", "depth", "rule"],
)
def test_collections_that_do_not_go_together(
    part: str,
    changes: dict[str, Any],
    words: tuple[str, ...],
    collection: ShardFolder,
    tmp_path: Path,
) -> None:
    other = write_collection(tmp_path / "other", 4)
    content = {**other.collection, part: {**other.collection[part], **changes}}
    write_json(other.folder / "collection.json", content)
    folders = (str(collection.folder), str(other.folder))
    with one_sentence(ValueError, *folders, "cannot train one mapper", *words):
        train_mapper([collection, ShardFolder(other.folder)], tmp_path / "mapper", QUICK)
    assert not (tmp_path / "mapper").exists()


def test_a_collection_that_is_named_twice(collection: ShardFolder, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(collection.folder)
    with one_sentence(ValueError, str(link), "named twice"):
        train_mapper([collection, ShardFolder(link)], tmp_path / "mapper", QUICK)


def test_no_collection(tmp_path: Path) -> None:
    with one_sentence(ValueError, "no collection"):
        train_mapper([], tmp_path / "mapper", QUICK)


def test_an_unknown_option_of_a_network(collection: ShardFolder, tmp_path: Path) -> None:
    with one_sentence(ValueError, "smell"):
        train_mapper(collection, tmp_path, TrainOptions(network_options={"smell": 1}))
    assert not list(tmp_path.iterdir())


def test_a_collection_of_another_format(collection: ShardFolder, tmp_path: Path) -> None:
    for path in collection.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "format": 99}))
    with one_sentence(ValueError, "format 99"):
        ShardFolder(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "shard-00000.safetensors")
    (tmp_path / "index.json").write_text(json.dumps(index))
    with one_sentence(ValueError, "shard-00000.safetensors"):
        ShardFolder(tmp_path)


# Metrics

values = st.lists(st.integers(0, 6), min_size=2, max_size=30)


@given(pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True))
    found = rank_correlation(first, second)
    if len(first.unique()) == 1 or len(second.unique()) == 1:
        assert found == 0.0
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-6)


@given(scores=values, share=st.floats(0.05, 1))
def test_recall_of_the_truth_itself_is_one(scores: list[int], share: float) -> None:
    relevance = torch.tensor(scores, dtype=torch.float32)
    assert top_recall(relevance, relevance, share) == 1.0


def test_recall_by_hand() -> None:
    relevance = torch.tensor([5.0, 4.0, 3.0, 2.0])
    assert top_recall(torch.tensor([1.0, 0.0, 2.0, 0.0]), relevance, 0.5) == 0.5
    assert top_recall(torch.tensor([0.0, 1.0, 2.0, 3.0]), relevance, 0.5) == 0.0
    assert top_recall(torch.tensor([9.0, 1.0, 2.0, 3.0]), relevance, 0.01) == 1.0
