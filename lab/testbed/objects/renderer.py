"""Render solids on a table with MuJoCo, without a display."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from PIL import Image

from ..parts import INSTALL_READERS
from .scene import SIDE, Box

_GEOMS = {
    "ball": 'type="sphere" size="{r}"',
    "cube": 'type="box" size="{b} {b} {b}"',
    "cylinder": 'type="cylinder" size="{c} {b}"',
    "cone": 'type="mesh" mesh="cone{n}"',
}
_SCENE = """
<mujoco>
  <visual>
    <global offwidth="{side}" offheight="{side}"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.35 0.35 0.35" specular="0.1 0.1 0.1"/>
    <quality shadowsize="1024"/>
  </visual>
  <asset>{meshes}
    <texture name="table" type="2d" builtin="{pattern}" width="64" height="64"
             rgb1="{table}" rgb2="{other}"/>
    <material name="table" texture="table" texrepeat="5 5" reflectance="0.05"/>
    <texture name="sky" type="skybox" builtin="flat" rgb1="{sky}" width="8" height="48"/>
  </asset>
  <worldbody>
    <light pos="{light}" dir="0 0 -1" directional="false" diffuse="0.6 0.6 0.6"/>
    <geom type="plane" size="20 20 0.1" material="table"/>{geoms}
  </worldbody>
</mujoco>
"""
_SIDES_OF_CONE = 24


@dataclass(frozen=True)
class Solid:
    """One solid on the table.

    Attributes:
        shape: One of `SOLIDS`.
        rgb: Colour, 0 to 255.
        across: Position to the right of the centre, in metres.
        away: Position behind the centre, in metres.
        size: Half the height, in metres.
        turn: Rotation about the vertical axis, in degrees.
    """

    shape: str
    rgb: tuple[int, ...]
    across: float
    away: float
    size: float
    turn: float


def render(solids: Sequence[Solid], rng: np.random.Generator) -> tuple[Image.Image, list[Box]]:
    """Render the solids.

    Args:
        solids: The solids.
        rng: Generator for table, light and camera.

    Returns:
        The image, and the box of the visible part of each solid; (0, 0, 0, 0) if it is hidden.

    Raises:
        ImportError: MuJoCo is not installed or cannot render.
    """
    if find_spec("mujoco") is None:
        raise ImportError(f"Rendered images need the package mujoco: {INSTALL_READERS}.")
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    try:
        import mujoco
    except (ImportError, AttributeError, OSError) as error:
        raise ImportError(
            "MuJoCo cannot render here: install OSMesa (Debian: apt-get install libosmesa6) or "
            f"set MUJOCO_GL to another backend ({error})."
        ) from error
    model = mujoco.MjModel.from_xml_string(_xml(solids, rng))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (0.0, 0.0, 0.2)
    camera.distance = rng.uniform(5.2, 5.8)
    camera.azimuth = 90 + rng.uniform(-6, 6)
    camera.elevation = rng.uniform(-52, -40)
    renderer = mujoco.Renderer(model, SIDE, SIDE)
    try:
        renderer.update_scene(data, camera)
        image = Image.fromarray(renderer.render().copy())
        renderer.enable_segmentation_rendering()
        renderer.update_scene(data, camera)
        seen = renderer.render()[..., 0]  # [H, W], number of the geom; the table is 0
    finally:
        renderer.close()
    return image, [_box(seen == number) for number in range(1, len(solids) + 1)]


def _xml(solids: Sequence[Solid], rng: np.random.Generator) -> str:
    geoms, meshes = "", ""
    for number, solid in enumerate(solids):
        size = solid.size
        form = _GEOMS[solid.shape].format(r=size, b=0.82 * size, c=0.75 * size, n=number)
        height = {"ball": size, "cone": 0.0}.get(solid.shape, 0.82 * size)
        colour = " ".join(f"{channel / 255:.3f}" for channel in solid.rgb)
        geoms += (
            f'\n    <geom {form} pos="{solid.across:.3f} {solid.away:.3f} {height:.3f}" '
            f'euler="0 0 {solid.turn:.1f}" rgba="{colour} 1"/>'
        )
        if solid.shape == "cone":
            meshes += f'\n    <mesh name="cone{number}" vertex="{_cone(size)}"/>'
    grey, sky = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.9, 3)
    table = np.clip(grey + rng.uniform(-0.08, 0.08, 3), 0, 1)
    other = np.clip(table + rng.uniform(-0.12, 0.12), 0, 1)
    return _SCENE.format(
        side=SIDE,
        meshes=meshes,
        geoms=geoms,
        pattern=("flat", "checker", "gradient")[rng.integers(3)],
        table=_numbers(table),
        other=_numbers(other),
        sky=_numbers(sky),
        light=_numbers(np.array([*rng.uniform(-2, 2, 2), rng.uniform(4, 6)])),
    )


def _cone(size: float) -> str:
    """Vertices in metres of a cone as high as the other solids."""
    angles = np.linspace(0, 2 * np.pi, _SIDES_OF_CONE, endpoint=False)
    rim = np.stack([0.85 * size * np.cos(angles), 0.85 * size * np.sin(angles), 0 * angles], 1)
    return _numbers(np.concatenate([rim, [[0, 0, 2 * size]]]).ravel())


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _box(seen: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
