"""Images of which tokens were kept and why, and figures of measurements.

Functions that draw on images return PIL images. Functions that draw curves return matplotlib
Figures; matplotlib is an extra: `pip install "hf-token-compress[plots]"`.
"""

from .figures import (
    COLOURS,
    figure_image,
    heat_map_figure,
    removal_curve,
    retention_curve,
    save_figure,
    training_curve,
)
from .heat_maps import answer_heat_maps, prompt_heat_maps
from .overlays import heat_map, overlay
from .sheets import contact_sheet
from .speed import speed_curves
from .video import frame_overlays, frame_sheet, frame_strip, kept_per_frame, save_animation

__all__ = [
    "COLOURS",
    "answer_heat_maps",
    "contact_sheet",
    "figure_image",
    "frame_overlays",
    "frame_sheet",
    "frame_strip",
    "heat_map",
    "heat_map_figure",
    "kept_per_frame",
    "overlay",
    "prompt_heat_maps",
    "removal_curve",
    "retention_curve",
    "save_animation",
    "save_figure",
    "speed_curves",
    "training_curve",
]
