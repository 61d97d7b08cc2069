"""Mappers on the Hub: the real client against a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Hub, Repository, files_in, hub_server
from huggingface_hub import ModelCard
from mappers import make_mapper
from places import SUPPORT
from tiny_models import tiny_model

from hf_token_compress import compress
from hf_token_compress.compression.identity import identify
from hf_token_compress.mapper import MapperConfig, MapperSet, RelevanceMapper

NAME = "owner/mapper"
MAPPER_FILES = {"config.json", "model.safetensors"}
UNREACHABLE = "http://127.0.0.1:9"
"""A port without a listener."""
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_server() as server:
        yield server


def client(hub: Hub, cache: Path, **variables: str) -> subprocess.Popen[str]:
    hidden = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "hub_client.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "HF_ENDPOINT": hub.address, "HF_HOME": str(cache), **variables},
    )


def asking(process: subprocess.Popen[str]) -> Ask:
    def ask(action: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"action": action, "arguments": arguments, "options": options}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    return ask


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ask(hub: Hub, cache: Path) -> Iterator[Ask]:
    """A client that is not logged in."""
    process = client(hub, cache)
    yield asking(process)
    process.communicate()


@pytest.fixture(scope="module")
def commits(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two commits of a mapper: the first is tagged v1."""
    hub.repositories[NAME] = Repository()
    found = []
    for number, names in enumerate((("v1",), ())):
        folder = tmp_path_factory.mktemp("mapper")
        make_mapper(seed=number).save_pretrained(folder)
        found.append(hub.repositories[NAME].commit(files_in(folder), *names))
    return found


def first_weights(seed: int) -> list[float]:
    return next(make_mapper(seed=seed).parameters()).flatten()[:4].tolist()


def assert_failed(found: dict[str, Any], kind: str, word: str) -> None:
    """The call failed with this type, and with one sentence that has this word."""
    assert found["error"] == kind, found
    assert "\n" not in found["message"]
    assert found["message"].endswith(".")
    assert word in found["message"], found


def test_a_mapper_is_loaded_by_id_and_revision(ask: Ask, commits: list[str]) -> None:
    expected = {"source": NAME, "revision": None, "weights": first_weights(1)}
    assert ask("pull", NAME) == expected
    for revision in ("v1", commits[0]):
        expected = {"source": NAME, "revision": revision, "weights": first_weights(0)}
        assert ask("pull", NAME, revision=revision) == expected
    assert ask("pull", NAME, revision=commits[1])["weights"] == first_weights(1)
    assert ask("set", NAME, revision="v1") == {"modalities": ["image"]}


def test_a_cached_mapper_loads_without_the_hub(
    hub: Hub, cache: Path, ask: Ask, commits: list[str]
) -> None:
    ask("pull", NAME)
    ask("pull", NAME, revision="v1")
    before = len(hub.requests)
    process = client(hub, cache, HF_HUB_OFFLINE="1")
    offline = asking(process)
    assert offline("pull", NAME)["weights"] == first_weights(1)
    assert offline("pull", NAME, revision="v1")["weights"] == first_weights(0)
    missing = offline("pull", "owner/never-pulled")
    process.communicate()
    assert_failed(missing, "MapperNotFoundError", "cache")
    assert len(hub.requests) == before


def test_a_revision_that_does_not_exist(ask: Ask, commits: list[str]) -> None:
    assert_failed(ask("pull", NAME, revision="v9"), "MapperNotFoundError", "v9")


def test_a_name_that_does_not_exist(ask: Ask, commits: list[str]) -> None:
    for name in ("owner/nothing", "not a Hub id!"):
        assert_failed(ask("set", name), "MapperNotFoundError", name)


def test_a_private_mapper_needs_its_owner(
    hub: Hub, ask: Ask, commits: list[str], tmp_path: Path
) -> None:
    repository = hub.repositories[NAME]
    hub.repositories["owner/private"] = Repository(True, repository.commits, repository.revisions)
    assert_failed(ask("pull", "owner/private"), "MapperNotFoundError", "hf auth login")
    assert ask("pull", "owner/private", token=TOKEN)["weights"] == first_weights(1)


@pytest.mark.parametrize("way", ["cut", "changed"])
def test_a_broken_download_is_refused(way: str, hub: Hub, ask: Ask, commits: list[str]) -> None:
    name = f"owner/{way}"
    repository = hub.repositories[NAME]
    hub.repositories[name] = Repository(
        False, repository.commits, repository.revisions, {"model.safetensors": way}
    )
    found = ask("pull", name)
    if way == "cut":
        assert_failed(found, "MapperNotFoundError", name)
    else:
        assert_failed(found, "ValueError", "SHA-256")
    hub.repositories[name].broken.clear()
    assert ask("pull", name, force_download=True)["weights"] == first_weights(1)


def test_a_repository_without_a_mapper(hub: Hub, ask: Ask, commits: list[str]) -> None:
    hub.repositories["owner/empty"] = Repository()
    hub.repositories["owner/empty"].commit({"README.md": b"# Nothing here"})
    assert_failed(ask("set", "owner/empty"), "MapperNotFoundError", "config.json")


def test_a_pickle_is_not_loaded(hub: Hub, ask: Ask, commits: list[str]) -> None:
    files = dict(hub.repositories[NAME].commits[commits[0]])
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.repositories["owner/pickle"] = Repository()
    hub.repositories["owner/pickle"].commit(files)
    before = len(hub.requests)
    assert_failed(ask("pull", "owner/pickle"), "MapperNotFoundError", "model.safetensors")
    assert not any("pytorch_model.bin" in path for _, path in hub.requests[before:])


def fetched(hub: Hub, since: int) -> list[str]:
    """Files that were downloaded, in order."""
    found = [path for method, path in hub.requests[since:] if method == "GET"]
    return [
        path.partition("/resolve/")[2].partition("/")[2] for path in found if "/resolve/" in path
    ]


def test_an_ordinary_model_costs_one_config(hub: Hub, ask: Ask) -> None:
    """However large it is; a mapper that cannot be built costs its config alone too."""
    mapper = make_mapper().config.to_dict()
    configs = {
        "plain": {"model_type": "qwen2_vl"},
        "unbuildable": {**mapper, "network_options": {"channels": 10**9}},
        "later": {**mapper, "network": "transformer"},
    }
    for kind, config in configs.items():
        hub.repositories[f"owner/{kind}"] = Repository()
        files = dict.fromkeys(("model.safetensors", "model-1.safetensors", "a.json"), b"0" * 100)
        files |= {"image/notes.json": b"{}", "vision/config.json": b"{}", "tokenizer.json": b"{}"}
        hub.repositories[f"owner/{kind}"].commit(
            {"config.json": json.dumps(config).encode(), **files}
        )
        since = len(hub.requests)
        assert_failed(ask("set", f"owner/{kind}"), "ValueError", f"owner/{kind}")
        assert fetched(hub, since) == ["config.json"]


def test_only_the_two_files_of_a_mapper_are_fetched(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    """Its configs first; those of a model that holds its mappers too."""
    image, video = make_mapper(seed=1), make_mapper(seed=2, modality="video")
    MapperSet({"video": video, "image": image}, "both").save_pretrained(tmp_path)
    inside = {f"{part}/{name}" for part in ("image", "video") for name in MAPPER_FILES}
    model = {"config.json": b'{"model_type": "qwen2_vl"}', "model.safetensors": b"large"}
    for kind, outside in (("alone", {}), ("model", model)):
        hub.repositories[f"owner/{kind}"] = Repository()
        files = {**files_in(tmp_path), "history.json": b"{}", "optimizer.safetensors": b"large"}
        hub.repositories[f"owner/{kind}"].commit({**files, **outside})
        since = len(hub.requests)
        assert ask("set", f"owner/{kind}") == {"modalities": ["image", "video"]}
        found = fetched(hub, since)
        assert set(found) == inside | ({"config.json"} & set(outside))
        configs = [name.endswith("config.json") for name in found]
        assert configs == sorted(configs, reverse=True)
    alone = hub.repositories["owner/alone"]
    hub.repositories["owner/part"] = Repository(False, alone.commits, alone.revisions)
    since = len(hub.requests)
    assert ask("pull", "owner/part", subfolder="video")["weights"] == first_weights(2)
    assert fetched(hub, since) == ["video/config.json", "video/model.safetensors"]


def test_a_model_folder_fetches_its_mapper_as_the_caller_says(
    hub: Hub, ask: Ask, tmp_path: Path
) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    RelevanceMapper(MapperConfig(identify(model))).save_pretrained(tmp_path / "mapper")
    hub.repositories["owner/named"] = Repository(private=True)
    hub.repositories["owner/named"].commit(files_in(tmp_path / "mapper"), "v2")
    path = tmp_path / "model" / "config.json"
    setting = {"mapper": "owner/named", "mapper_revision": "v2"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "token_compression": setting}))
    folder, since = str(tmp_path / "model"), len(hub.requests)

    found = ask("model", folder, token=TOKEN, local_files_only=True)
    assert_failed(found, "MapperNotFoundError", "token_compression=False")
    assert ask("model", folder, token_compression=False) == {"scorer": None, "log": []}
    assert len(hub.requests) == since
    assert_failed(ask("model", folder), "MapperNotFoundError", "owner/named")
    assert fetched(hub, since) == []

    cache = str(tmp_path / "cache")
    found = ask("model", folder, token=TOKEN, cache_dir=cache)
    assert found["scorer"] == "mapper"
    (line,) = found["log"]
    assert "'owner/named'" in line
    assert fetched(hub, since) == ["config.json", "model.safetensors"]
    assert (tmp_path / "cache" / "models--owner--named").is_dir()
    assert_failed(ask("model", folder, local_files_only=True), "MapperNotFoundError", "cache")
    again = ask("model", folder, local_files_only=True, cache_dir=cache)
    assert again["scorer"] == "mapper"
    named = ask("model", folder, token_compression=setting, local_files_only=True)
    assert named["error"] == "MapperNotFoundError"


def test_a_model_on_the_hub_brings_its_mapper_of_the_same_revision(
    hub: Hub, ask: Ask, tmp_path: Path
) -> None:
    model = compress(tiny_model(), {})
    model.token_compression.use_mapper(RelevanceMapper(MapperConfig(identify(model))))
    model.save_pretrained(tmp_path, save_mapper=True)
    hub.repositories["owner/whole"] = Repository(private=True)
    hub.repositories["owner/whole"].commit(files_in(tmp_path), "v1")
    hub.repositories["owner/whole"].commit({"README.md": b"# Moved"})
    since = len(hub.requests)
    found = ask("model", "owner/whole", revision="v1", token=TOKEN)
    assert found["scorer"] == "mapper", found
    mapper = [name for name in fetched(hub, since) if name.startswith("image/")]
    assert mapper == ["image/config.json", "image/model.safetensors"]


@pytest.fixture(scope="module")
def owner(hub: Hub, cache: Path) -> Iterator[Ask]:
    """A client that is logged in."""
    process = client(hub, cache, HF_TOKEN=TOKEN)
    yield asking(process)
    process.communicate()


def newest(hub: Hub, name: str) -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.revisions["main"]]


def test_a_pushed_mapper_loads_and_has_a_card(
    hub: Hub, ask: Ask, owner: Ask, tmp_path: Path
) -> None:
    mapper = make_mapper("conv1d", seed=5)
    mapper.save_pretrained(tmp_path)
    stranger = ask("push", str(tmp_path), "owner/pushed")
    assert stranger["error"] in ("HfHubHTTPError", "LocalTokenNotFoundError")
    assert stranger["origins"] == [[str(tmp_path), None]]
    assert "owner/pushed" not in hub.repositories
    pushed = owner("push", str(tmp_path), "owner/pushed", private=True)
    assert pushed["commit"].startswith(f"{hub.address}/owner/pushed/commit/"), pushed
    assert pushed["origins"] == [["owner/pushed", None]]
    assert hub.repositories["owner/pushed"].private
    files = newest(hub, "owner/pushed")
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    card = ModelCard(files["README.md"].decode())
    assert '"mapper": "owner/pushed"' in card.text
    assert ask("pull", "owner/pushed", token=TOKEN)["weights"] == first_conv_weights(mapper)


def test_saving_can_push_too(hub: Hub, owner: Ask, tmp_path: Path) -> None:
    make_mapper(seed=6).save_pretrained(tmp_path)
    assert owner("save", str(tmp_path)) == {"commit": None}
    saved = owner("save", str(tmp_path), push_to_hub=True, repo_id="owner/saved", private=True)
    assert saved["commit"].startswith(f"{hub.address}/owner/saved/commit/"), saved
    assert hub.repositories["owner/saved"].private
    assert owner("pull", "owner/saved")["weights"] == first_weights(6)


def test_a_push_replaces_the_mappers_of_the_repository(
    hub: Hub, owner: Ask, tmp_path: Path
) -> None:
    """One mapper, then one for images and one for videos, then one mapper again."""
    image, video = make_mapper(seed=1), make_mapper("conv1d", seed=2, modality="video")
    MapperSet({"video": video, "image": image}, "both").save_pretrained(tmp_path / "both")
    make_mapper(seed=3).save_pretrained(tmp_path / "old")
    name = "owner/one"
    owner("push", str(tmp_path / "old"), name)
    hub.repositories[name].commit({**newest(hub, name), "notes.txt": b"mine", "image/a.png": b""})

    assert owner("push", str(tmp_path / "both"), name)["origins"] == [[name, None]]
    weights = {f"{part}/{file}" for part in ("image", "video") for file in MAPPER_FILES}
    assert set(newest(hub, name)) == {"README.md", "notes.txt", "image/a.png", *weights}
    assert owner("set", name) == {"modalities": ["image", "video"]}
    found = owner("pull", name, subfolder="image", force_download=True)
    assert found["weights"] == first_weights(1)
    card = ModelCard(newest(hub, name)["README.md"].decode())
    assert f'"mapper": "{name}"' in card.text
    assert {"image", "video"} <= set(card.data.to_dict()["tags"])
    for mapper in (image, video):
        kind = mapper.config.modality
        assert f"{mapper.parameter_count:,} parameters for {kind}s" in card.text
        assert f"## Network for {kind}s\n\n`{mapper.config.network}` with" in card.text

    hub.repositories[name].revisions["trial"] = hub.repositories[name].revisions["main"]
    pushed = owner("push", str(tmp_path / "old"), name, branch="trial")
    assert pushed["origins"] == [[name, "trial"]]
    assert set(newest(hub, name)) == {"README.md", "notes.txt", "image/a.png", *MAPPER_FILES}
    assert owner("set", name) == {"modalities": ["image"]}
    assert owner("pull", name)["weights"] == first_weights(3)


@pytest.mark.parametrize(
    ("variables", "word"), [({}, "cannot be reached"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")]
)
def test_a_push_without_the_hub(
    variables: dict[str, str], word: str, cache: Path, tmp_path: Path
) -> None:
    make_mapper().save_pretrained(tmp_path)
    process = client(Hub(UNREACHABLE), cache, HF_TOKEN=TOKEN, **variables)
    found = asking(process)("push", str(tmp_path), "owner/mapper")
    process.communicate()
    assert_failed(found, "ConnectionError", word)
    assert found["origins"] == [[str(tmp_path), None]]


def first_conv_weights(mapper: RelevanceMapper) -> list[float]:
    return next(mapper.parameters()).flatten()[:4].tolist()
