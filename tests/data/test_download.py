"""Images by their address on the web, from a server on this machine."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from errors import one_sentence
from typer.testing import CliRunner
from web_server import Page, web_server

from hf_token_compress.cli import app
from hf_token_compress.data.download import download_image
from hf_token_compress.data.scenes import make_scene

SCENE = make_scene(0, 4, 4, split="test").image


def png() -> bytes:
    content = io.BytesIO()
    SCENE.save(content, "PNG")
    return content.getvalue()


def moved(location: str) -> Page:
    return Page(status=302, headers={"Location": location})


PAGES = {
    "/board.png": Page(png()),
    "/a,b.png?size=2,3": Page(png(), kind="application/octet-stream"),
    "/moved": moved("/board.png"),
    "/to-a-file": moved(Path(__file__).as_uri()),
    "/in-circles": moved("/in-circles"),
    "/page.html": Page(b"<html>an image, they said</html>", kind="text/html; charset=utf-8"),
    "/cut.png": Page(png()[:2000]),
    "/cut-off.png": Page(png()[:2000], headers={"Content-Length": str(len(png()))}),
    "/slow.png": Page(png(), pause=0.05),
    "/broken": Page(status=500),
}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    with web_server(PAGES) as running:
        yield running  # type: ignore[misc]


@pytest.fixture
def address(server: tuple[str, object], monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's, with downloads allowed: the suite runs offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return server[0]


@pytest.mark.parametrize("path", ["/board.png", "/a,b.png?size=2,3", "/moved"])
def test_it_is_the_image_of_the_file(path: str, address: str) -> None:
    np.testing.assert_array_equal(np.asarray(download_image(address + path)), np.asarray(SCENE))


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/none.png", OSError, ["/none.png", "404"]),
        ("/broken", OSError, ["500"]),
        ("/to-a-file", OSError, ["cannot be downloaded", "file://"]),
        ("/in-circles", OSError, ["redirects"]),
        ("/page.html", ValueError, ["not an image", "text/html"]),
        ("/cut.png", ValueError, ["not an image", "image/png"]),
        ("/cut-off.png", OSError, ["cannot be downloaded"]),
    ],
)
def test_what_cannot_be_used(
    path: str, kind: type[Exception], words: list[str], address: str
) -> None:
    with one_sentence(kind, *words):
        download_image(address + path)


def test_nothing_answers(address: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with one_sentence(OSError, "cannot be downloaded"):
            download_image(f"http://127.0.0.1:{port}/board.png")
        closed.listen()  # it takes the connection, and no more
        with one_sentence(TimeoutError, "does not answer"):
            download_image(f"http://127.0.0.1:{port}/board.png", seconds=0.3)


def test_a_server_that_never_ends_is_left(address: str) -> None:
    with one_sentence(TimeoutError, "longer than 0.2 seconds"):
        download_image(f"{address}/slow.png", seconds=0.2)


def test_the_largest_download(address: str) -> None:
    size = len(png())
    assert download_image(f"{address}/board.png", most_bytes=size).size == SCENE.size
    with one_sentence(ValueError, "MB", "name the file"):
        download_image(f"{address}/board.png", most_bytes=size - 1)


@pytest.mark.parametrize("name", ["http://", "https://[::1", "http://a b/x.png"])
def test_what_is_not_an_address(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises((OSError, ValueError), match=r"^'http.*\.$"):
        download_image(name)


def test_offline_nothing_is_asked(
    server: tuple[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(server[1])
    with one_sentence(OSError, "HF_HUB_OFFLINE"):
        download_image(f"{server[0]}/board.png")
    assert len(server[1]) == before


def test_the_server_is_told_no_login(
    address: str, server: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download_image(f"{address}/board.png")
    assert "hf_secret" not in json.dumps(server[1][-1])


def run(*arguments: str) -> tuple[int, str, str]:
    words = ["run", "--model", "tiny-qwen2-vl", "--prompt", "Where is the cat?", *arguments]
    outcome = CliRunner().invoke(app, words)
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_run_answers_as_about_the_file(address: str, tmp_path: Path) -> None:
    file, named = tmp_path / "board.png", f"{address}/a,b.png?size=2,3"
    file.write_bytes(png())
    found = {}
    for source in (str(file), named):
        code, printed, wrong = run("--image", source, "--json")
        assert code == 0, wrong
        found[source] = json.loads(printed)
    assert found[named]["images"] == [named]
    assert found[named]["answer"] == found[str(file)]["answer"]


def test_run_says_in_one_sentence_what_is_wrong(address: str) -> None:
    code, printed, wrong = run("--image", f"{address}/none.png")
    assert (code, printed) == (1, "")
    assert wrong == (
        f"Error: '{address}/none.png' cannot be downloaded: the server answers 404 Not Found.\n"
    )
    code, printed, wrong = run("--video", f"{address}/clip.mp4")
    assert (code, printed) == (2, "")
    assert wrong == (
        f"Error: --video takes files: download '{address}/clip.mp4' first, and name the file.\n"
    )
