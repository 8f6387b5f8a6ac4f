"""The `strokes` canvas: Bezier strokes and filled shapes on a background, as in CLIPDraw; opens and writes SVG."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models import svg
from refcore_plugins.models.canvas_size import check_image_size, check_least_side
from refcore_plugins.models.stroke_raster import Paths, bezier_polyline, paint

POINTS, WIDTHS, COLOURS = "points", "widths", "colours"
"""Names of the strokes' parameters."""
SHAPE_POINTS, SHAPE_COLOURS = "shape_points", "shape_colours"
"""Names of the shapes' parameters."""
MOST = 4096
"""Largest number of strokes, and of shapes."""

Share = Annotated[float, Field(ge=0, le=1)]


class Strokes(Canvas):
    """S open strokes over M filled shapes over a background, each a path of cubic Bezier curves with a colour.

    C = sum_i c_i a_i prod_{j > i} (1 - a_j), in the order of painting, with a_i the opacity of path i times the share
    of the pixel that it covers: a smooth step of the distance to the path. Shapes are filled by the even-odd rule; caps
    and joins of strokes are round. Widths and colours that leave their bounds are folded back, so that they have a
    gradient everywhere. Source: Frans et al., "CLIPDraw" (2021), arXiv 2106.14843, with diffvg (Li et al., SIGGRAPH
    Asia 2020) in the place of this rasteriser.

    A run writes `image_N.svg` beside each `image_N.png`, and `init: drawing.svg` starts from the paths of a drawing.
    """

    class Config(PluginConfig):
        strokes: int = Field(256, ge=0, le=MOST, description="Number of open strokes.")
        segments: tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]] = Field(
            (1, 3),
            description="Least and most cubic segments of a stroke. Strokes take the numbers between them in turn.",
        )
        radius: float = Field(
            0.1,
            gt=0,
            le=2,
            description="The initial points of a stroke are a random walk: each is at most half of this from the one "
            "before in x and in y, as a share of the picture's sides.",
        )
        width: float = Field(1.0, gt=0, le=1000, description="Initial width of the strokes, in pixels.")
        widths: tuple[Annotated[float, Field(gt=0, le=1000)], Annotated[float, Field(gt=0, le=1000)]] = Field(
            (1.0, 50.0), description="Smallest and largest width of a stroke, in pixels."
        )
        color: tuple[Share, Share, Share] | None = Field(
            None, description="Initial red, green and blue of every path, from 0 to 1; null: random ones for each."
        )
        opacity: Share | None = Field(
            None, description="Initial opacity of every path, from 0 to 1; null: a random one for each."
        )
        shapes: int = Field(0, ge=0, le=MOST, description="Number of closed, filled shapes, below all strokes.")
        shape_segments: int = Field(4, ge=2, le=64, description="Cubic segments of a shape's outline.")
        shape_radius: float = Field(
            0.15,
            gt=0,
            le=2,
            description="Mean radius of the initial shapes, nearly circles, as a share of the picture's shorter side. "
            "Each has between half and one and a half of it.",
        )
        background: tuple[Share, Share, Share] = Field(
            (1.0, 1.0, 1.0), description="Red, green and blue below all paths, from 0 to 1."
        )
        edge: Schedule = Field(
            1.2,
            gt=0,
            le=64,
            description="Width in pixels of the ramp at the edges of paths, where alone their points have a gradient. "
            "1.2 comes nearest to the antialiasing of SVG renderers; wider edges are soft. A schedule can end at 1.2.",
        )
        pieces: int = Field(12, ge=1, le=64, description="Straight pieces by which a segment is drawn.")

        @model_validator(mode="after")
        def _sensible(self) -> Any:
            if not self.strokes + self.shapes:
                raise ValueError("strokes and shapes are both 0; expected at least one of them")
            for name in ("segments", "widths"):
                low, high = getattr(self, name)
                if low > high or (name == "widths" and low == high):
                    raise ValueError(f"{name} are [{low:g}, {high:g}]; expected the smaller one first")
            if not self.widths[0] <= self.width <= self.widths[1]:
                low, high = self.widths
                raise ValueError(f"width is {self.width:g}; expected {low:g} to {high:g}, the bounds of `widths`")
            return self

    name = "strokes"
    config: Config
    opens: ClassVar[tuple[str, ...]] = (".svg",)

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any size of at least 1x1 pixels; 224x224 by default. `dtype` is ignored: paths are float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (224, 224)
        check_least_side(self.size, 1)
        own = self.config
        self._background = torch.tensor(own.background, device=self.device)
        self._segments = stroke_segments(own.strokes, own.segments)
        """Number of segments of each stroke."""
        counts = [own.shape_segments] * own.shapes + self._segments
        self._pieces = torch.tensor(counts, device=self.device) * own.pieces
        self._closed = torch.arange(own.shapes + own.strokes, device=self.device) < own.shapes

    def init(self, rng: Rng) -> CanvasParams:
        """Random walks and rough circles, uniform over the picture.

        Returns:
            Of the strokes `points` [B, S, 3 n + 1, 2] (x, y in pixels; n the most segments, points beyond a stroke's
            own segments unused), `widths` [B, S] in pixels, `colours` [B, S, 4] (red, green, blue, opacity); of the
            shapes `shape_points` [B, M, 3 m, 2] (in turn a corner and two control points) and `shape_colours`
            [B, M, 4].
        """
        own, (height, width) = self.config, self.size
        sides = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        params: CanvasParams = {}
        if own.strokes:
            start = rng.uniform(0, 1, own.strokes, 1, 2).to(self.device)
            steps = rng.uniform(-own.radius / 2, own.radius / 2, own.strokes, 3 * own.segments[1], 2).to(self.device)
            params[POINTS] = torch.cat([start, start + steps.cumsum(2)], 2) * sides
            params[WIDTHS] = start.new_full(start.shape[:2], own.width)
            params[COLOURS] = self._initial_colours(rng, own.strokes)
        if own.shapes:
            centre = rng.uniform(0, 1, own.shapes, 1, 2).to(self.device) * sides
            radius = rng.uniform(0.5, 1.5, own.shapes, 1, 1).to(self.device) * own.shape_radius * min(self.size)
            params[SHAPE_POINTS] = centre + radius * circle(own.shape_segments).to(self.device)
            params[SHAPE_COLOURS] = self._initial_colours(rng, own.shapes)
        return params

    def _initial_colours(self, rng: Rng, count: int) -> Tensor:
        """[B, count, 4]"""
        drawn = rng.uniform(0, 1, count, 4).to(self.device)
        if self.config.color is not None:
            drawn[..., :3] = torch.tensor(self.config.color)
        if self.config.opacity is not None:
            drawn[..., 3] = self.config.opacity
        return drawn

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return paint(self._paths(params), self._background, self.size, at.of(self.config.edge))

    def _paths(self, params: CanvasParams) -> Paths:
        """All paths in the order of painting, as polylines of equally many points."""
        most = max([self.config.shape_segments] * bool(self.config.shapes) + self._segments) * self.config.pieces
        lines, half, colours = [], [], []
        if self.config.shapes:
            points = params[SHAPE_POINTS]
            lines.append(self._polylines(torch.cat([points, points[:, :, :1]], 2), most))
            half.append(points.new_zeros(points.shape[:2]))
            colours.append(params[SHAPE_COLOURS])
        if self.config.strokes:
            lines.append(self._polylines(params[POINTS], most))
            half.append(folded(params[WIDTHS], *self.config.widths) / 2)
            colours.append(params[COLOURS])
        colour = folded(torch.cat(colours, 1), 0.0, 1.0)
        return Paths(torch.cat(lines, 1), self._pieces, self._closed, torch.cat(half, 1), colour)

    def _polylines(self, points: Tensor, most: int) -> Tensor:
        """[B, S, most + 1, 2] from control points [B, S, 3 n + 1, 2], the last point repeated as often as it takes."""
        lines = bezier_polyline(points.flatten(0, 1), self.config.pieces)
        spare = lines[:, -1:].expand(-1, most + 1 - lines.shape[1], -1)
        return torch.cat([lines, spare], 1).view(*points.shape[:2], most + 1, 2)

    @torch.no_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """A mosaic of images [B, 3, H, W] in [0, 1], (H, W) = `size`: an opaque stroke a cell, in its mean colour.

        With S strokes there are S cells, as square as can be. Shapes make a mosaic of their own below them. Detail
        within a cell is lost.

        Raises:
            RefcoreError: the images have another size.
        """
        check_image_size(images, self.size)
        images = images.to(self.device, torch.float32)
        own = self.config
        params: CanvasParams = {}
        if own.strokes:
            boxes = cells(own.strokes, self.size).to(self.device)
            left, top, right, bottom = boxes.unbind(-1)
            along = torch.linspace(0, 1, 3 * own.segments[1] + 1, device=self.device)
            ends = torch.tensor([own.segments[1] / n for n in self._segments], device=self.device)[:, None]
            widths = (bottom - top + 1).clamp(*own.widths)  # a pixel more, or lines of the background shine through
            first = torch.minimum(left + widths / 2, right)  # the cap ends with the cell; the next cell covers the last
            x = torch.lerp(first[:, None], right[:, None], (along * ends).clamp(max=1))
            points = torch.stack([x, ((top + bottom) / 2)[:, None].expand_as(x)], -1)
            params[POINTS], params[WIDTHS] = (
                value.expand(len(images), *value.shape).clone() for value in (points, widths)
            )
            params[COLOURS] = mean_colours(images, boxes)
        if own.shapes:
            boxes = cells(own.shapes, self.size).to(self.device)
            outline = rectangle(own.shape_segments).to(self.device)
            points = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * outline
            params[SHAPE_POINTS] = points.expand(len(images), *points.shape).clone()
            params[SHAPE_COLOURS] = mean_colours(images, boxes)
        return params

    def files(self, params: CanvasParams) -> list[dict[str, str]]:
        """The picture of each sample as SVG: the same paths, whose edges a renderer antialiases in its own way."""
        return [
            {".svg": svg.written(self._drawn(params, b), self.size, self.config.background)}
            for b in range(_rows(params))
        ]

    @torch.no_grad()
    def _drawn(self, params: CanvasParams, b: int) -> list[svg.Path]:
        """The paths of sample b in the order of painting."""
        found: list[svg.Path] = []
        if self.config.shapes:
            points = params[SHAPE_POINTS][b]
            outlines = torch.cat([points, points[:, :1]], 1).tolist()
            colours = folded(params[SHAPE_COLOURS][b], 0.0, 1.0).tolist()
            found += [svg.Path(_pairs(line), _rgba(colour)) for line, colour in zip(outlines, colours, strict=True)]
        if self.config.strokes:
            widths = folded(params[WIDTHS][b], *self.config.widths).tolist()
            colours = folded(params[COLOURS][b], 0.0, 1.0).tolist()
            for line, n, width, colour in zip(params[POINTS][b].tolist(), self._segments, widths, colours, strict=True):
                found.append(svg.Path(_pairs(line[: 3 * n + 1]), _rgba(colour), width))
        return found

    def open(self, text: str) -> CanvasParams:
        """The paths of an SVG drawing, scaled to fill the picture as a photograph would; of one sample.

        Its fills are the shapes and its strokes the strokes, in their order. Spare ones of the config are invisible.

        Raises:
            RefcoreError: the drawing has more paths, or longer ones, than the config, paints a fill over a stroke, or
                has what is not read (see `refcore_plugins.models.svg`).
        """
        drawn = svg.read(text, self.size, self.config.background)
        shapes, strokes = svg.in_two(drawn)
        own = self.config
        params = self.encode(torch.zeros(1, 3, *self.size))
        for colours in params.keys() & {COLOURS, SHAPE_COLOURS}:
            params[colours] = torch.zeros_like(params[colours])
        for name, field, paths in (("filled shape", "shapes", shapes), ("stroke", "strokes", strokes)):
            if len(paths) > (most := getattr(own, field)):
                raise RefcoreError(
                    f"the drawing has {len(paths)} {name}{'s' * (len(paths) > 1)}, and canvas.config.{field} is "
                    f"{most}; set canvas.config.{field}={len(paths)}"
                )
        for i, path in enumerate(shapes):
            longest = max(shape.segments for shape in shapes)
            points = _divided(path, own.shape_segments, f"filled shape {i + 1}", f"shape_segments={longest}")
            params[SHAPE_POINTS][0, i] = torch.tensor(points[:-1], device=self.device)
            params[SHAPE_COLOURS][0, i] = torch.tensor(path.colour, device=self.device)
        for i, path in enumerate(strokes):
            n = self._segments[i]
            longest = max(stroke.segments for stroke in strokes)
            points = _divided(path, n, f"stroke {i + 1}", f"segments=[{longest}, {longest}]")
            low, high = own.widths
            assert path.width is not None, "a stroke has a width"
            if not low - 1e-3 <= path.width <= high + 1e-3:
                raise RefcoreError(
                    f"stroke {i + 1} of the drawing is {path.width:.4g} pixels wide, and canvas.config.widths are "
                    f"[{low:g}, {high:g}]; set canvas.config.widths="
                    f"[{min(low, path.width):.4g}, {max(high, path.width):.4g}]"
                )
            params[POINTS][0, i] = torch.tensor(points[-1:], device=self.device)
            params[POINTS][0, i, : 3 * n + 1] = torch.tensor(points, device=self.device)
            params[WIDTHS][0, i] = min(max(path.width, low), high)
            params[COLOURS][0, i] = torch.tensor(path.colour, device=self.device)
        return params


def folded(x: Tensor, low: float, high: float) -> Tensor:
    """x within its bounds, and reflected at them beyond: slope 1 or -1 everywhere, so that no parameter gets stuck.

    CLIPDraw clamps its parameters after every step. An optimiser that pushes against a bound stays at it here, too.
    """
    span = high - low
    place = torch.remainder(x - low, 2 * span)
    return low + torch.where(place <= span, place, 2 * span - place)


def stroke_segments(strokes: int, segments: tuple[int, int]) -> list[int]:
    """Number of segments of each stroke: from the least to the most in turn.

    >>> stroke_segments(5, (1, 3))
    [1, 2, 3, 1, 2]
    """
    least, most = segments
    return [least + i % (most - least + 1) for i in range(strokes)]


def circle(segments: int) -> Tensor:
    """[3 n, 2] a circle of radius 1 by n cubic Bezier curves: in turn a point on it and two control points.

    The tangents are 4/3 tan(pi / 2n) long, which for n = 4 is 0.03 % off (Riskus, 2006).
    """
    angle = torch.arange(segments) * (2 * math.pi / segments)
    on = torch.stack([angle.cos(), angle.sin()], -1)
    tangent = torch.stack([-angle.sin(), angle.cos()], -1) * (4 / 3 * math.tan(math.pi / (2 * segments)))
    following, backward = on.roll(-1, 0), tangent.roll(-1, 0)
    return torch.stack([on, on + tangent, following - backward], 1).flatten(0, 1)


def rectangle(segments: int) -> Tensor:
    """[3 n, 2] the outline of the unit square, clockwise from (0, 0); exact if n is a multiple of 4."""
    way = torch.arange(3 * segments) * (4 / (3 * segments))
    x = torch.minimum(way, 3 - way).clamp(0, 1)
    y = torch.minimum(way - 1, 4 - way).clamp(0, 1)
    return torch.stack([x, y], -1)


def cells(count: int, size: tuple[int, int]) -> Tensor:
    """[count, 4] (left, top, right, bottom) in pixels of a grid over (height, width), row by row, nearly square."""
    height, width = size
    rows = min(count, max(1, round(math.sqrt(count * height / width))))
    found = []
    for row in range(rows):
        columns = (row + 1) * count // rows - row * count // rows
        top, bottom = row * height / rows, (row + 1) * height / rows
        found += [[c * width / columns, top, (c + 1) * width / columns, bottom] for c in range(columns)]
    return torch.tensor(found)


def mean_colours(images: Tensor, boxes: Tensor) -> Tensor:
    """[B, N, 4] the mean colour of images [B, 3, H, W] in boxes [N, 4] (in whole pixels, at least one), opaque."""
    height, width = images.shape[-2:]
    found = []
    for left, top, right, bottom in boxes.round().long().tolist():
        x, y = min(left, width - 1), min(top, height - 1)
        found.append(images[..., y : max(bottom, y + 1), x : max(right, x + 1)].mean((-2, -1)))
    colours = torch.stack(found, 1)
    return torch.cat([colours, torch.ones_like(colours[..., :1])], -1)


def _divided(path: svg.Path, segments: int, what: str, remedy: str) -> list[svg.Point]:
    """The points of a path, its longest segments halved until it has as many as the canvas."""
    if path.segments > segments:
        raise RefcoreError(
            f"{what} of the drawing has {path.segments} segments, and that of the canvas {segments}; set "
            f"canvas.config.{remedy}"
        )
    return svg.divided(path.points, segments)


def _rows(params: CanvasParams) -> int:
    return len(next(iter(params.values())))


def _pairs(points: list[list[float]]) -> list[svg.Point]:
    return [(x, y) for x, y in points]


def _rgba(colour: list[float]) -> svg.Colour:
    red, green, blue, opacity = colour
    return red, green, blue, opacity
