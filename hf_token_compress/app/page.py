"""The page: the question on the left, the answers on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import gradio as gr

from ..config import Modality, Selection
from ..scorers.registry import available_scorers
from .cards import STYLE as STYLE
from .cards import UNASKED, answer_cards, problem
from .comparing import EXPECTED_ERRORS, Comparer, Visual, drawn, reason
from .examples import Example
from .inputs import drawing_input, example_gallery, image_input, video_input
from .knowledge import is_embedded, what_is_measured, what_it_knows

THEME = gr.themes.Soft(
    # Fonts of the system: Gradio's own come from the web.
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
_DELETE_CACHE = (3600, 86400)
"""Every hour, delete users' files that are older than a day; seconds."""

MAX_FILE_SIZE = "500mb"
"""Largest file that the page takes."""

_TITLE = "Fewer visual tokens, the same answer?"
_HEADING = f"""# {_TITLE}
Before the language model runs, **hf_token_compress** drops the visual tokens that do not matter \
for the question. Choose an example, or bring or draw your own image, and move the slider.
"""


def make_page(comparer: Comparer, examples: Mapping[Modality, Sequence[Example]]) -> gr.Blocks:
    """The page as Gradio blocks, to be launched.

    Args:
        comparer: Asks the model. There is a tab for each modality that it has a setting for.
        examples: For each modality.
    """

    def ask(
        source: str,
        image: str | None,
        drawing: dict[str, Any] | None,
        video: list[tuple[str, str | None]] | None,
        question: str,
        percent: float,
        scorer: str,
        selection: Selection,
        explained: bool,
    ) -> tuple[Any, ...]:
        files = {
            "image": [image] if image else [],
            "drawing": [],
            "video": [file for file, _ in video or ()],
        }
        shown: Visual = files[source]
        changes = {"retention_ratio": percent / 100, "scorer": scorer, "selection": selection}
        try:
            if source == "drawing":
                shown = drawn(drawing)
            found = comparer(
                question,
                shown,
                modality=_modality(source),
                changes=changes,
                explained=explained,
            )
        except EXPECTED_ERRORS as error:
            return problem(reason(error, shown)), None, None
        return answer_cards(found), found.kept, found.relevance

    def usual_selection(source: str, scorer: str) -> Selection:
        changes = {"scorer": scorer, "selection": None, "top_p": None}
        return comparer.settings[_modality(source)].changed(changes).selection_name

    base = comparer.settings["image"]
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=_DELETE_CACHE) as page:
        gr.Markdown(_HEADING)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                source = gr.State("image")
                with gr.Tabs():
                    with gr.Tab("Image") as image_tab:
                        image_gallery = example_gallery(examples["image"], "image-examples")
                        image = image_input()
                    with gr.Tab("Draw") as drawing_tab:
                        drawing = drawing_input()
                    with gr.Tab("Video", visible="video" in comparer.settings) as video_tab:
                        video_gallery = example_gallery(examples.get("video", ()), "video-examples")
                        video = video_input()
                question = gr.Textbox(label="Question", elem_id="question", lines=1, max_lines=4)
                percent = gr.Slider(
                    1,
                    100,
                    max(1, round(100 * base.retention_ratio)),
                    step=1,
                    label="Visual tokens to keep, in %",
                    elem_id="percent",
                )
                with gr.Row():
                    scorer = gr.Dropdown(
                        _scorers(comparer),
                        value=base.scorer_name,
                        label="Scorer",
                        info="ranks the visual tokens",
                        elem_id="scorer",
                        min_width=140,
                    )
                    selection = gr.Dropdown(
                        list(get_args(Selection)),
                        value=base.selection_name,
                        label="Selection",
                        info="diverse: no two tokens alike",
                        elem_id="selection",
                        min_width=140,
                    )
                explained = gr.Checkbox(
                    is_embedded(comparer.checkpoint.name), label="Show what the answer depends on"
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
            with gr.Column(scale=3, min_width=320):
                cards = gr.HTML(UNASKED, elem_id="answers", min_height=120)
                with gr.Row():
                    kept = _drawing("Kept tokens are lit", "kept")
                    heat = _drawing("What the answer depends on", "relevance")
                gr.Markdown(what_is_measured(comparer.checkpoint), elem_classes="note")
        gr.Markdown(what_it_knows(comparer.checkpoint, clips="video" in comparer.settings))

        inputs = [source, image, drawing, video, question, percent, scorer, selection, explained]
        outputs = [cards, kept, heat]
        # One call at a time: others at once would make its times longer.
        asking: dict[str, Any] = {
            "fn": ask,
            "inputs": inputs,
            "outputs": outputs,
            "concurrency_limit": 1,
            "concurrency_id": "model",
            "show_progress": "minimal",
            "api_visibility": "private",
        }
        # On a phone, the answers are below the question.
        gr.on([button.click, question.submit], scroll_to_output=True, **asking)
        changed = [percent.release, selection.input, explained.input]
        gr.on(changed, trigger_mode="always_last", **asking)
        quick: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        scorer.input(usual_selection, [source, scorer], selection, **quick).then(**asking)
        # The answers about another image would look like answers about this one.
        clearing: dict[str, Any] = {
            "fn": lambda: (UNASKED, None, None),
            "inputs": None,
            "outputs": outputs,
            **quick,
        }
        gr.on([image.input, drawing.input, video.upload], **clearing)
        for name, tab in (("image", image_tab), ("drawing", drawing_tab), ("video", video_tab)):
            tab.select(partial(str, name), None, source, **quick).then(**clearing)
        places: dict[Modality, tuple[Any, Any]] = {
            "image": (image_gallery, image),
            "video": (video_gallery, video),
        }
        for kind, (gallery, place) in places.items():
            take = _taker(kind, examples.get(kind, ()))
            gallery.select(take, None, [source, place, question], **quick).then(
                scroll_to_output=True, **asking
            )
    return page


def _drawing(title: str, name: str) -> gr.Image:
    with gr.Column(min_width=240):
        gr.Markdown(f"**{title}**")
        return gr.Image(
            show_label=False,
            alt_text=title,
            elem_id=name,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
        )


def _taker(modality: Modality, examples: Sequence[Example]) -> Callable[..., tuple[Any, ...]]:
    """The handler that fills in the example that was clicked."""

    def take(event: gr.SelectData) -> tuple[Any, ...]:
        example = examples[event.index]
        files = [str(file) for file in example.files]
        return modality, files[0] if modality == "image" else files, example.question

    return take


def _modality(source: str) -> Modality:
    """The modality of what one of the tabs gives."""
    return "video" if source == "video" else "image"


def _scorers(comparer: Comparer) -> list[str]:
    with_mapper = any(setting.mapper is not None for setting in comparer.settings.values())
    return [name for name in available_scorers() if name != "mapper" or with_mapper]
