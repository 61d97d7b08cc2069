"""Speed and memory of compression on this machine, and from how many visual tokens on it pays."""

from .break_even import break_even
from .measure import measure_speed
from .random_model import Depth
from .results import Comparison, SpeedResult
from .timing import Spread

__all__ = ["Comparison", "Depth", "SpeedResult", "Spread", "break_even", "measure_speed"]
