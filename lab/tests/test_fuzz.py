"""Random prompts: none is wrong, and planted errors are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hf_token_compress.compression import rewriting
from hf_token_compress.selection import keep_mask
from lab.fuzz.__main__ import main
from lab.fuzz.draws import draw_trial


def test_thirty_prompts_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    models = "qwen2-vl,vila,qwen2_vl,qwen3_vl,llava_onevision,vila15"
    assert main(["--prompts", "30", "--models", models]) == 0
    assert "30 prompts checked, 0 wrong" in capsys.readouterr().out


def one_more(budget: Callable[..., int]) -> Callable[..., int]:
    return lambda count, config: min(count, budget(count, config) + 1)


def two_swapped(ordered_positions: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(keep: Any, side: Any, longest: int) -> Any:
        index = ordered_positions(keep, side, longest).clone()
        index[0, -2:] = index[0, -2:].flip(0)
        return index

    return wrong


def one_position_off(make: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(inputs: Any, *args: Any, **more: Any) -> Any:
        positions = inputs["position_ids"].clone()
        if positions.ndim == 3:  # of several axes
            positions[..., -1] += 1
        return make({**inputs, "position_ids": positions}, *args, **more)

    return wrong


@pytest.mark.parametrize(
    ("module", "name", "plant", "check"),
    [
        (keep_mask, "visual_token_budget", one_more, "budgets: "),
        (rewriting, "ordered_positions", two_swapped, "hidden: "),
        (rewriting, "CompressedInputs", one_position_off, "hidden: "),
    ],
)
def test_a_planted_error_is_found(
    module: Any,
    name: str,
    plant: Callable[..., Any],
    check: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, name, plant(getattr(module, name)))
    arguments = ["--models", "qwen2_vl", "--seed", "1"]
    assert main([*arguments, "--prompts", "8"]) == 1
    printed = capsys.readouterr().out
    assert check in printed
    # The command that it prints shows the same again.
    command = printed.split("is wrong: python -m lab.fuzz ")[1].splitlines()[0]
    assert main(command.split()) == 1
    assert capsys.readouterr().out.splitlines()[:-1] == _first_report(printed)


def _first_report(printed: str) -> list[str]:
    lines = printed.splitlines()
    later = [number for number, line in enumerate(lines[1:], 1) if not line.startswith(" ")]
    return lines[: later[0]]


def test_a_prompt_follows_from_seed_and_number() -> None:
    assert draw_trial(3, 7) == draw_trial(3, 7)
    assert draw_trial(3, 7) != draw_trial(4, 7)


def test_unknown_models_are_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--models", "nothing"])
