"""A sheet in millimetres to draw path lengths on: soft edges, tubes along curves, ellipsoids, clouds.

Everything is computed in float64 with elementwise operations and scipy.ndimage, without BLAS or threads. Machines may differ in
the last bits of `exp` or `sin`; what is drawn is rounded to integers in the end, which such differences (1e-15) don't survive.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Map = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Canvas:
    """A sheet of `rows` × `columns` pixels whose first pixel lies at (`left_mm`, `top_mm`); x runs right, z runs down."""

    rows: int
    columns: int
    spacing_mm: float
    left_mm: float
    top_mm: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @cached_property
    def x(self) -> Map:
        """Horizontal positions in mm, shape (1, columns)."""
        return (self.left_mm + self.spacing_mm * np.arange(self.columns, dtype=np.float64))[None, :]

    @cached_property
    def z(self) -> Map:
        """Vertical positions in mm, shape (rows, 1)."""
        return (self.top_mm + self.spacing_mm * np.arange(self.rows, dtype=np.float64))[:, None]

    def step(self, signed_mm: Map, width_mm: float = 1.0) -> Map:
        """0 where `signed_mm` is well below zero, 1 where well above, smooth over `width_mm`."""
        edge = np.clip(signed_mm / (2 * width_mm) + 0.5, 0.0, 1.0)
        return edge * edge * (3 - 2 * edge)

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Map:
        """Squared distance from `centre` in units of the radii: below 1 inside. `angle` (radians) turns towards +z."""
        along, across = np.cos(angle), np.sin(angle)
        x, z = self.x - centre[0], self.z - centre[1]
        squared: Map = ((x * along + z * across) / radii[0]) ** 2 + ((z * along - x * across) / radii[1]) ** 2
        return squared

    def ellipsoid(self, centre: tuple[float, float], radii: tuple[float, float], depth_mm: float, angle: float = 0.0) -> Map:
        """Path length in mm through an ellipsoid that is `depth_mm` thick at its centre."""
        return depth_mm * np.sqrt(np.maximum(1.0 - self.ellipse(centre, radii, angle), 0.0))

    def rounded_box(self, centre: tuple[float, float], half: tuple[float, float], angle: float = 0.0) -> Map:
        """1 inside a box with rounded corners, 0 outside, soft over about a millimetre."""
        along, across = np.cos(angle), np.sin(angle)
        x, z = self.x - centre[0], self.z - centre[1]
        u, v = np.square((x * along + z * across) / half[0]), np.square((z * along - x * across) / half[1])
        radius = np.sqrt(np.sqrt(u * u + v * v))
        return self.step((1.0 - radius) * min(half), 0.8)

    def window(self, centre: tuple[float, float], reach_mm: float) -> tuple[Canvas, tuple[slice, slice]]:
        """The part of this canvas within `reach_mm` of `centre`, as a canvas of its own and as a slice of this one."""
        return self._part(
            np.array([centre[0] - reach_mm, centre[0] + reach_mm]), np.array([centre[1] - reach_mm, centre[1] + reach_mm])
        )

    def between(self, z: list[float], left: list[float], right: list[float], depth: list[float]) -> Map:
        """Path length in mm through a solid given by its left and right outline and its depth at some heights."""
        first, last = z[0], z[-1]
        edges = [np.interp(self.z, *smooth(values, z, 160)[::-1]) for values in (left, right, depth)]
        middle, half = 0.5 * (edges[0] + edges[1]), np.maximum(0.5 * (edges[1] - edges[0]), 1e-6)
        deep: Map = edges[2] * self.step(self.z - first, 3.0) * self.step(last - self.z, 3.0)
        return deep * bulge((self.x - middle) / half)

    def polygon(self, corners: list[tuple[float, float]], width_mm: float = 1.5) -> Map:
        """1 inside a convex polygon (corners clockwise on the sheet), 0 outside, soft over `width_mm`."""
        inside = np.full(self.shape, np.inf)
        for (x0, z0), (x1, z1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            length = np.hypot(x1 - x0, z1 - z0)
            inside = np.minimum(inside, ((x1 - x0) * (self.z - z0) - (z1 - z0) * (self.x - x0)) / length)
        return self.step(inside, width_mm)

    def cloud(self, rng: np.random.Generator, grain_mm: float) -> Map:
        """A smooth random field of mean about 0 and standard deviation about 1, with structures of about `grain_mm`."""
        step = max(grain_mm / 2, self.spacing_mm)
        shape = (int(self.rows * self.spacing_mm / step) + 3, int(self.columns * self.spacing_mm / step) + 3)
        coarse = ndimage.gaussian_filter(rng.standard_normal(shape), 1.0, mode="wrap")
        return enlarge(coarse / 0.28, self.shape)

    def tubes(self, curves: Curves, *, hollow: float = 0.0, wall: float = 0.0, whole: float = 1.0) -> Map:
        """Path length in mm through tubes along `curves`, where the nearest curve decides.

        `hollow` is the inner radius in units of the outer one. The path through the wall alone is weighted by `wall`, the
        path through the whole tube by `whole`: bone is a dense wall, brighter at its edges, around a spongy inside.
        """
        total = np.zeros(self.shape)
        reach = float(curves.radius.max()) + 2 * self.spacing_mm
        reaches = np.array([[-reach], [reach]])
        sheet, part = self._part(curves.x + reaches, curves.z + reaches)
        rows, columns, point = sheet._nearest(curves, reach)
        dx = sheet.x[0, columns] - curves.x[point]
        dz = sheet.z[rows, 0] - curves.z[point]
        along = np.abs(dx * curves.tangent_x[point] + dz * curves.tangent_z[point])
        across = dx * curves.tangent_z[point] - dz * curves.tangent_x[point]
        squared = across**2 + np.maximum(along - 2 * self.spacing_mm, 0.0) ** 2
        radius = curves.radius[point]
        path = (wall + whole) * np.sqrt(np.maximum(radius**2 - squared, 0.0))
        if hollow:
            path -= wall * np.sqrt(np.maximum((hollow * radius) ** 2 - squared, 0.0))
        total[part][rows, columns] = 2 * path * curves.weight[point]
        return total

    def _part(self, x: Map, z: Map) -> tuple[Canvas, tuple[slice, slice]]:
        """The part of this canvas that holds all points (`x`, `z`)."""
        slices, starts = [], []
        for values, start, count in ((z, self.top_mm, self.rows), (x, self.left_mm, self.columns)):
            first = int(np.clip((values.min() - start) / self.spacing_mm, 0, count))
            last = int(np.clip((values.max() - start) / self.spacing_mm + 2, first, count))
            slices.append(slice(first, last))
            starts.append(start + first * self.spacing_mm)
        rows, columns = (part.stop - part.start for part in slices)
        return Canvas(rows, columns, self.spacing_mm, starts[1], starts[0]), (slices[0], slices[1])

    def _nearest(self, curves: Curves, reach: float) -> tuple[Index, Index, Index]:
        """Rows and columns of the pixels within reach of a curve, and the index of the curve point nearest to each.

        The nearest point is found on a grid of half the resolution; distances are then taken from the point itself.
        """
        half = ((self.rows + 1) // 2, (self.columns + 1) // 2)
        row = np.rint((curves.z - self.top_mm) / self.spacing_mm).astype(np.int64) // 2
        column = np.rint((curves.x - self.left_mm) / self.spacing_mm).astype(np.int64) // 2
        seen = (row >= 0) & (row < half[0]) & (column >= 0) & (column < half[1])
        if not seen.any():
            return (np.empty(0, np.int64),) * 3
        sites = np.full(half, -1, dtype=np.int64)
        sites[row[seen], column[seen]] = np.flatnonzero(seen)
        nearest = ndimage.distance_transform_edt(sites < 0, return_distances=False, return_indices=True)
        i, j = np.indices(half, sparse=True)
        near = (nearest[0] - i) ** 2 + (nearest[1] - j) ** 2 <= (reach / (2 * self.spacing_mm) + 1) ** 2
        at = np.nonzero(near)
        point = sites[nearest[0][at], nearest[1][at]]
        rows = np.concatenate([2 * at[0], 2 * at[0], 2 * at[0] + 1, 2 * at[0] + 1])
        columns = np.concatenate([2 * at[1], 2 * at[1] + 1, 2 * at[1], 2 * at[1] + 1])
        inside = (rows < self.rows) & (columns < self.columns)
        return rows[inside], columns[inside], np.tile(point, 4)[inside]


@dataclass(frozen=True)
class Curves:
    """Points along curves, about a millimetre apart, with the tangent, the radius in mm and a weight at each."""

    x: Map
    z: Map
    tangent_x: Map
    tangent_z: Map
    radius: Map
    weight: Map

    @classmethod
    def along(cls, x: Map, z: Map, radius: Map | float, weight: Map | float = 1.0) -> Curves:
        """One curve through the points (`x`, `z`), made dense by linear interpolation."""
        length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
        at = np.linspace(0.0, length[-1], max(int(length[-1]), 2))
        dense_x, dense_z = np.interp(at, length, x), np.interp(at, length, z)
        gradient_x, gradient_z = np.gradient(dense_x), np.gradient(dense_z)
        norm = np.maximum(np.hypot(gradient_x, gradient_z), 1e-9)
        radii = np.interp(at, length, np.broadcast_to(radius, x.shape))
        weights = np.interp(at, length, np.broadcast_to(weight, x.shape))
        return cls(dense_x, dense_z, gradient_x / norm, gradient_z / norm, radii, weights)

    @classmethod
    def join(cls, curves: list[Curves]) -> Curves:
        """All the points of several curves; where two fall on one pixel the later one is seen."""
        names = ("x", "z", "tangent_x", "tangent_z", "radius", "weight")
        return cls(*(np.concatenate([getattr(curve, name) for curve in curves]) for name in names))


def smooth(x: list[float], z: list[float], points: int = 40) -> tuple[Map, Map]:
    """A smooth curve through a few points (Catmull–Rom), as `points` positions."""
    knots = np.stack([np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64)])
    padded = np.concatenate([2 * knots[:, :1] - knots[:, 1:2], knots, 2 * knots[:, -1:] - knots[:, -2:-1]], axis=1)
    at = np.linspace(0, knots.shape[1] - 1, points)
    segment = np.minimum(at.astype(np.int64), knots.shape[1] - 2)
    t = at - segment
    p0, p1, p2, p3 = (padded[:, segment + k] for k in range(4))
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return curve[0], curve[1]


def bulge(offset: Map) -> Map:
    """The half thickness of a rounded slab at `offset` from its middle, both in units of their largest: √(1 − |offset|^2.5)."""
    size = np.abs(offset)
    return np.asarray(np.sqrt(np.maximum(1 - size * size * np.sqrt(size), 0.0)))


def enlarge(small: Map, shape: tuple[int, int]) -> Map:
    """`small` stretched to `shape` by linear interpolation."""
    for axis in (0, 1):
        at = np.linspace(0.0, small.shape[axis] - 1.0, shape[axis])
        low = np.minimum(at.astype(np.int64), small.shape[axis] - 2)
        part = (at - low)[:, None] if axis == 0 else (at - low)[None, :]
        small = np.take(small, low, axis) * (1 - part) + np.take(small, low + 1, axis) * part
    return small
