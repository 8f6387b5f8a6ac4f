"""SVG drawings of plain paths: written, and read as data, without entities, references, scripts or style sheets.

Read are `path` (all commands but arcs), `line`, `polyline`, `polygon`, `rect`, `circle` and `ellipse`, groups and
transforms, with `fill`, `stroke`, `stroke-width` and the opacities, as attributes or in `style`. Caps and joins are
taken for round. Anything else that would be seen is refused by its name; titles, metadata and definitions that nothing
uses are passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from PIL import ImageColor

from refcore.errors import RefcoreError

Point = tuple[float, float]
"""(x, y)."""
Colour = tuple[float, float, float, float]
"""Red, green, blue and opacity, 0 to 1."""
Matrix = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f) of x' = a x + c y + e, y' = b x + d y + f, as in SVG."""

MOST_CHARACTERS: Final = 2**23
"""Length of the longest drawing that is read: 4096 strokes of a dozen segments have half as many."""
MOST_PATHS: Final = 10_000
MOST_POINTS: Final = 1_000_000
DEEPEST: Final = 50
"""Levels of nested elements."""
NAMESPACE: Final = "http://www.w3.org/2000/svg"
QUARTER: Final = 4 / 3 * (math.sqrt(2) - 1)
"""Length of the tangents of a quarter circle of radius 1 as a cubic Bezier curve; 0.03 % off."""
SKIPPED: Final = ("defs", "title", "desc", "metadata", "namedview")
"""Elements that show nothing by themselves."""
GROUPS: Final = ("svg", "g")
REFUSED: Final = (
    "clip-path",
    "mask",
    "filter",
    "marker",
    "marker-start",
    "marker-mid",
    "marker-end",
    "stroke-dasharray",
)
"""Properties that would change the picture, unless they are "none"."""
INHERITED: Final = {
    "fill": "black",
    "fill-opacity": "1",
    "stroke": "none",
    "stroke-width": "1",
    "stroke-opacity": "1",
    "visibility": "visible",
}
"""Properties that are those of the element around, and their initial values."""
NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
COMMANDS: Final = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "Z": 0}
"""Command of a path -> how many numbers it takes."""
TRANSFORMS: Final = {
    "matrix": (6,),
    "translate": (1, 2),
    "scale": (1, 2),
    "rotate": (1, 3),
    "skewX": (1,),
    "skewY": (1,),
}
"""Name of a transform -> how many numbers it may take."""
IDENTITY: Final[Matrix] = (1, 0, 0, 1, 0, 0)


@dataclass(frozen=True)
class Path:
    """A chain of cubic Bezier segments with one paint: a stroke, or a fill where it has no width."""

    points: list[Point]
    """3 n + 1 of them; the last of a fill is its first."""
    colour: Colour
    width: float | None = None
    """In pixels; None: it is filled."""

    @property
    def segments(self) -> int:
        """n."""
        return len(self.points) // 3

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) that holds all that is painted."""
        x, y = zip(*self.points, strict=True)
        margin = (self.width or 0.0) / 2
        return min(x) - margin, min(y) - margin, max(x) + margin, max(y) + margin


def written(paths: Sequence[Path], size: tuple[int, int], background: Sequence[float]) -> str:
    """The text of an SVG file: a rectangle of the background, and each path over those before it.

    Args:
        paths: in pixels from the upper left corner.
        size: (height, width).
        background: red, green and blue, 0 to 1.
    """
    height, width = size
    lines = [
        f'<svg xmlns="{NAMESPACE}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="{_rgb(background)}"/>',
    ]
    for path in paths:
        paint, opacity = _rgb(path.colour[:3]), _short(path.colour[3], 5)
        if path.width is None:
            shown = f'fill="{paint}" fill-opacity="{opacity}" fill-rule="evenodd"'
        else:
            shown = (
                f'fill="none" stroke="{paint}" stroke-width="{_short(path.width)}" stroke-opacity="{opacity}" '
                'stroke-linecap="round" stroke-linejoin="round"'
            )
        lines.append(f'<path d="{_data(path)}" {shown}/>')
    return "\n".join([*lines, "</svg>", ""])


def _data(path: Path) -> str:
    def pairs(points: Sequence[Point]) -> str:
        return " ".join(f"{_short(x)} {_short(y)}" for x, y in points)

    inner = path.points[1:]
    curves = "".join(f" C {pairs(inner[i : i + 3])}" for i in range(0, len(inner), 3))
    return f"M {pairs(path.points[:1])}{curves}{' Z' if path.width is None else ''}"


def _short(x: float, digits: int = 4) -> str:
    text = f"{x:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _rgb(colour: Sequence[float]) -> str:
    return f"rgb({', '.join(f'{_short(100 * part, 3)}%' for part in colour)})"


def read(text: str, size: tuple[int, int], background: Sequence[float]) -> list[Path]:
    """The paths of a drawing in the order of painting, in pixels of a picture of `size` (height, width).

    The drawing's `viewBox`, or else its width and height, is scaled to cover the picture, centred. A rectangle that
    covers it all in the colour of the background, before everything else, is that background and no path.

    Raises:
        RefcoreError: it is no SVG, too large, declares a document type or entities, or shows what is not read.
    """
    try:
        if len(text) > MOST_CHARACTERS:
            raise _Unread(f"it has more than {MOST_CHARACTERS:,} characters")
        reader = _Reader(size)
        reader.parse(text)
        paths = reader.paths
        if reader.depth_seen == 0 or not reader.is_svg:
            raise _Unread("its outermost element is not <svg>")
    except (_Unread, expat.ExpatError) as error:
        raise RefcoreError(f"cannot read the drawing: {error}") from error
    if paths and _is_background(paths[0], size, background):
        paths = paths[1:]
    if not paths:
        raise RefcoreError("cannot read the drawing: it shows no path")
    return paths


def in_two(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(fills, strokes), each in their order.

    Raises:
        RefcoreError: a fill lies over a stroke, so that painting all fills first would show another picture.
    """
    fills = [path for path in paths if path.width is None]
    strokes = [path for path in paths if path.width is not None]
    for i, path in enumerate(paths):
        if path.width is None and any(lower.width is not None and _touch(lower.box, path.box) for lower in paths[:i]):
            raise RefcoreError(
                f"path {i + 1} of the drawing is filled and lies over a stroke; the canvas paints strokes over fills: "
                "move the fill below the strokes, or draw it as strokes"
            )
    return fills, strokes


def divided(points: Sequence[Point], segments: int) -> list[Point]:
    """The same curve in more segments: the longest is halved (de Casteljau) until there are as many."""
    parts = [list(points[i : i + 4]) for i in range(0, len(points) - 1, 3)]
    while len(parts) < segments:
        longest = max(
            range(len(parts)), key=lambda i: sum(math.dist(a, b) for a, b in zip(parts[i], parts[i][1:], strict=False))
        )
        parts[longest : longest + 1] = _halves(parts[longest])
    return [*(point for part in parts for point in part[:3]), parts[-1][3]]


def _halves(part: Sequence[Point]) -> list[list[Point]]:
    def mid(a: Point, b: Point) -> Point:
        return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2

    p0, p1, p2, p3 = part
    a, b, c = mid(p0, p1), mid(p1, p2), mid(p2, p3)
    d, e = mid(a, b), mid(b, c)
    middle = mid(d, e)
    return [[p0, a, d, middle], [middle, e, c, p3]]


def _touch(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _is_background(path: Path, size: tuple[int, int], background: Sequence[float]) -> bool:
    """Whether a path is a rectangle over the whole picture, in the colour of the background (to a level of 8 bits)."""
    height, width = size
    corners = {
        (round(x, 2) <= 0, round(x, 2) >= width, round(y, 2) <= 0, round(y, 2) >= height) for x, y in path.points[::3]
    }
    covers = len(corners) == 4 and all(sum(corner) == 2 for corner in corners) and path.segments == 4
    alike = max(abs(a - b) for a, b in zip(path.colour, [*background, 1.0], strict=True)) <= 0.5 / 255
    return path.width is None and covers and alike


class _Unread(Exception):
    """What is not read, in words that end a sentence about the drawing."""


@dataclass(frozen=True)
class _State:
    """What an element has from those around it."""

    matrix: Matrix
    style: dict[str, str]
    opacity: float


class _Reader:
    """The events of an XML parser made into paths; nothing is kept of elements that are closed."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.paths: list[Path] = []
        self.depth_seen, self.is_svg = 0, False
        self._states = [_State(IDENTITY, dict(INHERITED), 1.0)]
        self._skipping = 0
        """Depth inside of an element that is passed over."""
        self._points = 0

    def parse(self, text: str) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.EntityDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.Parse(text, True)

    def _refuse_doctype(self, *_: object) -> None:
        raise _Unread("it declares a document type or entities; remove the <!DOCTYPE ...>")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth_seen = max(self.depth_seen, len(self._states) + self._skipping)
        if self.depth_seen > DEEPEST:
            raise _Unread(f"its elements are nested more than {DEEPEST} levels deep")
        space, _, tag = name.rpartition(" ")
        if self._skipping or tag in SKIPPED or space not in ("", NAMESPACE):
            self._skipping += 1
            return
        try:
            self._open(tag, attributes)
        except _Unread as error:
            raise _Unread(f"<{tag}>: {error}") from error

    def _end(self, name: str) -> None:
        if self._skipping:
            self._skipping -= 1
        else:
            self._states.pop()

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        """Takes over what an element says for those inside of it, and its paths."""
        around = self._states[-1]
        own = {**attributes, **_declarations(attributes.get("style", ""))}
        for name in REFUSED:
            if own.get(name, "none") != "none":
                raise _Unread(f"{name} is not read; expected plain paths")
        style = {name: own[name] if own.get(name, "inherit") != "inherit" else around.style[name] for name in INHERITED}
        matrix = _product(around.matrix, _transform(own.get("transform", "")))
        if tag == "svg":
            if self.is_svg:
                raise _Unread("a drawing inside of a drawing is not read")
            self.is_svg, matrix = True, _view(own, self.size)
        elif not self.is_svg:
            raise _Unread("the outermost element is not <svg>")
        self._states.append(_State(matrix, style, around.opacity * _share(own.get("opacity", "1"), "opacity")))
        if own.get("display") == "none" or tag in GROUPS:
            if own.get("display") == "none":
                self._states.pop()
                self._skipping += 1
            elif "opacity" in own and _share(own["opacity"], "opacity") < 1:
                raise _Unread("opacity of a group is not read; give each path its own")
            return
        outlines = SHAPES.get(tag)
        if outlines is None:
            raise _Unread(f"it is not read; expected {', '.join(SHAPES)} or g")
        if style["visibility"] == "visible":
            self._add(list(outlines(own)), self._states[-1], matrix)

    def _add(self, outlines: list[tuple[list[Point], bool]], state: _State, matrix: Matrix) -> None:
        """The paths of an element, its fill before its stroke."""
        style = state.style
        fill = _paint(style["fill"], _share(style["fill-opacity"], "fill-opacity") * state.opacity, "fill")
        stroke = _paint(style["stroke"], _share(style["stroke-opacity"], "stroke-opacity") * state.opacity, "stroke")
        scale = math.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))
        width = _length(style["stroke-width"], "stroke-width") * scale
        outlines = [(points, closed) for points, closed in outlines if len(points) > 1]
        self._points += sum(len(points) for points, _ in outlines)
        if self._points > MOST_POINTS or len(self.paths) > MOST_PATHS:
            raise _Unread(f"the drawing has more than {MOST_PATHS:,} paths or {MOST_POINTS:,} points")
        mapped = [([_mapped(matrix, point) for point in points], closed) for points, closed in outlines]
        if not all(math.isfinite(x) and math.isfinite(y) for points, _ in mapped for x, y in points):
            raise _Unread("a coordinate is too large")
        areas = [points for points, _ in mapped if _has_area(points)]
        if fill is not None and areas:
            if len(areas) > 1:
                raise _Unread("a fill of several outlines, with holes, is not read; split it into paths of one outline")
            points = areas[0]
            self.paths.append(Path(points if points[-1] == points[0] else _line(points, points[0]), fill))
        if stroke is not None and width > 0:
            for points, closed in mapped:
                around = closed and points[-1] != points[0]
                self.paths.append(Path(_line(points, points[0]) if around else points, stroke, width))


def _has_area(points: Sequence[Point]) -> bool:
    """Whether not all points lie on one line, so that a fill can be seen."""
    x, y = points[0]
    u, v = max(((px - x, py - y) for px, py in points), key=lambda arm: math.hypot(*arm))
    return any(abs((px - x) * v - (py - y) * u) > 1e-9 * (u * u + v * v) for px, py in points)


def _declarations(style: str) -> dict[str, str]:
    """Name -> value of a `style` attribute."""
    found = {}
    for part in style.split(";"):
        name, colon, value = part.partition(":")
        if colon:
            found[name.strip()] = value.replace("!important", "").strip()
    return found


def _view(own: dict[str, str], size: tuple[int, int]) -> Matrix:
    """From the units of a drawing to pixels: scaled to cover the picture, and centred."""
    height, width = size
    box = _numbers(own["viewBox"], "viewBox") if "viewBox" in own else []
    if not box:
        sides = [own.get(name, "") for name in ("width", "height")]
        given = [0.0 if "%" in side or not side else _length(side, "width or height") for side in sides]
        box = [0.0, 0.0, *(given if all(given) else (float(width), float(height)))]
    if len(box) != 4 or not all(math.isfinite(value) for value in box) or min(box[2:]) <= 0:
        raise _Unread(f'viewBox is "{own.get("viewBox")}"; expected x, y, and a width and height above 0')
    left, top, wide, high = box
    scale = max(width / wide, height / high)
    return scale, 0, 0, scale, width / 2 - scale * (left + wide / 2), height / 2 - scale * (top + high / 2)


def _transform(text: str) -> Matrix:
    """The matrix of a `transform` attribute."""
    found, end = IDENTITY, 0
    for match in re.finditer(r"[\s,]*(\w+)\s*\(([^()]*)\)[\s,]*", text):
        name, values = match[1], _numbers(match[2], "transform")
        if match.start() != end or len(values) not in TRANSFORMS.get(name, ()):
            break
        found, end = _product(found, _matrix(name, values)), match.end()
    if end != len(text):
        raise _Unread(f'transform is "{text[:50]}"; expected {", ".join(TRANSFORMS)} with their numbers')
    return found


def _matrix(name: str, values: list[float]) -> Matrix:
    """The matrix of one transform."""
    if name == "matrix":
        a, b, c, d, e, f = values
        return a, b, c, d, e, f
    if name == "translate":
        return 1, 0, 0, 1, values[0], values[1] if len(values) > 1 else 0
    if name == "scale":
        return values[0], 0, 0, values[-1], 0, 0
    angle = math.radians(values[0])
    if name == "rotate":
        turn: Matrix = (math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle), 0, 0)
        x, y = values[1:] or (0.0, 0.0)
        return _product(_product((1, 0, 0, 1, x, y), turn), (1, 0, 0, 1, -x, -y))
    return (1, 0, math.tan(angle), 1, 0, 0) if name == "skewX" else (1, math.tan(angle), 0, 1, 0, 0)


def _product(p: Matrix, q: Matrix) -> Matrix:
    """p q: q is applied first."""
    a, b, c, d, e, f = q
    return (
        p[0] * a + p[2] * b,
        p[1] * a + p[3] * b,
        p[0] * c + p[2] * d,
        p[1] * c + p[3] * d,
        p[0] * e + p[2] * f + p[4],
        p[1] * e + p[3] * f + p[5],
    )


def _mapped(matrix: Matrix, point: Point) -> Point:
    x, y = point
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f


def _paint(text: str, opacity: float, name: str) -> Colour | None:
    """A colour; None where nothing is painted."""
    text = text.strip()
    if text in ("none", "transparent"):
        return None
    parts = re.fullmatch(rf"rgb\(\s*({NUMBER})%\s*,\s*({NUMBER})%\s*,\s*({NUMBER})%\s*\)", text)
    if parts:
        red, green, blue = (min(1.0, max(0.0, float(part) / 100)) for part in parts.groups())
        return red, green, blue, opacity
    try:
        levels = ImageColor.getrgb(text[:100])
    except ValueError as error:
        raise _Unread(f'{name} is "{text[:50]}"; expected none or a plain colour, such as red or #ff0000') from error
    red, green, blue = (level / 255 for level in levels[:3])
    return red, green, blue, opacity * (levels[3] / 255 if len(levels) > 3 else 1.0)


def _share(text: str, name: str) -> float:
    """A number or a percentage, clamped to [0, 1]."""
    match = re.fullmatch(rf"\s*({NUMBER})\s*(%?)\s*", text)
    if not match:
        raise _Unread(f'{name} is "{text[:50]}"; expected a number from 0 to 1')
    return min(1.0, max(0.0, float(match[1]) / (100 if match[2] else 1)))


def _length(text: str, name: str, default: str = "0") -> float:
    """A number of user units; "px" is one."""
    match = re.fullmatch(rf"\s*({NUMBER})\s*(?:px)?\s*", text or default)
    if not match:
        raise _Unread(f'{name} is "{text[:50]}"; expected a number, without a unit or in px')
    return float(match[1])


def _numbers(text: str, name: str) -> list[float]:
    found = re.findall(NUMBER, text)
    if re.sub(NUMBER, "", text).strip(" \t\r\n,"):
        raise _Unread(f'{name} is "{text[:50]}"; expected numbers')
    return [float(number) for number in found]


def _line(points: list[Point], to: Point) -> list[Point]:
    """The points with a straight segment more."""
    (x, y), (u, v) = points[-1], to
    return [*points, (x + (u - x) / 3, y + (v - y) / 3), (x + (u - x) * 2 / 3, y + (v - y) * 2 / 3), to]


def _chain(corners: Sequence[Point], closed: bool) -> Iterator[tuple[list[Point], bool]]:
    points = list(corners[:1])
    for corner in [*corners[1:], *(corners[:1] if closed else [])]:
        points = _line(points, corner)
    yield points, closed


def _ellipse(own: dict[str, str], rx: float, ry: float) -> Iterator[tuple[list[Point], bool]]:
    """Four segments."""
    x, y = (_length(own.get(name, ""), name) for name in ("cx", "cy"))
    if min(rx, ry) > 0:
        k, one = QUARTER, 1.0
        unit = [
            (one, 0),
            (one, k),
            (k, one),
            (0, one),
            (-k, one),
            (-one, k),
            (-one, 0),
            (-one, -k),
            (-k, -one),
            (0, -one),
        ]
        unit += [(k, -one), (one, -k), (one, 0)]
        yield [(x + rx * u, y + ry * v) for u, v in unit], True


def _rect(own: dict[str, str]) -> Iterator[tuple[list[Point], bool]]:
    x, y, width, height = (_length(own.get(name, ""), name) for name in ("x", "y", "width", "height"))
    if any(_length(own.get(name, ""), name) for name in ("rx", "ry")):
        raise _Unread("round corners are not read; convert it to a path")
    if min(width, height) > 0:
        yield from _chain([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], True)


def _polygon(own: dict[str, str], closed: bool = True) -> Iterator[tuple[list[Point], bool]]:
    values = _numbers(own.get("points", ""), "points")
    if len(values) % 2:
        raise _Unread("points has an odd number of coordinates")
    yield from _chain(list(zip(values[::2], values[1::2], strict=True)), closed)


def _straight(own: dict[str, str]) -> Iterator[tuple[list[Point], bool]]:
    x1, y1, x2, y2 = (_length(own.get(name, ""), name) for name in ("x1", "y1", "x2", "y2"))
    yield from _chain([(x1, y1), (x2, y2)], False)


def _path(own: dict[str, str]) -> Iterator[tuple[list[Point], bool]]:
    """The outlines of a path's `d`, each (points, whether it ends in Z)."""
    points: list[Point] = []
    smooth: tuple[str, Point] | None = None
    """Kind of the last curve, C or Q, and its last control point."""
    for command, values in _commands(own.get("d", "")):
        name = command.upper()
        at = points[-1] if points else (0.0, 0.0)
        base = at if command.islower() else (0.0, 0.0)
        if name == "H":
            to = [(base[0] + values[0], at[1])]
        elif name == "V":
            to = [(at[0], base[1] + values[0])]
        else:
            to = [(base[0] + x, base[1] + y) for x, y in zip(values[::2], values[1::2], strict=True)]
        if name == "M":
            if len(points) > 1:
                yield points, False
            points, smooth = to, None
            continue
        if not points:
            raise _Unread("d does not begin with M")
        if name == "Z":
            if points[-1] != points[0]:
                points = _line(points, points[0])
            if len(points) > 1:
                yield points, True
            points, smooth = points[:1], None
        elif name in "LHV":
            points, smooth = _line(points, to[0]), None
        else:
            last = smooth[1] if smooth and smooth[0] == ("C" if name in "CS" else "Q") else at
            mirrored = (2 * at[0] - last[0], 2 * at[1] - last[1])
            if name in "ST":
                to = [mirrored, *to]
            smooth = ("C" if name in "CS" else "Q", to[-2])
            if name in "QT":
                (qx, qy), (ex, ey) = to
                to = [
                    (at[0] + (qx - at[0]) * 2 / 3, at[1] + (qy - at[1]) * 2 / 3),
                    (ex + (qx - ex) * 2 / 3, ey + (qy - ey) * 2 / 3),
                    (ex, ey),
                ]
            points = [*points, *to]
    if len(points) > 1:
        yield points, False


def _commands(data: str) -> Iterator[tuple[str, list[float]]]:
    """Each command of a path with as many numbers as it takes; further pairs after M are those of L."""
    place, name = 0, ""
    values: list[float] = []
    token = re.compile(rf"[\s,]*(?:([A-Za-z])|({NUMBER}))[\s,]*")
    while place < len(data):
        match = token.match(data, place)
        if not match:
            raise _Unread(f'd has "{data[place : place + 20]}"; expected commands and numbers')
        place = match.end()
        if match[1]:
            if values:
                raise _Unread(f"d has {len(values)} number{'s' * (len(values) > 1)} too few for {name}")
            name = match[1]
            if name.upper() not in COMMANDS:
                raise _Unread(f"d has the command {name}; expected {', '.join(COMMANDS)}: convert arcs to curves")
            if name.upper() == "Z":
                yield name, []
            continue
        if not name or not COMMANDS[name.upper()]:
            raise _Unread("d has numbers without a command")
        values.append(float(match[2]))
        if len(values) == COMMANDS[name.upper()]:
            yield name, values
            values = []
            name = {"M": "L", "m": "l"}.get(name, name)
    if values:
        raise _Unread(f"d ends within the numbers of {name}")


def _radius(own: dict[str, str], name: str) -> float:
    return _length(own.get(name, ""), name)


SHAPES: Final[dict[str, Callable[[dict[str, str]], Iterator[tuple[list[Point], bool]]]]] = {
    "path": _path,
    "line": _straight,
    "polyline": lambda own: _polygon(own, closed=False),
    "polygon": _polygon,
    "rect": _rect,
    "circle": lambda own: _ellipse(own, _radius(own, "r"), _radius(own, "r")),
    "ellipse": lambda own: _ellipse(own, _radius(own, "rx"), _radius(own, "ry")),
}
"""Element -> its outlines, each (points, whether it is closed)."""
