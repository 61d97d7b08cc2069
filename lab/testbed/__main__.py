"""Write the trained testbed as an ordinary checkpoint folder.

python -m lab.testbed FOLDER
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..arguments import make_parser
from . import load_testbed


def save_testbed(folder: Path) -> None:
    """Save model and processor as a stock LLaVA-OneVision, for `--model FOLDER`.

    Raises:
        ImportError: A package that contains or reads a part is not installed.
    """
    model, processor = load_testbed()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder."""
    parser = make_parser("lab.testbed", __doc__)
    parser.add_argument("folder", type=Path, help="folder to write to")
    save_testbed(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
