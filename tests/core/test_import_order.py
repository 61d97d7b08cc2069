"""Imports of the library run one way, inside functions too."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hf_token_compress

ROOT = Path(hf_token_compress.__file__).parent
NAME = ROOT.name
FLOORS = (
    {"_version", "checks", "device_copy", "hub", "lazy", "notices", "padding", "writing"},
    {"options", "registry"},
    {"config"},
    {"grid_positions", "prompt", "rewrite", "scoring_layer", "word_statistics"},
    {"selection"},
    {"kernels"},
    {"data", "models", "tiny"},
    {"mapper"},
    {"scorers"},
    {"compression"},
    {"relevance"},
    {"evaluation", "training", "viz"},
    {"asking"},
    {"app"},
    {"cli", "integrations"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

EXCEPTION = ((NAME, "compression", "state"), (NAME, "training"))
"""A compressed model's `calibrate` forwards to the function in that room."""

Module = tuple[str, ...]


def module_of(path: Path) -> Module:
    parts = (NAME, *path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


# In a checkout the kernels are a link, which `rglob` does not follow.
PATHS = [*ROOT.rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
MODULES = {module_of(path): path for path in PATHS}


def imports(module: Module) -> set[Module]:
    """Modules that a module imports."""
    home = (NAME, *MODULES[module].relative_to(ROOT).parts)
    found: set[Module] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level] if node.level else ()
            target = (*base, *(node.module or "").split(".")) if node.module else base
            # `from .package import name` imports a module of that name, if there is one.
            wholes = [(*target, alias.name) for alias in node.names]
            found |= {whole if whole in MODULES else target for whole in wholes}
    assert all(name[0] != "lab" for name in found), module
    own = {name for name in found if name in MODULES}
    if module == EXCEPTION[0]:
        own = {name for name in own if name[:2] != EXCEPTION[1]}
    return own


GRAPH = {module: imports(module) for module in MODULES}


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_a_room_imports_from_lower_floors_only(room: str) -> None:
    own = [module for module in MODULES if module[1:2] == (room,)]
    found = {name[1] for module in own for name in GRAPH[module] if len(name) > 1} - {room}
    assert own
    assert {other for other in found if FLOOR[other] >= FLOOR[room]} == set()


def test_every_room_has_a_floor() -> None:
    assert {module[1] for module in MODULES if len(module) > 1} == set(FLOOR)


def test_no_imports_run_in_a_circle() -> None:
    list(TopologicalSorter(GRAPH).static_order())
