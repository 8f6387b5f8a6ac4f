"""Geometric augmentations: affine, perspective, resized crop, shift and window, each a 3x3 matrix from view to source.

Matrices map homogeneous view coordinates to source coordinates. Both are in [-1, 1], from outer edge to outer edge of
the pixels (`align_corners=False`). The engine multiplies the matrices of a chain and samples the image once.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field, field_validator
from torch import Tensor

from refcore.config.schedule import Schedule, WholeSchedule, ascending, span
from refcore.contracts.augmentation import Augmentation, Params
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng

Positive = Annotated[Schedule, Field(gt=0)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(ascending)]
"""[low, high] with 0 < low <= high in every step."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[Schedule, Field(ge=0, le=1)]


def happens(rng: Rng, probability: float) -> Tensor:
    """[n] float32: 1 for the views to which an augmentation applies, 0 for the others."""
    return (rng.uniform(0, 1) < probability).float()


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """[n, 3, 3] matrices from nine tensors [n]."""
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


class Affine(Augmentation):
    """Rotation about the centre, zoom and shift. Angles are preserved in pixels, also in views that are not square."""

    class Config(PluginConfig):
        degrees: Schedule = Field(30.0, ge=0, le=180, description="Largest rotation in degrees, in either direction.")
        translate: Schedule = Field(
            0.1, ge=0, le=1, description="Largest shift in either direction, as a fraction of the view's side."
        )
        scale: Range = Field(
            (1.0, 1.0), description="Lowest and highest magnification; above 1 the content is enlarged."
        )
        p: Probability = Field(1.0, description="Fraction of the views to which it applies.")

    name = "affine"
    geometric: ClassVar[bool] = True
    config: Config

    @property
    def zoom(self) -> float:
        return max(1.0, span(self.config.scale[1])[1])

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """angle [n] in radians, counter-clockwise; shift [n, 2] (x, y) in view coordinates; scale [n]; aspect [n]."""
        on = happens(rng, at.of(self.config.p))
        angle = rng.uniform(-1, 1) * math.radians(at.of(self.config.degrees))
        shift = rng.uniform(-1, 1, 2) * (2 * at.of(self.config.translate))  # the view is 2 wide
        low, high = map(at.of, self.config.scale)
        scale = rng.uniform(low, high)
        return {
            "angle": angle * on,
            "shift": shift * on[:, None],
            "scale": torch.where(on > 0, scale, 1.0),
            "aspect": torch.full_like(angle, size[1] / size[0]),
        }

    def matrix(self, params: Params) -> Tensor:
        scale, aspect, (x, y) = params["scale"], params["aspect"], params["shift"].unbind(-1)
        cos, sin = params["angle"].cos() / scale, params["angle"].sin() / scale
        across, down = -sin / aspect, sin * aspect
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        return _matrix(
            [
                [cos, across, -(cos * x + across * y)],
                [down, cos, -(down * x + cos * y)],
                [zero, zero, one],
            ]
        )


class Perspective(Augmentation):
    """Random inward shift of the image's corners, as in the RandomPerspective of torchvision and kornia.

    The matrix is in closed form (Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3),
    which avoids a linear system and its synchronisation with the device.
    """

    class Config(PluginConfig):
        distortion: Schedule = Field(
            0.2,
            ge=0,
            lt=2 / 3,
            description="Largest shift of a corner, as a fraction of the distance to the centre line; from 2/3 on the "
            "image could fold over.",
        )
        p: Probability = Field(0.5, description="Fraction of the views to which it applies.")

    name = "perspective"
    geometric: ClassVar[bool] = True
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """inward [n, 4, 2]: inward shifts (x, y) of the corners, clockwise from the top left, in view coordinates."""
        on = happens(rng, at.of(self.config.p))
        return {"inward": rng.uniform(0, at.of(self.config.distortion), 4, 2) * on[:, None, None]}

    def matrix(self, params: Params) -> Tensor:
        inward = params["inward"]
        corners = inward.new_tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = ((corners * (1 - inward))[:, i].unbind(-1) for i in range(4))
        # Unit square -> quadrilateral: [[a, b, x0], [d, e, y0], [g, h, 1]].
        dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
        dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
        determinant = dx1 * dy2 - dx2 * dy1
        g, h = (sx * dy2 - dx2 * sy) / determinant, (dx1 * sy - sx * dy1) / determinant
        a, b, d, e = x1 - x0 + g * x1, x3 - x0 + h * x3, y1 - y0 + g * y1, y3 - y0 + h * y3
        # Its inverse up to a factor (the adjugate), then unit square -> [-1, 1].
        adjugate = _matrix(
            [
                [e - y0 * h, x0 * h - b, b * y0 - x0 * e],
                [y0 * g - d, a - x0 * g, x0 * d - a * y0],
                [d * h - e * g, b * g - a * h, a * e - b * d],
            ]
        )
        to_square = inward.new_tensor([[2.0, 0.0, -1.0], [0.0, 2.0, -1.0], [0.0, 0.0, 1.0]])
        matrix = to_square @ adjugate
        return matrix / matrix[:, 2:, 2:]


class ResizedCrop(Augmentation):
    """A random crop of the image, resized to the view: Inception's augmentation (arXiv 1409.4842, section 6)."""

    class Config(PluginConfig):
        scale: Range = Field(
            (0.25, 1.0), description="Smallest and largest area of the crop, as a fraction of the image's."
        )
        ratio: Range = Field(
            (3 / 4, 4 / 3),
            description="Lowest and highest aspect ratio (width to height), relative to the image's; 1 keeps it.",
        )
        p: Probability = Field(1.0, description="Fraction of the views to which it applies.")

    name = "resized_crop"
    geometric: ClassVar[bool] = True
    config: Config

    @property
    def zoom(self) -> float:
        low, high = span(self.config.ratio[0])[0], span(self.config.ratio[1])[1]
        return max(1.0, 1 / math.sqrt(span(self.config.scale[0])[0] * min(low, 1 / high)))

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """extent [n, 2]: width and height of the crop as fractions of the image's; centre [n, 2] in source coordinates.

        Area, log aspect ratio and place are uniform. A side longer than the image's is clamped to it.
        """
        on = happens(rng, at.of(self.config.p))[:, None]
        smallest, largest = map(at.of, self.config.scale)
        area = rng.uniform(smallest, largest)
        low, high = map(at.of, self.config.ratio)
        ratio = rng.uniform(math.log(low), math.log(high)).exp()
        extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=-1).clamp(max=1)
        extent = torch.where(on > 0, extent, 1.0)
        return {"extent": extent, "centre": rng.uniform(-1, 1, 2) * (1 - extent)}

    def matrix(self, params: Params) -> Tensor:
        (width, height), (x, y) = params["extent"].unbind(-1), params["centre"].unbind(-1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return _matrix([[width, zero, x], [zero, height, y], [zero, zero, one]])


class Shift(Augmentation):
    """Random shift by whole pixels of the view, by a fraction of its side, or by the sum of both."""

    class Config(PluginConfig):
        pixels: WholeSchedule = Field(
            0, ge=0, description="Largest shift in either direction, in whole pixels of the view."
        )
        fraction: Schedule = Field(
            0.0, ge=0, le=1, description="Largest shift in either direction, as a fraction of the view's side."
        )
        p: Probability = Field(1.0, description="Fraction of the views to which it applies.")

    name = "shift"
    geometric: ClassVar[bool] = True
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """shift [n, 2] (x, y) in view coordinates; positive is right and down."""
        on = happens(rng, at.of(self.config.p))[:, None]
        pixels = at.whole(self.config.pixels)
        whole = rng.integers(-pixels, pixels + 1, 2)
        pixel = torch.tensor([2 / size[1], 2 / size[0]]).to(whole.device, non_blocking=True)
        return {"shift": on * (whole * pixel + rng.uniform(-1, 1, 2) * (2 * at.of(self.config.fraction)))}

    def matrix(self, params: Params) -> Tensor:
        x, y = params["shift"].unbind(-1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return _matrix([[one, zero, -x], [zero, one, -y], [zero, zero, one]])


class Window(Augmentation):
    """A fixed part of the image, so that a referee with a view group of its own judges this part alone.

    Augmentations after it move within the window; what they uncover is the image around it.
    """

    class Config(PluginConfig):
        box: tuple[Fraction, Fraction, Fraction, Fraction] = Field(
            (0.0, 0.0, 1.0, 1.0),
            description="Left, top, right and bottom edge, as fractions of the image's width and height.",
        )

        @field_validator("box")
        @classmethod
        def _not_empty(cls, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
            left, top, right, bottom = box
            if left >= right or top >= bottom:
                raise ValueError(
                    f"{list(box)} is empty; expected [left, top, right, bottom] with left < right, top < bottom"
                )
            return box

    name = "window"
    geometric: ClassVar[bool] = True
    config: Config

    @property
    def zoom(self) -> float:
        left, top, right, bottom = self.config.box
        return 1 / min(right - left, bottom - top)

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """box [n, 4], the same for all views."""
        one = rng.uniform(0, 1)
        return {"box": one.new_tensor(self.config.box).expand(len(one), 4)}

    def matrix(self, params: Params) -> Tensor:
        left, top, right, bottom = params["box"].unbind(-1)
        zero, one = torch.zeros_like(left), torch.ones_like(left)
        return _matrix(
            [[right - left, zero, left + right - 1], [zero, bottom - top, top + bottom - 1], [zero, zero, one]]
        )
