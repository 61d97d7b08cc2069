"""The demo in a real browser. Needs Gradio, selenium, and Debian's chromium and chromium-driver."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from browser import Page, check_browser, served
from PIL import Image, ImageChops
from typer.testing import CliRunner

from hf_token_compress.app.examples import write_examples
from hf_token_compress.cli import app

NAME = "tiny-qwen2-vl-video"


@pytest.fixture(scope="module", autouse=True)
def _browser():
    check_browser()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    command = ["-m", "hf_token_compress.cli", "app"]
    with served(command, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return {modality: write_examples(folder, modality) for modality in ("image", "video")}


@pytest.fixture
def open_page(address, tmp_path_factory):
    pages = []

    def open_page(width=1280):
        pages.append(Page(address, tmp_path_factory.mktemp("profile"), width))
        return pages[-1]

    yield open_page
    for page in pages:
        page.browser.quit()


def run_command(*arguments):
    outcome = CliRunner().invoke(app, ["run", "--model", NAME, "--json", *map(str, arguments)])
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_the_first_click_the_slider_and_a_question(open_page, examples):
    page, example = open_page(), examples["image"][0]
    page.take_example("image", 0)
    assert page.wait_for_answer(example.answer) == (64, 32)
    drawings = [page.wait(name, lambda n=name: page.find(f"#{n} img")) for name in DRAWINGS]
    before = [drawing.get_attribute("src") for (drawing,) in drawings]
    assert len(set(before)) == 2

    page.slide(0.2)
    page.wait("fewer tokens", lambda: 0 < page.card("kept")[1] < 16)
    assert page.wait_for_answer(example.answer)[0] == 64
    page.wait(
        "another drawing", lambda: page.find("#kept img")[0].get_attribute("src") != before[0]
    )
    (percent,) = page.find("#percent input[type=number]")
    ratio = int(percent.get_attribute("value")) / 100
    page.ask("Where is the cat?")
    page.wait("a place", lambda: page.card("kept")[0].startswith("row"))
    said = run_command(
        *("--image", example.files[0], "--prompt", "Where is the cat?"),
        *("--retention-ratio", ratio),
    )
    assert page.card("kept") == (said["answer"], said["visual_tokens_after"])
    assert page.requests_elsewhere() == set()


DRAWINGS = ("kept", "relevance")


def test_two_browsers_at_once_get_their_own_answers(open_page, examples):
    first, second = open_page(), open_page()
    first.slide(0.8)
    second.slide(0.3)
    kept = set()
    for number in range(3):
        first.take_example("image", number)
        second.take_example("image", number + 3)
        wanted = examples["image"][number].answer, examples["image"][number + 3].answer
        kept.add((first.wait_for_answer(wanted[0])[1], second.wait_for_answer(wanted[1])[1]))
    ((many, few),) = kept
    assert many > 48 > 24 > few > 12


def test_a_video(open_page, examples):
    page, example = open_page(), examples["video"][0]
    page.take_example("video", 0)
    assert page.wait_for_answer(example.answer) == (192, 96)
    page.wait("the frames", lambda: len(page.find("#video img")) == len(example.files))
    page.wait("the sheet", lambda: page.find("#kept img"))


def test_a_drawing(open_page):
    page = open_page()
    page.open_tab("draw")
    page.ask("Where is the cat?")
    page.wait("a sentence", lambda: "The drawing is empty" in page.text())
    page.draw_square(side=100)
    page.wait("undo", lambda: not page.find("#drawing button")[3].get_attribute("disabled"))
    page.choose("scorer", "uniform")
    # 448 × 448 pixels, 28 × 28 for each token.
    page.wait("an answer", lambda: (page.card("all")[1], page.card("kept")[1]) == (256, 128))
    (kept,) = page.wait("the kept tokens", lambda: page.find("#kept img"))
    with urllib.request.urlopen(kept.get_attribute("src")) as response:
        red, _, blue = Image.open(response).convert("RGB").split()
    # The blue square is seen where tokens are kept, and darker where they are not.
    bluer = ImageChops.subtract(blue, red).point(lambda difference: 255 * (difference > 40))
    left, top, right, bottom = bluer.getbbox()
    assert 100 < right - left < 300
    assert abs((right - left) - (bottom - top)) < 30


def test_the_selection_follows_the_scorer(open_page, examples):
    page = open_page()
    page.take_example("image", 0)
    page.wait_for_answer(examples["image"][0].answer)
    for scorer, selection in (("gated_fusion", "diverse"), ("uniform", "top_k")):
        before = page.find("#kept img")[0].get_attribute("src")
        page.choose("scorer", scorer)
        page.wait(selection, lambda s=selection: page.chosen("selection") == s)
        page.wait(
            "other tokens",
            lambda b=before: page.find("#kept img")[0].get_attribute("src") != b,
        )


def test_bad_input_is_a_sentence_in_the_page(open_page, tmp_path):
    page = open_page()
    page.ask("Where is the cat?")
    page.wait("a sentence", lambda: "There is no image to look at" in page.text())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page.browser.find_element("css selector", "#image input[type=file]").send_keys(str(broken))
    page.wait("the upload", lambda: page.find("#image img"))
    page.click(page.find("#ask")[0])
    page.wait("a sentence", lambda: "'broken.png' is not an image that can be read" in page.text())
    assert page.text().startswith("'broken.png'"), "Where the server keeps it is nobody's business."


def test_nothing_overflows_on_a_phone(open_page, examples):
    page = open_page(width=390)
    assert page.overflow() <= 0
    for modality in ("image", "video"):
        page.take_example(modality, 0)
        page.wait_for_answer(examples[modality][0].answer)
        page.wait("the drawings", lambda: page.find("#relevance img"))
        assert page.overflow() <= 0


def test_a_space_starts(tmp_path):
    folder = tmp_path / "space"
    outcome = CliRunner().invoke(app, ["app", "--model", NAME, "--write-space", str(folder)])
    assert outcome.exit_code == 0, outcome.stderr
    import gradio

    card = (folder / "README.md").read_text()
    settings = dict(re.findall(r"^(\w+): (.+)$", card.split("---")[1], re.M))
    assert (settings["sdk"], settings["sdk_version"]) == ("gradio", gradio.__version__)
    assert (folder / "requirements.txt").read_text().startswith("hf-token-compress[app,video]")
    with served([settings["app_file"]], folder) as address:
        assert address.startswith("http")
