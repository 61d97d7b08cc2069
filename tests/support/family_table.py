"""Write the table of `hf-token-compress families` into docs/families.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
PLACE = re.compile(r"(?<=writes it -->\n).*?(?=<!-- end of the table -->)", re.DOTALL)


def with_table(page: str) -> str:
    """The page with the table that the command prints."""
    command = [sys.executable, "-m", "hf_token_compress.cli", "families"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return PLACE.sub(f"\n{table}\n", page)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
