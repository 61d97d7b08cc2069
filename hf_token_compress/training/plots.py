"""Pictures of a training's history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .training import Epoch


def plot_history(history: Sequence[Epoch], folder: str | Path) -> list[Path]:
    """Draw loss.png and recall.png into a folder.

    Args:
        history: At least one epoch.
        folder: Where the pictures go.

    Returns:
        The files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Plots need the package matplotlib: pip install "hf-token-compress[training]".'
        ) from error

    numbers = [epoch.number for epoch in history]
    curves = {
        "loss.png": (
            "KL divergence",
            {
                "training": [epoch.train_loss for epoch in history],
                "held out": [epoch.metrics["kl"] for epoch in history],
            },
        ),
        "recall.png": (
            "share, on held-out samples",
            {
                name.replace("_", " "): [epoch.metrics[name] for epoch in history]
                for name in history[0].metrics
                if name != "kl"
            },
        ),
    }
    files = []
    for name, (label, lines) in curves.items():
        figure = Figure(figsize=(6, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for line, values in lines.items():
            axes.plot(numbers, values, marker=".", label=line)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
        files.append(Path(folder) / name)
        figure.savefig(files[-1], dpi=120, metadata={"Software": None})
    return files
