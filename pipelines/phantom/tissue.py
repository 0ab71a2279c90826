"""What both views are made of: attenuation of the tissues, vessel trees, and consolidated lung."""

from __future__ import annotations

import numpy as np

from pipelines.phantom.body import RIB_DROP, RIB_END, RIB_HALF_WIDTH, RIB_Z, Body, Opacity
from pipelines.phantom.canvas import Canvas, Curves, Map, smooth

# Effective attenuation per mm at about 100 kV after filtration, so thickness × value is an optical depth.
SOFT = 0.0165
AIR_IN_LUNG = 0.78 * SOFT  # what inflated lung lets through, compared with soft tissue
BONE = 0.048  # cortical bone above soft tissue
SPONGE = 0.0085  # trabecular bone above soft tissue
LEAD = 0.97  # how bright a lead letter is, where 1 is the brightest

GENERATIONS = 5


def vessel_tree(
    rng: np.random.Generator, roots: Map, headings: Map, radii: Map, lengths: Map, generations: int = GENERATIONS
) -> Curves:
    """A branching tree: each branch bends a little and ends in two thinner ones.

    Args:
        rng: decides the bends and the angles.
        roots: (branches, 2) start points x, z in mm.
        headings: (branches,) directions in radians, 0 towards +x, growing towards +z.
        radii: (branches,) in mm.
        lengths: (branches,) of the first generation in mm.
        generations: number of times that branches grow.
    """
    grown = []
    at = np.linspace(0.0, 1.0, 36)[None, :]
    for _ in range(generations):
        bend = rng.normal(0, 0.28, len(radii))[:, None]
        heading = headings[:, None] + bend * at
        step = lengths[:, None] / (at.size - 1)
        x = roots[:, :1] + np.cumsum(np.cos(heading) * step, axis=1)
        z = roots[:, 1:] + np.cumsum(np.sin(heading) * step, axis=1)
        radius = radii[:, None] * (1 - 0.22 * at)
        grown.append(tuple(part.ravel() for part in (x, z, np.cos(heading), np.sin(heading), radius)))
        ends = np.stack([x[:, -1], z[:, -1]], axis=1)
        fork = np.abs(rng.normal(0.42, 0.14, (2, len(radii)))) * np.array([[1.0], [-1.0]])
        headings = (heading[:, -1] + fork).ravel()
        radii = (radii * rng.uniform(0.58, 0.82, (2, len(radii)))).ravel()
        lengths = (lengths * rng.uniform(0.62, 0.95, (2, len(lengths)))).ravel()
        roots = np.concatenate([ends, ends])
    # Thin branches come first, so that where two meet on a pixel the thick one is seen.
    x, z, tangent_x, tangent_z, radius = (np.concatenate(parts) for parts in zip(*grown[::-1], strict=True))
    return Curves(x, z, tangent_x, tangent_z, radius, np.ones_like(radius))


def consolidation(canvas: Canvas, opacity: Opacity, view: int, lung_mm: Map) -> Map:
    """Optical depth that an opacity adds; soft and irregular at its edge, with air-filled bronchi inside.

    Args:
        canvas: the sheet.
        opacity: what to draw.
        view: 0 from the front (x, z), 1 from the side (y, z).
        lung_mm: path length through the lung that holds it; where there is no lung there is no opacity.
    """
    rng = np.random.default_rng([opacity.seed, view])
    across, through = (opacity.radii[0], opacity.radii[1]) if view == 0 else (opacity.radii[1], opacity.radii[0])
    centre = (opacity.centre[view], opacity.centre[2])
    distance = np.sqrt(canvas.ellipse(centre, (across, opacity.radii[2]), float(rng.uniform(-0.5, 0.5))))
    field = 1.0 - distance + 0.30 * canvas.cloud(rng, 24.0) + 0.14 * canvas.cloud(rng, 9.0)
    mask = canvas.step(field - 0.25, 0.55)
    path = np.minimum(lung_mm, 1.9 * through) * mask
    texture = np.clip(0.9 + 0.11 * canvas.cloud(rng, 9.0) + 0.07 * canvas.cloud(rng, 3.0), 0.4, 1.2)
    inward = np.arctan2(rng.normal(0, 0.3), opacity.side if view == 0 else rng.choice([-1.0, 1.0]))
    root = np.array([[centre[0] - 0.9 * across * np.cos(inward), centre[1] - 0.9 * opacity.radii[2] * np.sin(inward)]])
    bronchi = vessel_tree(rng, root, np.array([inward]), np.array([1.5]), np.array([0.6 * across]), 4)
    air = np.minimum(1.5 * canvas.tubes(bronchi) * mask, 0.35 * path)
    return AIR_IN_LUNG * opacity.density * np.maximum(path * texture - air, 0.0)


def rib(body: Body, number: int) -> tuple[Map, Map, Map, Map]:
    """The centre line of one rib as a tilted ring: u (from the midline), y (to the back), z, and the angle in degrees."""
    degrees = np.linspace(9.0, RIB_END[number], 120)
    angle = np.radians(degrees)
    half = RIB_HALF_WIDTH[number] * body.width
    front = 0.5 * (1 - np.cos(angle))
    u = half * np.sin(angle) ** 0.86
    y = 0.39 * body.depth_mm * np.cos(angle) * (0.72 + 0.28 * min(number, 4) / 4) + 3.0
    z = (RIB_Z[number] + RIB_DROP[number] * front - 7.0 * np.exp(-(((degrees - 28) / 16) ** 2))) * body.height
    return u, y, z, degrees


def letter(canvas: Canvas, text: str, corner: tuple[float, float], height_mm: float) -> Map:
    """Coverage 0…1 of a lead letter L or R whose top left corner is at `corner`."""
    strokes = {
        "L": [([0.0, 0.0, 0.55], [0.0, 1.0, 1.0])],
        "R": [([0.0, 0.0, 0.4, 0.55, 0.55, 0.4, 0.0], [1.0, 0.0, 0.0, 0.1, 0.4, 0.5, 0.5]), ([0.25, 0.6], [0.5, 1.0])],
    }[text]
    curves = [
        Curves.along(corner[0] + height_mm * np.array(x), corner[1] + height_mm * np.array(z), 0.085 * height_mm)
        for x, z in strokes
    ]
    path = canvas.tubes(Curves.join(curves))
    return np.clip(path / (0.08 * height_mm), 0.0, 1.0)


def arc(x: list[float], z: list[float], radius: Map | float, weight: Map | float = 1.0) -> Curves:
    """A tube along a smooth curve through a few points."""
    points = smooth(x, z)
    return Curves.along(*points, _stretch(radius), _stretch(weight))


def _stretch(values: Map | float) -> Map | float:
    if isinstance(values, float):
        return values
    return np.interp(np.linspace(0, 1, 40), np.linspace(0, 1, len(values)), values)
