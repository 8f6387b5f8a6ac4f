"""Claims about SVG drawings: what is read becomes the right paths, and what is not is refused in one line."""

from __future__ import annotations

import math

import pytest

from refcore.errors import RefcoreError
from refcore_plugins.models import svg

SIZE = (100, 100)
WHITE = (1.0, 1.0, 1.0)
START = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'


def read(inner: str, start: str = START) -> list[svg.Path]:
    return svg.read(f"{start}{inner}</svg>", SIZE, WHITE)


def points(inner: str) -> list[tuple[float, float]]:
    (path,) = read(inner)
    return [(round(x, 6), round(y, 6)) for x, y in path.points]


def stroke(d: str) -> str:
    return f'<path fill="none" stroke="red" d="{d}"/>'


@pytest.mark.parametrize(
    ("data", "same"),
    [
        ("M 10 20 C 30 40 50 60 70 80", "m10,20c20 20,40 40,60 60"),
        ("M 10 20 L 40 20 L 40 50", "M10 20H40V50"),
        ("M 10 20 L 40 20 L 40 50", "m10 20 30 0v30"),
        ("M 0 0 C 0 10 10 10 10 0 C 10 -10 20 -10 20 0", "M0 0C0 10 10 10 10 0S20-10 20 0"),
        ("M 0 0 C 4 8 8 8 12 0", "M0 0Q6 12 12 0"),
        ("M 0 0 Q 6 12 12 0 Q 18 -12 24 0", "M0 0Q6 12 12 0T24 0"),
        ("M 1 1 L 9 1 L 9 9 L 1 1", "M1 1 9 1 9 9Z"),
        ("M 1e1 -.5 L 0.5 .25", "M10-.5L.5.25"),
    ],
)
def test_the_ways_to_write_a_path_are_the_same_path(data: str, same: str) -> None:
    assert points(stroke(same)) == points(stroke(data))


def test_a_line_is_a_segment_with_control_points_at_its_thirds() -> None:
    for line in ('<line x1="0" y1="3" x2="9" y2="3" stroke="blue"/>', '<path d="M0 3H9" stroke="blue"/>'):
        assert points(line) == [(0, 3), (3, 3), (6, 3), (9, 3)]  # and no fill, which could not be seen


@pytest.mark.parametrize(
    ("element", "segments", "box"),
    [
        ('<circle cx="50" cy="40" r="10"/>', 4, (40, 30, 60, 50)),
        ('<ellipse cx="50" cy="40" rx="20" ry="5"/>', 4, (30, 35, 70, 45)),
        ('<rect x="10" y="20" width="30" height="40"/>', 4, (10, 20, 40, 60)),
        ('<polygon points="10,10 30,10 20 30"/>', 3, (10, 10, 30, 30)),
        ('<polyline points="10,10 30,10 20 30"/>', 3, (10, 10, 30, 30)),
    ],
)
def test_basic_shapes_are_closed_fills(element: str, segments: int, box: tuple[float, float, float, float]) -> None:
    (path,) = read(element)
    assert path.segments == segments
    assert path.points[0] == path.points[-1]
    assert path.width is None
    assert path.box == pytest.approx(box)
    assert path.colour == (0, 0, 0, 1)


def test_a_circle_is_round_to_a_thousandth_of_its_radius() -> None:
    (path,) = read('<circle cx="0" cy="0" r="10"/>')
    middle = [svg.divided(path.points[i : i + 4], 2)[3] for i in range(0, 12, 3)]
    assert [math.hypot(*point) for point in middle] == pytest.approx([10] * 4, rel=1e-3)


def test_paint_comes_from_attributes_styles_and_the_groups_around() -> None:
    found = read(
        '<g stroke="#00f" stroke-width="2" fill="none"><line x2="9"/><line x2="9" style="stroke: rgb(255, 0, 0)"/>'
        '<circle r="5" fill="lime" fill-opacity="50%" stroke-opacity=".25" opacity="0.5"/></g>'
    )
    assert [path.colour for path in found] == [(0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 0, 0.25), (0, 0, 1, 0.125)]
    assert [path.width for path in found] == [2, 2, None, 2]


def test_transforms_of_groups_and_elements_are_applied_from_the_inside() -> None:
    inner = '<line x2="10" stroke="red" transform="rotate(90)scale(2)"/>'
    (path,) = read(f'<g transform="translate(5, 7)">{inner}</g>')
    assert path.points[-1] == pytest.approx((5, 27))
    assert path.width == pytest.approx(2)


def test_a_drawing_covers_the_picture_and_is_centred() -> None:
    (path,) = read('<circle cx="100" cy="50" r="10"/>', '<svg viewBox="0 0 200 100" width="3cm">')
    assert path.box == pytest.approx((40, 40, 60, 60))
    (path,) = read('<circle cx="25" cy="25" r="5"/>', '<svg width="50" height="50px">')
    assert path.box == pytest.approx((40, 40, 60, 60))


def test_a_rectangle_over_everything_is_the_background_where_it_has_its_colour() -> None:
    ground = '<rect width="100" height="100" fill="{}"/>'
    dot = '<circle cx="9" cy="9" r="5"/>'
    assert len(read(ground.format("white") + dot)) == 1
    assert len(read(ground.format("black") + dot)) == 2
    assert len(read(dot + ground.format("white"))) == 2


def test_titles_metadata_unused_definitions_and_what_is_hidden_show_nothing() -> None:
    unseen = (
        '<title>A &lt;b&gt;</title><metadata><x/></metadata><defs><linearGradient id="g"/></defs>'
        '<e:view xmlns:e="http://editor"><e:inner/></e:view><g display="none"><text>no</text></g>'
        '<circle r="3" visibility="hidden"/><circle r="3" fill="none"/>'
    )
    assert len(read(unseen + '<circle r="9"/>')) == 1


def test_a_divided_curve_is_the_same_curve() -> None:
    curve = [(0.0, 0.0), (0.0, 12.0), (12.0, 12.0), (12.0, 0.0)]
    halves = svg.divided(curve, 2)
    assert halves == [(0, 0), (0, 6), (3, 9), (6, 9), (9, 9), (12, 6), (12, 0)]
    assert len(svg.divided(curve, 5)) == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no drawing", "syntax error"),
        ("<p/>", "not <svg>"),
        ("<svg>", "no element found"),
        ('<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>', "declares a document type or entities"),
        ('<!DOCTYPE svg SYSTEM "file:///etc/passwd"><svg/>', "declares a document type or entities"),
        ("<svg>&a;</svg>", "undefined entity"),
        ("<svg/>", "shows no path"),
        (f"<svg>{'<g>' * 60}{'</g>' * 60}</svg>", "more than 50 levels"),
        (f"<svg>{' ' * svg.MOST_CHARACTERS}</svg>", "more than 8,388,608 characters"),
        ("<svg><svg/></svg>", "a drawing inside of a drawing"),
        ("<svg><image href='x.png'/></svg>", "<image>: it is not read; expected path, line"),
        ("<svg><use href='#a'/></svg>", "<use>: it is not read"),
        ("<svg><style>path {}</style></svg>", "<style>: it is not read"),
        ("<svg><script>1</script></svg>", "<script>: it is not read"),
        ("<svg><text>word</text></svg>", "<text>: it is not read"),
        ("<svg><circle r='9' fill='url(#g)'/></svg>", 'fill is "url.*; expected none or a plain colour'),
        ("<svg><circle r='9' filter='url(#g)'/></svg>", "filter is not read"),
        ("<svg><circle r='9' style='mask: url(#g)'/></svg>", "mask is not read"),
        ("<svg><g opacity='0.5'/></svg>", "opacity of a group is not read"),
        ("<svg><circle r='1in'/></svg>", 'r is "1in"; expected a number, without a unit or in px'),
        ("<svg><rect width='9' height='9' rx='2'/></svg>", "round corners are not read"),
        ("<svg><path d='M0 0A1 1 0 0 0 9 9'/></svg>", "the command A; expected M, .*convert arcs"),
        ("<svg><path d='M0 0L1'/></svg>", "ends within the numbers of L"),
        ("<svg><path d='M0 0L1 C'/></svg>", "1 number too few for L"),
        ("<svg><path d='L1 1'/></svg>", "does not begin with M"),
        ("<svg><path d='1 1'/></svg>", "numbers without a command"),
        ("<svg><path d='M0 0L?'/></svg>", r'd has "\?"'),
        ("<svg><path d='M0 0L9 0L9 9ZM20 20L29 20L29 29Z'/></svg>", "several outlines"),
        ("<svg><path d='M0 0L1e400 0L9 9Z'/></svg>", "a coordinate is too large"),
        ("<svg><polygon points='1 2 3'/></svg>", "odd number"),
        ("<svg><g transform='spin(3)'/></svg>", 'transform is "spin'),
        ("<svg><g transform='scale()'/></svg>", 'transform is "scale'),
        ("<svg viewBox='0 0 0 9'><circle r='9'/></svg>", "a width and height above 0"),
    ],
)
def test_what_is_not_read_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(RefcoreError, match=said) as caught:
        svg.read(text, SIZE, WHITE)
    assert str(caught.value).startswith("cannot read the drawing: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_more_paths_than_can_be_read_are_refused() -> None:
    many = '<path d="M0 0L1 1" stroke="red"/>' * (svg.MOST_PATHS + 2)
    with pytest.raises(RefcoreError, match="more than 10,000 paths"):
        read(many)


def test_a_fill_over_a_stroke_is_refused_and_beside_it_put_below() -> None:
    line, disc = '<line x2="20" stroke="red"/>', '<circle cx="{}" cy="50" r="9"/>'
    fills, strokes = svg.in_two(read(line + disc.format(50)))
    assert (len(fills), len(strokes)) == (1, 1)
    with pytest.raises(RefcoreError, match="path 2 of the drawing is filled and lies over a stroke"):
        svg.in_two(read('<line y1="50" y2="50" x2="50" stroke="red"/>' + disc.format(50)))
