"""Images and clips of real drawings, with questions, answers and the places they depend on."""

from .clip import CLIP_KINDS, Clip, ask_clip, clip_questions, make_clip
from .drawings import Drawings, load_drawings
from .questions import KINDS, Question, ask, check_kinds, scene_questions
from .scene import CELL_SIZE, COLOURS, LETTERS, Box, Cell, Scene, make_scene

__all__ = [
    "CELL_SIZE",
    "CLIP_KINDS",
    "COLOURS",
    "KINDS",
    "LETTERS",
    "Box",
    "Cell",
    "Clip",
    "Drawings",
    "Question",
    "Scene",
    "ask",
    "ask_clip",
    "check_kinds",
    "clip_questions",
    "load_drawings",
    "make_clip",
    "make_scene",
    "scene_questions",
]
