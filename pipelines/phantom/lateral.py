"""A chest seen from the patient's left side: breastbone at the left of the image, spine at the right."""

from __future__ import annotations

import numpy as np

from pipelines.phantom.body import RIBS, Body, Opacity
from pipelines.phantom.canvas import Canvas, Curves, Map, bulge, smooth
from pipelines.phantom.tissue import AIR_IN_LUNG, BONE, SOFT, SPONGE, arc, consolidation, rib, vessel_tree


def lateral(canvas: Canvas, body: Body, opacities: tuple[Opacity, ...]) -> Map:
    """Optical depth (rows, columns) of a body between the tube and the detector; the canvas's x is the body's y."""
    rng = np.random.default_rng([body.tree, 1])
    lungs = {side: _lung(canvas, body, side) for side in (-1, 1)}
    middle = _heart(canvas, body)
    outside = _torso(canvas, body)
    depth = SOFT * outside * (1 + 0.02 * canvas.cloud(rng, 30.0))
    grain = 1 + 0.018 * canvas.cloud(rng, 3.2) + 0.022 * canvas.cloud(rng, 7.0) + 0.02 * canvas.cloud(rng, 26.0)
    for side, lung in lungs.items():
        air = np.maximum(lung - 0.5 * middle, 0.0)
        depth -= AIR_IN_LUNG * air * grain
        depth += 0.9 * SOFT * body.marking * _vessels(canvas, body, rng) * np.clip(air / 50.0, 0.0, 1.0)
        for opacity in opacities:
            if opacity.side == side:
                depth += consolidation(canvas, opacity, 1, air)
    depth -= 1.7 * SOFT * _air(canvas, body)
    skeleton = _ribs(canvas, body) + _spine(canvas, body) + _breastbone(canvas, body)
    depth += body.bone * skeleton * np.clip(outside / 40.0, 0.0, 1.0)
    return np.maximum(depth, 0.0)


def _front(canvas: Canvas, body: Body) -> Map:
    """Position of the inside of the front chest wall at each height, shape (rows, 1)."""
    at = [0.0, 18.0, 40.0, 80.0, 130.0, 180.0, 240.0, 330.0]
    return -body.depth_mm * np.interp(canvas.z / body.height, at, [0.10, 0.18, 0.27, 0.36, 0.415, 0.43, 0.42, 0.40])


def _spine_line(body: Body) -> tuple[Map, Map]:
    """Centres of the vertebral bodies, bent backwards in the middle."""
    back, bend = 0.29 * body.depth_mm, 15.0 * body.kyphosis
    y = [back - 2.4 * bend, back - 1.5 * bend, back - 0.4 * bend, back + 0.35 * bend, back + 0.3 * bend, back - 0.7 * bend]
    z = [-95.0, -30.0, 40.0, 115.0, 190.0, 330.0]
    return smooth(y, [height * body.height for height in z], 200)


def _back(canvas: Canvas, body: Body) -> Map:
    """Position of the inside of the back wall at each height, shape (rows, 1): a little behind the vertebral bodies."""
    y, z = _spine_line(body)
    behind = np.interp(canvas.z / body.height, [0.0, 20.0, 60.0, 120.0, 330.0], [-2.0, 10.0, 24.0, 31.0, 30.0])
    return np.interp(canvas.z, z, y) + behind


def _torso(canvas: Canvas, body: Body) -> Map:
    """Soft tissue from side to side; the raised arms and shoulders cover the top."""
    fat = body.fat_mm
    front = _front(canvas, body) - 9 - 0.55 * fat
    back = _back(canvas, body) + 20 + 0.6 * fat
    neck = canvas.z / body.height
    front = np.where(neck < 0, np.maximum(front, -58.0 - 0.6 * fat) + 0.3 * neck, front)
    middle, half = 0.5 * (front + back), 0.5 * (back - front)
    wide = 2 * (139.0 * body.width + 0.9 * fat)
    deep = wide * np.interp(neck, [-90.0, -40.0, 0.0, 40.0, 90.0, 160.0, 320.0], [0.5, 0.62, 0.95, 1.0, 0.9, 0.94, 1.02])
    tissue = deep * bulge((canvas.x - middle) / half)
    arm = arc([-120.0, -60.0, -14.0, 10.0], [-120.0, -70.0, -20.0, 30.0], np.array([42.0, 46.0, 44.0, 26.0]) + 0.3 * fat)
    tissue = np.maximum(tissue, _wide_tube(canvas, arm, 1.5))
    if body.female:
        wall, z = _front(canvas, body) - 4 - 0.4 * fat, (184.0 + 0.45 * body.breast_mm) * body.height
        centre = (float(np.interp(z, canvas.z[:, 0], wall[:, 0])), z)
        radii = (10 + 0.62 * body.breast_mm, 40 + 0.4 * body.breast_mm)
        breast = canvas.ellipsoid(centre, radii, 70 + 1.2 * body.breast_mm, 0.12)
        tissue = np.sqrt(tissue**2 + (breast * canvas.step(wall + 8 - canvas.x, 10.0)) ** 2)
    return tissue


def _wide_tube(canvas: Canvas, curves: Curves, weight: float) -> Map:
    """A tube wider than the reach of `Canvas.tubes`, as the envelope of overlapping spheres."""
    total = np.zeros(canvas.shape)
    for index in range(0, len(curves.x), 14):
        radius = float(curves.radius[index])
        total = np.maximum(total, canvas.ellipsoid((curves.x[index], curves.z[index]), (radius, radius), 2 * radius * weight))
    return total


def _lung(canvas: Canvas, body: Body, side: int) -> Map:
    """Path length through one lung from side to side."""
    front, back = _front(canvas, body), _back(canvas, body)
    reach = np.clip((canvas.x - front) / (back - front), 0.0, 1.0)
    profile = np.minimum(
        1 - np.square(1 - np.minimum(reach / 0.4, 1.0)), 1 - np.square(np.maximum((reach - 0.5) / 0.5, 0.0)) * reach
    )
    deep = 0.84 * (body.lung_edge(canvas.z) - 14.0) * np.interp(canvas.z / body.height, [3.0, 10.0, 40.0], [0.0, 0.5, 1.0])
    full = deep * np.sqrt(np.maximum(profile, 0.0))
    top = body.dome_mm * body.height + (body.left_dome_mm if side > 0 else 0.0)
    crest, length = 0.47, back - front
    behind = np.maximum((canvas.x - front - crest * length) / ((1 - crest) * length), 0.0)
    before = np.maximum((front + crest * length - canvas.x) / (crest * length), 0.0)
    dome = top + 50.0 * behind**2 + 22.0 * before**2
    return np.asarray(full * canvas.step(dome - canvas.z, 0.9))


def _heart(canvas: Canvas, body: Body) -> Map:
    """Thickness of heart, great vessels and mediastinum from side to side."""
    size, tall, fall = body.heart, body.height, (body.dome_mm - 212.0) * 0.8
    wall = -0.425 * body.depth_mm
    z = [88.0, 106.0, 124.0, 144.0, 166.0, 190.0, 212.0, 236.0, 262.0]
    heights = [float((here + drop) * tall) for here, drop in zip(z, np.interp(z, [60, 200], [0, fall]), strict=True)]
    front = [-30.0, -40.0, -54.0, 0.6 * wall - 28.0, wall + 5, wall + 1, wall, wall + 2, wall + 6]
    back = [wall + (edge + 86.0) * (0.35 + 0.65 * size) for edge in (0.0, 4.0, 8.0, 14.0, 20.0, 22.0, 16.0, 4.0, -6.0)]
    deep = [50.0, 60.0, 74.0, 92 * size, 108 * size, 114 * size, 110 * size, 100 * size, 80 * size]
    heart = canvas.between(heights, front, back, deep)
    arch = arc(
        [-6.0, -16.0, -4.0, 18.0, 32.0, 40.0, 44.0],
        [150 * tall, 108 * tall, 80 * tall, 74 * tall, 92 * tall, 150 * tall, 230 * tall],
        11.5,
    )
    hilum = canvas.ellipsoid((2.0, 114 * tall), (15.0, 18.0), 30.0, 0.3)
    core = canvas.between(
        [-60.0, 0.0, 40.0, 80.0, 116.0], [-40.0, -44, -44, -38, -20], [22.0, 24, 26, 26, 20], [60.0, 66, 66, 60, 20]
    )
    return np.maximum(np.maximum(heart, core), hilum) + 0.9 * canvas.tubes(arch)


def _vessels(canvas: Canvas, body: Body, rng: np.random.Generator) -> Map:
    """Path length through the pulmonary vessels of one lung."""
    angles = np.array([-2.6, -2.0, -1.3, -0.5, 0.35, 0.85, 1.35, 2.0, 2.7]) + rng.normal(0, 0.12, 9)
    radii = np.array([2.2, 2.6, 2.8, 2.8, 3.6, 4.2, 4.2, 3.0, 2.2]) * rng.uniform(0.85, 1.15, 9)
    roots = np.array([[4.0, 112.0 * body.height]]) + rng.normal(0, 6.0, (9, 2))
    return canvas.tubes(vessel_tree(rng, roots, angles, radii, rng.uniform(26, 38, 9) * body.height))


def _air(canvas: Canvas, body: Body) -> Map:
    """Air in the trachea, in the upper lobe bronchus seen end on, and in the stomach."""
    tall = body.height
    trachea = arc([-22.0, -14.0, -2.0, 8.0], [-95.0, -35.0, 35 * tall, 96 * tall], np.array([8.0, 8.0, 8.0, 7.0]))
    air = canvas.tubes(trachea) + canvas.ellipsoid((10.0, 108 * tall), (5.5, 5.5), 24.0)
    if body.bubble:
        top = body.dome_mm * tall + body.left_dome_mm
        centre = (-0.08 * body.depth_mm, top + 24.0)
        bubble = canvas.ellipsoid(centre, (36 * body.bubble, 19 * body.bubble), 50 * body.bubble)
        air += bubble * canvas.step(centre[1] + 7 * body.bubble - canvas.z, 0.8)
    return air


def _ribs(canvas: Canvas, body: Body) -> Map:
    """Optical depth of the ribs of both sides; the far side is a little larger and lies a little lower."""
    total = np.zeros(canvas.shape)
    for side, offset in ((-1, 5.0), (1, 0.0)):
        layers: tuple[list[Curves], list[Curves]] = ([], [])
        for number in range(RIBS):
            _, y, z, degrees = rib(body, number)
            thick = 4.2 + 0.35 * min(number, 5)
            y = y * (1.04 if side < 0 else 1.0) + 0.10 * body.depth_mm
            weight = np.clip((degrees[-1] - degrees) / 8, 0.0, 1.0) * (0.62 + 0.25 * np.cos(np.radians(degrees)))
            layers[number % 2].append(Curves.along(y, z + offset, thick, weight))
        for layer in layers:
            curves = Curves.join(layer)
            total += canvas.tubes(curves, hollow=0.84, wall=0.75 * BONE, whole=1.2 * SPONGE)
    return total


def _spine(canvas: Canvas, body: Body) -> Map:
    """Optical depth of the vertebral bodies with end plates, and of the arches behind them."""
    total = np.zeros(canvas.shape)
    line_y, line_z = _spine_line(body)
    height = -84.0 * body.height
    for number in range(20):
        gap = (16.5 + 0.55 * number) * body.height
        y = float(np.interp(height, line_z, line_y))
        lean = float(np.interp(height + 4, line_z, line_y) - np.interp(height - 4, line_z, line_y)) / 8
        half = (10.5 + 0.3 * number, 0.40 * gap)
        sheet, part = canvas.window((y + 14.0, height), 50.0)
        here = sheet.rounded_box((y, height), half, -lean)
        inner = sheet.rounded_box((y, height), (half[0] - 2.2, half[1] - 2.0), -lean)
        total[part] += SPONGE * 27.0 * here + 0.10 * (here - inner)
        total[part] += 0.10 * sheet.rounded_box((y + half[0] + 7.0, height - 2.0), (7.0, 0.26 * gap), 0.3)
        total[part] += 0.08 * sheet.rounded_box((y + half[0] + 22.0, height + 8.0), (11.0, 3.6), 0.75)
        height += gap
    return total


def _breastbone(canvas: Canvas, body: Body) -> Map:
    """Optical depth of the breastbone, just outside the front wall of the chest."""
    front, tall = _front(canvas, body)[:, 0], body.height
    z = np.linspace(22 * tall, 168 * tall, 40)
    y = np.interp(z, canvas.z[:, 0], front) - 7.0
    bone = Curves.along(y, z, 5.5 + 1.2 * np.exp(-(((z / tall - 62.0) / 9.0) ** 2)))
    return canvas.tubes(bone, hollow=0.8, wall=BONE, whole=2.0 * SPONGE)
