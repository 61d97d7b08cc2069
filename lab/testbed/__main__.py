"""Write the trained testbed as an ordinary checkpoint folder: `python -m lab.testbed FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import load_testbed


def save_testbed(folder: Path) -> None:
    """Save model and processor, so that `--model FOLDER` finds a stock LLaVA-OneVision.

    Raises:
        ImportError: A package that carries a part, or that reads it, is not installed.
    """
    model, processor = load_testbed()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    """Read the folder from the command line."""
    parser = argparse.ArgumentParser(prog="python -m lab.testbed", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to write to")
    save_testbed(parser.parse_args().folder)


if __name__ == "__main__":
    main()
