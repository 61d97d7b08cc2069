"""The settings: their ranges, their JSON form, and what an older or broken file gives."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from errors import one_sentence
from hypothesis import given
from hypothesis import strategies as st

from hf_token_compress import TokenCompressionConfig, __version__

pytestmark = pytest.mark.core

shares = st.floats(min_value=0.0, max_value=1.0, exclude_min=True)
settings = st.builds(
    TokenCompressionConfig,
    retention_ratio=shares,
    min_visual_tokens=st.integers(0, 10**6),
    max_visual_tokens=st.none() | st.integers(1, 10**6),
    min_tokens_per_visual=st.integers(0, 10**3),
    min_tokens_per_frame=st.integers(0, 10**3),
    structure_share=st.just(0.0) | shares,
    top_p=st.none() | shares,
    scorer=st.none() | st.just("random"),
    scorer_options=st.dictionaries(st.text(), st.integers() | st.text() | st.booleans()),
    position_ids=st.sampled_from(["original", "grid", "compact"]),
    instruction=st.sampled_from(["last_turn", "after_visual", "all_text"]),
)


@given(settings)
def test_json_round_trip(config: TokenCompressionConfig) -> None:
    assert TokenCompressionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TokenCompressionConfig.coerce(config.to_dict()) == config
    assert TokenCompressionConfig.coerce(config) is config


def test_a_setting_saved_before_an_option_existed_is_as_it_was() -> None:
    written = TokenCompressionConfig(retention_ratio=0.3).to_dict()
    del written["structure_share"], written["selection"]
    before = TokenCompressionConfig(
        retention_ratio=0.3, structure_share=0.0, scorer="attention", selection="top_k"
    )
    assert TokenCompressionConfig.from_dict(written) == before
    # What a user writes has no version, and takes today's defaults.
    by_hand = TokenCompressionConfig.from_dict({"retention_ratio": 0.3})
    assert by_hand == TokenCompressionConfig(retention_ratio=0.3)


def test_the_written_form_names_the_version_that_wrote_it() -> None:
    assert TokenCompressionConfig().to_dict()["hf_token_compress_version"] == __version__


def test_keys_of_this_version_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TokenCompressionConfig.from_dict(TokenCompressionConfig().to_dict())


def test_unknown_keys_warn_with_their_names_and_are_ignored() -> None:
    written = {**TokenCompressionConfig(retention_ratio=0.3).to_dict(), "zoom": 1, "aura": 2}
    written["hf_token_compress_version"] = "42.0"
    with pytest.warns(UserWarning, match=r"version 42\.0.*aura, zoom") as caught:
        config = TokenCompressionConfig.from_dict(written)
    assert len(caught) == 1
    assert config == TokenCompressionConfig(retention_ratio=0.3)


@pytest.mark.parametrize(
    ("written", "reading", "later"),
    [
        ("0.2.0.dev0", "0.1.0", True),
        ("0.1.0", "0.1.0.dev0", True),
        ("0.1.0.dev0", "0.1.0", False),
        ("0.1.0", "0.2.0.dev0", False),
        ("0.9.0", "0.10.0.dev0", False),
    ],
)
def test_a_development_version_is_between_the_releases(
    written: str, reading: str, later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_token_compress.config.__version__", reading)
    settings = {"hf_token_compress_version": written, "aura": 2}
    if later:
        with pytest.warns(UserWarning, match=rf"version {re.escape(written)}.*aura"):
            TokenCompressionConfig.from_dict(settings)
    else:
        with one_sentence(ValueError, "aura"):
            TokenCompressionConfig.from_dict(settings)


@pytest.mark.parametrize("version", [None, "0.0.1", __version__, "no version"])
def test_an_unknown_setting_is_refused_and_the_nearest_named(version: Any) -> None:
    written = {"hf_token_compress_version": version}
    with one_sentence(ValueError, "'max_visual_token'", "nearest is 'max_visual_tokens'"):
        TokenCompressionConfig.coerce({**written, "max_visual_token": 256})
    with one_sentence(ValueError, "no setting 1:", "retention_ratio, "):
        TokenCompressionConfig.from_dict({**written, 1: 2})  # type: ignore[dict-item]


def test_an_older_file_with_fewer_keys_takes_the_defaults() -> None:
    assert TokenCompressionConfig.from_dict({"retention_ratio": 0.3}) == TokenCompressionConfig(
        retention_ratio=0.3
    )


def test_scorer_by_default_is_the_one_that_needs_no_training_or_the_named_mapper() -> None:
    assert TokenCompressionConfig().scorer_name == "gated_fusion"
    assert TokenCompressionConfig(top_p=0.9).scorer_name == "attention"  # it needs shares
    assert TokenCompressionConfig(mapper="folder").scorer_name == "mapper"
    assert TokenCompressionConfig(scorer="random").scorer_name == "random"
    assert TokenCompressionConfig.coerce("folder") == TokenCompressionConfig(mapper="folder")


@pytest.mark.parametrize(
    ("settings", "selection"),
    [
        ({}, "diverse"),
        ({"scorer": "gated_fusion"}, "diverse"),
        ({"top_p": 0.9}, "top_k"),  # it adds up scores
        ({"selection": "top_k"}, "top_k"),
        ({"scorer": "attention"}, "top_k"),
        ({"scorer": "attention", "selection": "diverse"}, "diverse"),
        ({"mapper": "folder"}, "top_k"),
    ],
)
def test_the_default_scorer_has_the_diverse_selection(
    settings: dict[str, Any], selection: str
) -> None:
    assert TokenCompressionConfig(**settings).selection_name == selection


@pytest.mark.parametrize("name", ["retention_ratio", "top_p"])
@pytest.mark.parametrize("value", [0, 0.0, -0.1, 2, 1.0001, float("nan"), float("inf")])
def test_shares_out_of_range(name: str, value: Any) -> None:
    with one_sentence(ValueError, name):
        TokenCompressionConfig(**{name: value})


@pytest.mark.parametrize("name", ["retention_ratio", "top_p"])
@pytest.mark.parametrize("value", ["0.5", True, [0.5], 0.5j])
def test_shares_of_the_wrong_type(name: str, value: Any) -> None:
    with one_sentence(TypeError, name):
        TokenCompressionConfig(**{name: value})


def test_retention_ratio_cannot_be_left_empty() -> None:
    with one_sentence(TypeError, "retention_ratio"):
        TokenCompressionConfig(retention_ratio=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_visual_tokens", -1),
        ("max_visual_tokens", 0),
        ("min_tokens_per_visual", -3),
        ("min_tokens_per_frame", -1),
    ],
)
def test_counts_out_of_range(name: str, value: int) -> None:
    with one_sentence(ValueError, name):
        TokenCompressionConfig(**{name: value})


@pytest.mark.parametrize(
    "name",
    ["min_visual_tokens", "max_visual_tokens", "min_tokens_per_visual", "min_tokens_per_frame"],
)
@pytest.mark.parametrize("value", [1.5, "3", True])
def test_counts_of_the_wrong_type(name: str, value: Any) -> None:
    with one_sentence(TypeError, name):
        TokenCompressionConfig(**{name: value})


@pytest.mark.parametrize("name", ["scorer", "mapper", "mapper_revision"])
def test_names_of_the_wrong_type(name: str) -> None:
    with one_sentence(TypeError, name):
        TokenCompressionConfig(**{name: 3})


@pytest.mark.parametrize(
    ("name", "value"), [("position_ids", "compressed"), ("instruction", "first_turn")]
)
def test_choices(name: str, value: str) -> None:
    with one_sentence(ValueError, name):
        TokenCompressionConfig(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("position_ids", ["compact"]), ("instruction", {})])
def test_choices_of_the_wrong_type(name: str, value: Any) -> None:
    with one_sentence(ValueError, name):
        TokenCompressionConfig(**{name: value})


def test_scorer_options_of_the_wrong_type() -> None:
    with one_sentence(TypeError, "scorer_options"):
        TokenCompressionConfig(scorer_options=[("seed", 1)])  # type: ignore[arg-type]


def test_a_mapper_scorer_without_a_mapper() -> None:
    with one_sentence(ValueError, "mapper"):
        TokenCompressionConfig(scorer="mapper")


def test_a_mapper_that_the_scorer_does_not_use() -> None:
    with one_sentence(ValueError, "some/mapper"):
        TokenCompressionConfig(scorer="random", mapper="some/mapper")


def test_a_revision_without_a_mapper() -> None:
    with one_sentence(ValueError, "mapper_revision"):
        TokenCompressionConfig(mapper_revision="main")


def test_top_p_with_another_selection() -> None:
    with one_sentence(ValueError, "top_p", "selection"):
        TokenCompressionConfig(top_p=0.5, selection="diverse")
    with one_sentence(ValueError, "top_p", "selection='diverse'"):
        TokenCompressionConfig(top_p=0.5, scorer="gated_fusion")


def test_a_wrong_value_after_a_change_is_found_too() -> None:
    with one_sentence(ValueError, "retention_ratio"):
        dataclasses.replace(TokenCompressionConfig(), retention_ratio=7)


@pytest.mark.parametrize(
    ("value", "found"), [(True, "True"), (False, "False"), ([0.5], "list"), (None, "NoneType")]
)
def test_something_else_than_a_setting(value: Any, found: str) -> None:
    with one_sentence(TypeError, "token_compression", f"not {found}"):
        TokenCompressionConfig.coerce(value)


def test_a_number_is_the_retention_ratio() -> None:
    assert TokenCompressionConfig.coerce(0.25) == TokenCompressionConfig(retention_ratio=0.25)
    with one_sentence(ValueError, "retention_ratio"):
        TokenCompressionConfig.coerce(25)


def test_a_number_as_text_is_no_mapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("0.5", " 25%", "25 %", "1"):
        with one_sentence(ValueError, repr(text), "0.25"):
            TokenCompressionConfig.coerce(text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "25").mkdir()
    assert TokenCompressionConfig.coerce("25").mapper == "25"  # a folder of that name


def test_a_warning_names_the_line_of_its_user() -> None:
    written = {"hf_token_compress_version": "99.0", "warp_factor": 9}
    with pytest.warns(UserWarning, match="warp_factor") as found:
        TokenCompressionConfig.coerce(written)
    assert [Path(warning.filename) for warning in found] == [Path(__file__)]


def test_changes_keep_the_rest_but_no_options_of_another_scorer() -> None:
    config = TokenCompressionConfig(
        retention_ratio=0.3, scorer="random", scorer_options={"seed": 3}, top_p=0.5
    )
    assert config.changed({"top_p": None}) == dataclasses.replace(config, top_p=None)
    assert config.changed(0.7) == dataclasses.replace(config, retention_ratio=0.7)
    assert config.changed({"scorer_options": {}}) == dataclasses.replace(config, scorer_options={})
    assert config.changed({"scorer": "random"}) == config
    default = TokenCompressionConfig(retention_ratio=0.3, top_p=0.5)
    assert config.changed({"scorer": None}) == default
    named = dataclasses.replace(default, mapper="some/mapper", mapper_revision="v1")
    assert config.changed({"mapper": "some/mapper", "mapper_revision": "v1"}) == named
    assert named.changed("other/mapper") == dataclasses.replace(default, mapper="other/mapper")
    assert named.changed({"scorer": "mapper"}) == dataclasses.replace(named, scorer="mapper")
    assert named.changed({"scorer": "uniform"}) == dataclasses.replace(default, scorer="uniform")
    whole = TokenCompressionConfig(top_p=0.1)
    assert config.changed(whole) is whole


def test_it_is_a_dict_of_its_settings_that_cannot_be_changed() -> None:
    config = TokenCompressionConfig(
        retention_ratio=0.25, scorer="random", scorer_options={"seed": 3}
    )
    assert json.loads(json.dumps(config)) == config.to_dict() == dict(config)
    changes: list[Any] = [
        lambda: config.__setitem__("retention_ratio", 0.5),
        lambda: config.__delitem__("retention_ratio"),
        lambda: config.pop("retention_ratio"),
        lambda: config.update(retention_ratio=0.5),
        lambda: config.clear(),
    ]
    for change in changes:
        with one_sentence(TypeError, "replace"):
            change()
    for copied in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert copied == config
        assert type(copied) is TokenCompressionConfig
        assert copied.scorer_options == {"seed": 3}
    assert config != TokenCompressionConfig(retention_ratio=0.5)


def test_options_are_those_at_the_time_of_the_call() -> None:
    options = {"seed": 1}
    config = TokenCompressionConfig(scorer="random", scorer_options=options)
    options["seed"] = 2
    assert config.scorer_options == config["scorer_options"] == {"seed": 1}


def test_all_choices_of_a_setting_are_named() -> None:
    with one_sentence(ValueError, "'last_turn', 'after_visual' or 'all_text'"):
        TokenCompressionConfig(instruction="none")  # type: ignore[arg-type]
