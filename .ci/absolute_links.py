"""Make the relative links of a page lead to its repository, for PyPI shows the README elsewhere.

python .ci/absolute_links.py README.md https://github.com/OWNER/NAME v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
RELATIVE = re.compile(r"(!?\[[^\[\]]*\])\((?!#|[a-z]+:)([^)\s]+)\)")


def with_absolute_links(page: str, address: str, revision: str) -> str:
    """The page with links to the repository at a tag or branch; code blocks stay as they are."""

    def absolute(link: re.Match[str]) -> str:
        label, target = link.groups()
        view = "raw" if label.startswith("!") else "blob"
        return f"{label}({address}/{view}/{revision}/{target})"

    parts = FENCED.split(page)
    parts[::2] = [RELATIVE.sub(absolute, part) for part in parts[::2]]
    return "".join(parts)


if __name__ == "__main__":
    file, address, revision = sys.argv[1:]
    page = Path(file).read_text(encoding="utf-8")
    Path(file).write_text(with_absolute_links(page, address, revision), encoding="utf-8")
