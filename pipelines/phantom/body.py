"""The people of the phantom cohort: what differs from body to body, and the opacities some of them have. All in mm.

The origin lies in the midline at the height of the first thoracic vertebra; x runs to the patient's left, y to the back,
z down. The same body is drawn from the front and from the side, so both views show the same person and the same finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIBS = 11
# Height at the spine, half width, drop from spine to front, and the angle at which the bone ends, of ribs 1 to 11.
RIB_Z = (-3.0, 17.0, 38.0, 60.0, 82.0, 104.0, 126.0, 148.0, 170.0, 192.0, 214.0)
RIB_HALF_WIDTH = (62.0, 93.0, 111.0, 122.0, 129.0, 134.0, 137.0, 139.0, 140.0, 138.0, 127.0)
RIB_DROP = (30.0, 48.0, 64.0, 76.0, 86.0, 92.0, 96.0, 96.0, 92.0, 84.0, 76.0)
RIB_END = (150.0, 146.0, 143.0, 140.0, 138.0, 136.0, 132.0, 126.0, 118.0, 108.0, 92.0)


@dataclass(frozen=True)
class Body:
    """One person as the phantom draws them.

    Attributes:
        female: breasts are drawn.
        age: in years; tortuous aorta, thin bones and a bent spine come with it.
        width: of the rib cage relative to the average; `height` likewise.
        fat_mm: soft tissue between ribs and skin.
        depth_mm: of the chest from front to back, inside the skin.
        dome_mm: height of the right diaphragm dome below the origin, at full inspiration about 215.
        left_dome_mm: how much lower the left dome is.
        heart: size relative to the average.
        knob_mm: how far the aortic knob stands out.
        rotation_mm: how far the front of the chest is turned to the patient's left.
        kyphosis: curvature of the thoracic spine relative to the average.
        breast_mm: thickness of the breasts.
        bone: mineral density relative to the average.
        bubble: size of the gastric bubble, 0 for none.
        marking: how strongly the vessels show.
        tree: seed of the vessel tree and of what is random inside this body.
    """

    female: bool
    age: int
    width: float
    height: float
    fat_mm: float
    depth_mm: float
    dome_mm: float
    left_dome_mm: float
    heart: float
    knob_mm: float
    rotation_mm: float
    kyphosis: float
    breast_mm: float
    bone: float
    bubble: float
    marking: float
    tree: int

    @classmethod
    def sample(cls, rng: np.random.Generator, *, female: bool, age: int) -> Body:
        old = np.clip((age - 45) / 50, 0, 1)
        fat = float(np.clip(rng.gamma(3.2, 6.0), 6, 48))
        return cls(
            female=female,
            age=age,
            width=float(np.clip(rng.normal(0.99 if female else 1.06, 0.05), 0.88, 1.16)),
            height=float(np.clip(rng.normal(0.98 if female else 1.04, 0.045), 0.88, 1.12)),
            fat_mm=fat,
            depth_mm=float(np.clip(rng.normal(205, 14) + 1.2 * fat, 170, 290)),
            dome_mm=float(np.clip(rng.normal(212, 12), 180, 232)),
            left_dome_mm=float(rng.normal(9, 4)),
            heart=float(np.clip(rng.normal(0.98 + 0.1 * old, 0.09), 0.8, 1.3)),
            knob_mm=float(np.clip(rng.normal(4 + 9 * old, 3), 1, 18)),
            rotation_mm=float(rng.normal(0, 4)),
            kyphosis=float(np.clip(rng.normal(0.9 + 0.7 * old, 0.2), 0.5, 2.0)),
            breast_mm=float(np.clip(rng.normal(26 + 0.5 * fat, 9), 8, 60)) if female else 0.0,
            bone=float(np.clip(rng.normal(1.05 - 0.25 * old, 0.1), 0.6, 1.3)),
            bubble=float(rng.uniform(0.6, 1.2)) if rng.random() < 0.55 else 0.0,
            marking=float(np.clip(rng.normal(1.0, 0.15), 0.7, 1.4)),
            tree=int(rng.integers(2**31)),
        )

    def lung_edge(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of the inner rib cage from the midline at height z: the envelope of the ribs."""
        knots = np.array(RIB_Z) + 0.5 * np.array(RIB_DROP)
        edges = np.array(RIB_HALF_WIDTH) - 3.0
        below, wide = [knots[-1] + 30, knots[-1] + 120], [edges[-2], edges[-2] - 6]
        height = np.concatenate([[3.0, 4.0, 6.0, 9.0], knots, below]) * self.height
        widths = np.concatenate([[34.0, 41.0, 49.0, 55.0], edges[:-1], [edges[-2]], wide]) * self.width
        return np.asarray(np.interp(z, height, widths))


@dataclass(frozen=True)
class Opacity:
    """A consolidated part of a lung.

    Attributes:
        side: -1 in the patient's right lung, 1 in the left.
        centre: (x, y, z) in mm.
        radii: (x, y, z) in mm.
        density: part of the air that is replaced, 0…1.
        seed: of its irregular edge and texture.
    """

    side: int
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    density: float
    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator, body: Body) -> Opacity:
        """A lobar or patchy consolidation anywhere in the lungs where a radiograph can show it."""
        side = -1 if rng.random() < 0.5 else 1
        z = float(rng.uniform(45, body.dome_mm * body.height - 22))
        edge = float(body.lung_edge(np.array([z]))[0])
        inner = 46.0 + (26.0 if side > 0 and z > 120 else 0.0)
        x = side * float(rng.uniform(inner, max(edge - 22, inner + 4)))
        y = float(rng.uniform(-0.26, 0.3)) * body.depth_mm
        size = float(rng.uniform(28, 52))
        stretch = np.exp(rng.normal(0, 0.22, 3))
        radii = tuple(float(r) for r in size * stretch)
        return cls(side, (x, y, z), (radii[0], radii[1], radii[2]), float(rng.uniform(0.9, 1.4)), int(rng.integers(2**31)))
