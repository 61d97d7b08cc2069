"""The runner of the cases."""

from __future__ import annotations

import json
import re

import pytest

from lab.cases import __main__ as runner
from lab.cases.outcome import RIGHT, SKIPPED, WRONG


def test_every_case_is_recorded_and_says_what_is_right() -> None:
    recorded = json.loads(runner.EXPECTED.read_text(encoding="utf-8"))
    assert sorted(recorded) == runner.case_names()
    assert set(recorded.values()) <= {RIGHT, WRONG}
    for name in runner.case_names():
        assert re.fullmatch(r".+[.,:]", runner.what_is_right(name)), name


def test_a_case_ends_as_recorded() -> None:
    name = "files/scorer_options"
    expected = json.loads(runner.EXPECTED.read_text(encoding="utf-8"))[name]
    assert runner.main([name]) == 0
    found = runner.run_case(name, time_limit=300)
    assert found.status == expected


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("report(lambda: iter(()))", RIGHT),
        ("report(lambda: iter(['one thing']))", WRONG),
        ("raise ValueError('1')", "crashed"),
        ("import time; time.sleep(600)", "out of time"),
        ("from json import nothing_of_this_name", "crashed"),
        ("raise ModuleNotFoundError(\"No module named 'peft'\")", SKIPPED),
    ],
)
def test_how_a_case_ends(code: str, status: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("made", "made/cases"):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
    text = f"from lab.cases.outcome import report\n{code}\n"
    (tmp_path / "made" / "cases" / "one.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(runner.CHECKOUT))
    monkeypatch.setattr(runner, "CHECKOUT", tmp_path)
    monkeypatch.setattr(runner, "__package__", "made")
    found = runner.run_case("cases/one", time_limit=60)
    assert found.status == status, found


def test_unknown_cases_are_refused() -> None:
    with pytest.raises(SystemExit):
        runner.main(["nothing/of/this/name"])
