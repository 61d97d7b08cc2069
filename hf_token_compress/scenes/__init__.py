"""Pictures of real drawings on a board, with questions, answers and the places they rest on."""

from hf_token_compress.scenes.drawings import Drawings, load_drawings
from hf_token_compress.scenes.questions import KINDS, Question, ask, scene_questions
from hf_token_compress.scenes.scene import CELL_SIZE, COLOURS, LETTERS, Cell, Scene, make_scene

__all__ = [
    "CELL_SIZE",
    "COLOURS",
    "KINDS",
    "LETTERS",
    "Cell",
    "Drawings",
    "Question",
    "Scene",
    "ask",
    "load_drawings",
    "make_scene",
    "scene_questions",
]
