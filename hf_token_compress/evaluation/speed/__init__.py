"""Speed and memory of compression on this machine, and from how many visual tokens on it pays."""

from .break_even import break_even
from .measure import measure_speed
from .random_model import NAMED_SIZES, Depth, random_model, read_config, read_processor, shorten
from .results import Comparison, SpeedResult
from .tables import SpeedTable, cost_tables, depth_text, time_tables
from .timing import Spread

__all__ = [
    "NAMED_SIZES",
    "Comparison",
    "Depth",
    "SpeedResult",
    "SpeedTable",
    "Spread",
    "break_even",
    "cost_tables",
    "depth_text",
    "measure_speed",
    "random_model",
    "read_config",
    "read_processor",
    "shorten",
    "time_tables",
]
