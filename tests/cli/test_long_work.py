"""Progress of long work, and what is left when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from hf_token_compress.cli import app
from hf_token_compress.cli.console import Counter, counting, with_estimate
from hf_token_compress.cli.errors import stoppable

MODEL = "tiny-qwen2-vl"


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(counter: Counter, clock: Clock, steps: list[tuple[float, int]]) -> list[str]:
    """Lines of a counter that counts an amount after each number of seconds."""
    lines = []
    for seconds, done in steps:
        clock.now += seconds
        counter(done)
        lines.append(counter.next_line())
    return [line for line in lines if line is not None]


def test_a_line_for_each_tenth_of_the_work_says_how_long_the_rest_takes() -> None:
    clock = Clock()
    lines = lines_of(Counter("Asking", 40, clock), clock, [(2.0, 1)] * 40)
    assert lines[0] == "Asking: 4 of 40, about 2 min left"
    assert lines[-1] == "Asking: 36 of 40, about 8 s left"
    assert [int(line.split()[1]) for line in lines] == list(range(4, 40, 4))


def test_slow_work_has_a_line_twice_a_minute_too() -> None:
    clock = Clock()
    lines = lines_of(Counter("Asking", 1000, clock), clock, [(20.0, 1)] * 8)
    assert [line.split()[1] for line in lines] == ["2", "4", "6", "8"]
    assert lines[0].endswith(" of 1000, about 5 h 33 min left")


def test_work_of_an_earlier_run_does_not_count_for_the_estimate() -> None:
    clock = Clock()
    counter = Counter("Collecting", 100, clock)
    counter.earlier(80)
    assert counter.left == ""
    assert lines_of(counter, clock, [(5.0, 10)]) == ["Collecting: 90 of 100, about 5 s left"]


def test_the_time_for_all_samples_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 1,000 samples, half are this process's, of which an earlier run has done 400."""
    clock = Clock()
    counter = Counter("Collecting", 500, clock)
    count = with_estimate(counter, 1000, after=32)
    counter.earlier(400)
    told = []
    for _ in range(6):
        clock.now += 16 * 60
        count(16)
        told.append(capsys.readouterr().err)
    line = "At this pace all 1000 samples take about 8 h 20 min, and the rest about 1 h 8 min.\n"
    assert told == ["", line, "", "", "", ""]


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("Asking", 20) as done:
        for _ in range(20):
            done(1)
    out, err = capsys.readouterr()
    assert out == ""
    *lines, last = err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"Asking: {done} of 20" for done in range(2, 20, 2)
    ]
    assert all("left" in line for line in lines)
    assert last.startswith("Asking: 20 of 20 in ")
    with counting("Asking", 20, shown=False) as done:
        done(20)
    assert capsys.readouterr() == ("", "")


def work_until(number: signal.Signals) -> None:
    with stoppable(lambda: "All is kept."):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except Exception:  # as around a decoder
            pytest.fail("A signal is not an error of a sample.")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_the_work_and_say_what_is_kept(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(typer.Exit) as stopped:
            work_until(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert stopped.value.exit_code == status
    assert capsys.readouterr().err == "Stopped. All is kept.\n"


@contextmanager
def stopped_after(ready: Callable[[], bool]) -> Iterator[None]:
    """Send this process SIGTERM as soon as something is there."""
    over = Event()

    def watch() -> None:
        while not over.wait(0.005):
            if ready():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_collect_and_train_go_on_after_they_were_stopped(tmp_path: Path) -> None:
    shards, mapper = tmp_path / "shards", tmp_path / "mapper"
    collect = ("collect", "--model", MODEL, "--scenes", 16, "--shard-size", 4, "--output", shards)
    collect = (*collect, "--targets", "sum", "--max-new-tokens", 8)
    with stopped_after(lambda: len(list(shards.glob("shard-*"))) > 1):
        stopped = call(*collect)
    assert stopped.exit_code == 143
    kept = sorted(shards.glob("shard-*"))
    expected = f"Stopped. {len(kept)} complete shards in {shards} will be used"
    assert stopped.stderr.splitlines()[-1].startswith(expected)
    times = [path.stat().st_mtime_ns for path in kept]
    again = call(*collect)
    assert again.exit_code == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in kept] == times

    train = ("train", "--collection", shards, "--output", mapper, "--train-batch-size", 1)
    train = (*train, "--epochs", 10, "--network-option", "channels=4")
    with stopped_after((mapper / "checkpoint.safetensors").is_file):
        stopped = call(*train)
    assert stopped.exit_code == 143
    assert "checkpoint" in stopped.stderr.splitlines()[-1]
    assert "run the same command again" in stopped.stderr.splitlines()[-1]
    again = call(*train)
    assert again.exit_code == 0, again.stderr


def test_demo_keeps_the_images_of_the_questions_that_were_answered(tmp_path: Path) -> None:
    with stopped_after((tmp_path / "02-colour.png").is_file):
        stopped = call("demo", "--output", tmp_path, "--questions", 50)
    assert stopped.exit_code == 143
    assert f"of 50 questions are in {tmp_path}" in stopped.stderr.splitlines()[-1]
    early = tmp_path / "early"
    with stopped_after(early.is_dir):
        stopped = call("demo", "--output", early)
    assert stopped.exit_code == 143
    assert stopped.stderr.splitlines()[-1].endswith("nothing is kept.")


def test_evaluate_keeps_the_answers_of_a_stopped_run(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    words = (
        *("evaluate", "--model", MODEL, "--per-kind", "16", "--kind", "place", "--json"),
        *("--scorer", "uniform,random", "--retention-ratio", "0.5", "--batch-size", "2"),
        *("--output", str(file)),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_token_compress.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while not process.stderr.readline().startswith("Asking: 16 of 48"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143, err
    table = json.loads(out)
    assert table["stopped"] is True
    assert table == json.loads(file.read_text())
    answered = table["rows"][0]["asked"]
    assert 4 <= answered < 16
    assert {row["asked"] for row in table["rows"]} == {answered}
    assert [row["scorer"] for row in table["rows"]] == ["full", "uniform", "random"]
    assert f"about the {answered} questions" in err.splitlines()[-1]
    assert "run the same command again" in err.splitlines()[-1]
