"""A chest seen from the front: path lengths through air, soft tissue and bone, added up as optical depth."""

from __future__ import annotations

import numpy as np

from pipelines.phantom.body import RIBS, Body, Opacity
from pipelines.phantom.canvas import Canvas, Curves, Map, bulge
from pipelines.phantom.tissue import AIR_IN_LUNG, BONE, SOFT, SPONGE, arc, consolidation, rib, vessel_tree


def frontal(canvas: Canvas, body: Body, opacities: tuple[Opacity, ...], *, portable: bool = False) -> Map:
    """Optical depth (rows, columns) of a body between the tube and the detector; 0 is air.

    `portable` is an image of somebody lying in bed (AP): a wider heart, shoulder blades over the lungs, electrodes.
    """
    rng = np.random.default_rng([body.tree, 0])
    outside = _torso(canvas, body)
    lungs = {side: _lung(canvas, body, side) for side in (-1, 1)}
    middle = _mediastinum(canvas, body, portable)
    depth = SOFT * outside * (1 + 0.02 * canvas.cloud(rng, 30.0))
    grain = 1 + 0.020 * canvas.cloud(rng, 3.2) + 0.022 * canvas.cloud(rng, 7.0) + 0.025 * canvas.cloud(rng, 26.0)
    for side, lung in lungs.items():
        air = np.maximum(lung - middle, 0.0)
        vessels = _vessels(canvas, body, side, rng)
        present = np.clip(air / 60.0, 0.0, 1.0)
        depth -= AIR_IN_LUNG * air * grain
        depth += 1.5 * SOFT * body.marking * vessels * present
        for opacity in opacities:
            if opacity.side == side:
                depth += consolidation(canvas, opacity, 0, air)
    depth -= 1.7 * SOFT * _airway(canvas, body)
    depth -= SOFT * _bowel(canvas, body, rng)
    skeleton = _ribs(canvas, body) + _spine(canvas, body) + _shoulders(canvas, body, portable)
    depth += body.bone * skeleton * np.clip(outside / 25.0, 0.0, 1.0)
    if portable:
        depth += _electrodes(canvas, rng)
    return np.maximum(depth, 0.0)


def _torso(canvas: Canvas, body: Body) -> Map:
    """Soft tissue from front to back: neck, shoulders, chest wall, belly, arms held away from the body, breasts."""
    fat, z = body.fat_mm, canvas.z / body.height
    heights = [-90.0, -62.0, -45.0, -28.0, -12.0, 2.0, 18.0, 40.0, 80.0, 120.0, 170.0, 220.0, 270.0, 340.0]
    chest = 139.0 * body.width + fat
    neck = 54.0 + 0.4 * fat
    widths = [neck, neck, neck + 4, neck + 22, 112.0 + 0.5 * fat, 150.0 + 0.5 * fat, 178.0 + fat, 192.0 + fat]
    widths += [chest + 20, chest + 8, chest + 2, chest + 1, chest + 4 + 0.3 * fat, chest + 8 + 0.5 * fat]
    half = np.interp(z, heights, widths)
    core = body.depth_mm + 1.1 * fat
    deep = np.interp(
        z, [-90, -45, -12, 20, 70, 150, 230, 300], [118.0, 112.0, 118.0, 0.66 * core, 0.92 * core, core, core, 1.08 * core]
    )
    tissue = deep * bulge(canvas.x / half)
    for side in (-1.0, 1.0):
        lean = 12.0 * body.width
        spine = side * np.interp(z, [10, 60, 160, 340], [150.0 + fat, 186 + fat, chest + 46 + lean, chest + 66 + 2 * lean])
        thick = 38.0 + 0.45 * fat
        tissue = np.maximum(
            tissue, 2 * thick * np.sqrt(np.maximum(1 - ((canvas.x - spine) / thick) ** 2, 0)) * canvas.step(z - 12.0, 9.0)
        )
        if body.female:
            centre = (side * 74.0 * body.width, (196.0 + 0.35 * body.breast_mm) * body.height)
            radii = (54.0 + 0.45 * body.breast_mm, 46.0 + 0.45 * body.breast_mm)
            tissue = tissue + canvas.ellipsoid(centre, radii, body.breast_mm)
    return tissue


def _lung(canvas: Canvas, body: Body, side: int) -> Map:
    """Path length through one lung, before heart and vessels take their part of it."""
    u, z = side * (canvas.x - 0.3 * body.rotation_mm), canvas.z
    outer = body.lung_edge(canvas.z)
    inner = np.interp(z / body.height, [4.0, 14.0, 30.0, 70.0, 120.0, 280.0], [30.0, 21.0, 17.0, 15.0, 13.0, 14.0])
    inside = np.clip((u - inner) / (outer - inner), 0.0, 1.0)
    profile = np.minimum(
        1 - (1 - np.minimum(inside / 0.45, 1.0)) ** 2, 1 - np.square(np.maximum((inside - 0.38) / 0.62, 0.0)) * inside
    )
    deep = np.interp(z / body.height, [3.0, 12.0, 40.0, 100.0, 170.0, 240.0], [0.0, 0.20, 0.42, 0.60, 0.66, 0.66]) * body.depth_mm
    full = deep * np.sqrt(np.maximum(profile, 0.0))
    dome = _dome(canvas, body, side)
    above = canvas.step(dome - z, 0.9)
    below = np.clip(1 - (z - dome) / (50.0 * body.height), 0.0, 1.0)
    return np.asarray(full * np.maximum(above, 0.13 * below * below * below))


def _dome(canvas: Canvas, body: Body, side: int) -> Map:
    """Height of the diaphragm dome at each x, shape (1, columns)."""
    u = side * canvas.x
    top = body.dome_mm * body.height + (body.left_dome_mm if side > 0 else 0.0)
    crest, edge = 62.0 * body.width, 136.0 * body.width
    lateral = np.maximum((u - crest) / (edge - crest), 0.0)
    medial = np.maximum((crest - u) / crest, 0.0)
    return top + 19.0 * lateral**2 + 25.0 * lateral**7 + 15.0 * medial**2


def _mediastinum(canvas: Canvas, body: Body, portable: bool) -> Map:
    """Thickness of heart and great vessels where they take the place of lung."""
    size = body.heart * (1.14 if portable else 1.0)
    turn, shift_z = 0.6 * body.rotation_mm, (body.dome_mm - 212.0) * 0.8
    z = [-20.0, 30.0, 58.0, 76.0, 92.0, 108.0, 124.0, 146.0, 172.0, 194.0, 208.0, 226.0, 250.0]
    fall = np.interp(z, [60, 200], [0, shift_z])
    heights = [float((here + drop) * body.height) for here, drop in zip(z, fall, strict=True)]
    knob = body.knob_mm
    left = [
        17,
        20,
        26 + 0.3 * knob,
        29 + knob,
        27 + 0.6 * knob,
        32,
        34 * size,
        45 * size,
        63 * size,
        75 * size,
        78 * size,
        70 * size,
        48 * size,
    ]
    right = [15, 19, 20, 21, 22, 23, 26, 33 * size, 40 * size, 43 * size, 42 * size, 38 * size, 32 * size]
    deep = [80, 80, 84, 100, 88, 96, 104, 122 * size, 130 * size, 130 * size, 124 * size, 110, 80]
    heart = canvas.between(heights, [turn - edge for edge in right], [turn + edge for edge in left], deep)
    aorta = arc([22.0 + 0.6 * knob, 25.0 + 0.5 * knob, 22.0, 17.0, 12.0], [84.0, 110.0, 170.0, 230.0, 300.0], 11.5)
    return np.maximum(heart + 0.5 * canvas.tubes(aorta), 170.0 * canvas.step(17.0 - np.abs(canvas.x), 5.0))


def _vessels(canvas: Canvas, body: Body, side: int, rng: np.random.Generator) -> Map:
    """Path length through the pulmonary vessels of one side, from the hilum outwards, in two layers."""
    hilum = (30.0 + 0.4 * side * body.rotation_mm, (116.0 if side < 0 else 106.0) * body.height)
    total = np.zeros(canvas.shape)
    fans = (
        (np.array([-1.25, -0.75, -0.15, 0.45, 0.95, 1.3]), np.array([3.3, 2.8, 2.4, 3.6, 4.6, 4.0])),
        (np.array([-1.0, -0.45, 0.15, 0.7, 1.12]), np.array([2.2, 2.2, 2.4, 3.2, 3.0])),
    )
    for angles, radii in fans:
        headings = angles + rng.normal(0, 0.1, angles.shape)
        headings = headings if side > 0 else np.pi - headings
        spread = rng.normal(0, 4.0, (len(angles), 2)) + 9.0 * np.stack([np.zeros(len(angles)), angles], axis=1)
        roots = np.array([[side * hilum[0], hilum[1]]]) + spread
        lengths = rng.uniform(30, 44, len(angles)) * body.height
        total += canvas.tubes(vessel_tree(rng, roots, headings, radii * rng.uniform(0.85, 1.2, len(radii)), lengths))
    knot = canvas.ellipsoid((side * (hilum[0] + 4), hilum[1] + 8), (13, 22), 13, -0.25 * side)
    return total + knot * np.clip(1 + 0.3 * canvas.cloud(rng, 8.0), 0.2, 1.6)


def _airway(canvas: Canvas, body: Body) -> Map:
    """Air in the trachea and the main bronchi: path length in mm."""
    tall, lean = body.height, 2.0 + 0.5 * body.rotation_mm
    carina = 84.0 * tall
    trachea = arc([0.0, 0.0 - lean * 0.4, -lean, -lean], [-90.0, -30.0, 30.0 * tall, carina], 8.2)
    right = arc(
        [-lean, -16.0, -34.0], [carina - 3, carina + 14, carina + 30], np.array([7.0, 6.0, 4.0]), np.array([1.0, 0.8, 0.3])
    )
    left = arc([-lean, 16.0, 40.0], [carina - 3, carina + 17, carina + 32], np.array([6.5, 5.5, 4.0]), np.array([1.0, 0.8, 0.3]))
    return canvas.tubes(Curves.join([right, left, trachea]))


def _bowel(canvas: Canvas, body: Body, rng: np.random.Generator) -> Map:
    """Gas under the left dome: path length in mm; a level below, since the patient stands."""
    gas = np.zeros(canvas.shape)
    top = body.dome_mm * body.height + body.left_dome_mm
    if body.bubble:
        centre = (62.0 * body.width + rng.normal(0, 5), top + 24.0)
        bubble = canvas.ellipsoid(centre, (34 * body.bubble, 19 * body.bubble), 46 * body.bubble, 0.12)
        gas += bubble * canvas.step(centre[1] + 7 * body.bubble - canvas.z, 0.8)
    for _ in range(int(rng.integers(0, 6))):
        centre = (rng.uniform(30, 120), top + rng.uniform(48, 105))
        gas += canvas.ellipsoid(centre, (rng.uniform(9, 22), rng.uniform(7, 13)), rng.uniform(10, 26), rng.uniform(-1, 1))
    return gas


def _ribs(canvas: Canvas, body: Body) -> Map:
    """Optical depth of the ribs; the back and the front halves are two layers that cross one another."""
    layers: tuple[list[Curves], list[Curves]] = ([], [])
    for number in range(RIBS):
        u, _, z, degrees = rib(body, number)
        thick = (4.6 + 0.5 * min(number, 5)) * (0.93 if body.female else 1.04)
        fade = np.clip((degrees - 84) / 12, 0.0, 1.0)
        front_end = np.clip((degrees[-1] - degrees) / 7, 0.0, 1.0) ** 0.5
        for side in (-1, 1):
            x = side * u + body.rotation_mm * (-0.4 + 0.01 * degrees)
            near = 1 - fade > 0
            far = fade > 0
            layers[0].append(Curves.along(x[near], z[near], thick * 0.92, 0.96 * (1 - fade[near])))
            layers[1].append(Curves.along(x[far], z[far], thick * (0.9 + 0.35 * fade[far]), 0.62 * (fade * front_end)[far]))
    total = np.zeros(canvas.shape)
    for layer in layers:
        curves = Curves.join(layer)
        total += canvas.tubes(curves, hollow=0.84, wall=0.72 * BONE, whole=1.1 * SPONGE)
    return total


def _spine(canvas: Canvas, body: Body) -> Map:
    """Optical depth of the vertebrae: bodies with end plates, pedicles, transverse and spinous processes."""
    total = np.zeros(canvas.shape)
    height = -84.0 * body.height
    for number in range(20):
        gap, half = (16.5 + 0.55 * number) * body.height, 11.5 + 0.34 * number
        sheet, part = canvas.window((0.0, height), 36.0)
        here = sheet.rounded_box((0.0, height), (half, 0.43 * gap))
        inner = sheet.rounded_box((0.0, height), (half - 2.5, 0.43 * gap - 2.2))
        total[part] += SPONGE * 22.0 * here + 0.05 * (here - inner)
        for side in (-1.0, 1.0):
            ring = sheet.ellipse((side * 0.62 * half, height - 0.08 * gap), (3.6, 4.8))
            total[part] += 0.09 * sheet.step(1.15 - ring, 0.25) - 0.05 * sheet.step(0.5 - ring, 0.2)
            total[part] += 0.08 * sheet.rounded_box((side * (half + 6.0), height - 0.1 * gap), (9.0, 3.4), -0.16 * side)
        tip = (0.5 * body.rotation_mm, height + 0.32 * gap)
        total[part] += 0.12 * sheet.step(1.0 - sheet.ellipse(tip, (2.8, 6.0)), 0.3)
        height += gap
    return total


def _shoulders(canvas: Canvas, body: Body, portable: bool) -> Map:
    """Optical depth of clavicles, shoulder blades and the heads of the upper arms."""
    total = np.zeros(canvas.shape)
    wide, tall = body.width, body.height
    lift = 8.0 if portable else 0.0
    for side in (-1.0, 1.0):
        turn = body.rotation_mm
        u = np.array([13.0, 34.0, 66.0, 98.0, 128.0, 154.0]) * wide
        z = (np.array([34.0, 27.0, 20.0, 14.0, 5.0, 0.0]) - lift) * tall
        clavicle = arc(
            list(side * u + turn), list(z), np.array([7.4, 5.6, 4.7, 4.7, 5.6, 6.4]), np.array([0.6, 0.9, 1.0, 1.0, 0.9, 0.7])
        )
        total += canvas.tubes(clavicle, hollow=0.86, wall=0.72 * BONE, whole=1.1 * SPONGE)
        inward = 0.0 if not portable else -16.0
        blade = [(112 + inward, 28), (160 + inward, 34), (168 + inward, 62), (140 + inward, 146), (131 + inward, 138)]
        corners = [(side * x * wide, z * tall) for x, z in blade]
        sheet, part = canvas.window((side * 140 * wide, 84 * tall), 75.0)
        total[part] += 0.14 * sheet.polygon(corners if side > 0 else corners[::-1], 2.0)
        edges = arc(
            [side * x * wide for x in (163 + inward, 158 + inward, 147 + inward, 137 + inward)],
            [58 * tall, 84 * tall, 118 * tall, 146 * tall],
            np.array([5.0, 3.6, 3.2, 3.0]),
        )
        ridge = arc(
            [side * x * wide for x in (116 + inward, 140 + inward, 168, 182)],
            [44 * tall, 26 * tall, 8 * tall, 4 * tall],
            np.array([2.6, 3.4, 4.6, 6.0]),
        )
        coracoid = arc([side * x * wide for x in (152.0, 146.0, 143.0)], [32 * tall, 24 * tall, 26 * tall], 4.4)
        total += canvas.tubes(Curves.join([edges, ridge, coracoid]), hollow=0.72, wall=0.75 * BONE, whole=0.0)
        sheet, part = canvas.window((side * 184 * wide, 36 * tall), 28.0)
        head = sheet.ellipse((side * 184 * wide, 36 * tall), (23.0, 24.0))
        total[part] += 0.26 * np.sqrt(np.maximum(1 - head, 0.0)) + 0.10 * sheet.step(0.12 - np.abs(head - 0.94), 0.12)
        shaft = arc(
            [side * x * wide for x in (188.0, 196.0, 206.0, 220.0)],
            [52 * tall, 110 * tall, 180 * tall, 300 * tall],
            np.array([13.0, 11.5, 11.0, 11.0]),
            np.array([0.0, 1.0, 1.0, 1.0]),
        )
        total += canvas.tubes(shaft, hollow=0.8, wall=0.6 * BONE, whole=0.0)
    return total


def _electrodes(canvas: Canvas, rng: np.random.Generator) -> Map:
    """Optical depth of three stick-on electrodes and their leads."""
    total = np.zeros(canvas.shape)
    wires = []
    for x, z in ((-105.0, 40.0), (100.0, 36.0), (82.0, 208.0)):
        x, z = x + rng.normal(0, 10), z + rng.normal(0, 10)
        sheet, part = canvas.window((x, z), 8.0)
        disc = sheet.ellipse((x, z), (5.0, 5.0))
        total[part] += 0.9 * sheet.step(1.0 - disc, 0.2) + 0.7 * sheet.step(0.16 - disc, 0.06)
        sway = rng.normal(0, 20, 2)
        wires.append(arc([x, x * 0.8 + sway[0], x * 0.5 + sway[1], rng.normal(0, 60)], [z, z + 50, z + 130, 330.0], 0.7))
    return total + 0.55 * np.clip(canvas.tubes(Curves.join(wires)), 0, 1)
