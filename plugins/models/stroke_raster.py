"""Bezier strokes and closed shapes to pixels, in pure torch: sampled, tiled, covered by distance, painted in order.

Coordinates are (x, y) in pixels from the upper left corner, as in SVG: the first pixel's centre is (0.5, 0.5). Every
pixel is computed from its own paths alone, so neither batch mates nor the size of a tile change it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 16
"""Side of a tile in pixels: smaller ones skip more empty pixels, larger ones take fewer operations."""
SLACK = 1e-3
"""Pixels by which a tile is wider when paths are looked for in it, so that rounding loses none."""
AT_ONCE = 2**21
"""Largest number of values of a temporary in the search for the nearest pieces."""


@dataclass(frozen=True)
class Paths:
    """B pictures of S paths each, in the order in which they are painted."""

    lines: Tensor
    """[B, S, E + 1, 2] points of polylines; those beyond a path's own pieces are ignored."""
    pieces: Tensor
    """[S] int64, the number of pieces of each polyline, at most E."""
    closed: Tensor
    """[S] bool: whether a path is the outline of a filled shape, its last point the first, or else a stroke."""
    half: Tensor
    """[B, S] half of each stroke's width in pixels; 0 for shapes."""
    colours: Tensor
    """[B, S, 4] red, green, blue and opacity in [0, 1]."""


def bezier_polyline(points: Tensor, pieces: int) -> Tensor:
    """[N, n * pieces + 1, 2] points of cubic Bezier curves at t = 0, 1 / pieces, ..., segment by segment.

    B(t) = (1 - t)^3 p0 + 3 (1 - t)^2 t p1 + 3 (1 - t) t^2 p2 + t^3 p3. A chord leaves the curve by at most
    |B''| / (8 pieces^2), with |B''| <= 6 max(|p0 - 2 p1 + p2|, |p1 - 2 p2 + p3|).

    Args:
        points: [N, 3 n + 1, 2], each segment's last point the first of the next.
        pieces: straight pieces of a segment.
    """
    t = torch.arange(pieces, dtype=points.dtype, device=points.device)[:, None] / pieces
    p0, p1, p2, p3 = (points[:, k : points.shape[1] - 1 + min(k, 1) : 3, None] for k in range(4))
    s = 1 - t
    on_curve = s**3 * p0 + 3 * s**2 * t * p1 + 3 * s * t**2 * p2 + t**3 * p3
    return torch.cat([on_curve.flatten(1, 2), points[:, -1:]], 1)


def smooth_step(x: Tensor) -> Tensor:
    """u^2 (3 - 2 u) with u = x + 1/2 clamped to [0, 1]: rises from 0 at -1/2 to 1 at 1/2, flat at both ends."""
    u = (x + 0.5).clamp(0, 1)
    return u * u * (3 - 2 * u)


def stroke_coverage(distance: Tensor, half: Tensor, edge: float) -> Tensor:
    """Share of a pixel that a stroke covers: s((w/2 - d) / e) - s((-w/2 - d) / e), with the smooth step s.

    The second term is 0 unless the stroke is thinner than its edge; it keeps the ink of such a stroke in proportion to
    its width.

    Args:
        distance: d, from the pixel's centre to the middle line.
        half: w/2.
        edge: e, the width of the ramp from 0 to 1; all in pixels.
    """
    return smooth_step((half - distance) / edge) - smooth_step((-half - distance) / edge)


def fill_coverage(distance: Tensor, inside: Tensor, edge: float) -> Tensor:
    """Share of a pixel that a filled shape covers: s(d / e), with d the distance to the outline, negative outside."""
    return smooth_step(torch.where(inside, distance, -distance) / edge)


def paint(paths: Paths, background: Tensor, size: tuple[int, int], edge: float, tile: int = TILE) -> Tensor:
    """[B, 3, H, W] in [0, 1]: every path over those before it; differentiable in lines, half widths and colours.

    Args:
        paths: of B pictures.
        background: [3] the colour below all paths.
        size: (H, W).
        edge: width in pixels of the antialiased edges.
        tile: side in pixels of the tiles; the picture does not depend on it.
    """
    count, (height, width) = len(paths.lines), size
    rows, columns = -(-height // tile), -(-width // tile)
    tiles = rows * columns
    with torch.no_grad():
        pairs = _pairs(paths, (rows, columns), edge, tile)
        order, ranking, sizes = by_level(pairs.sample * tiles + pairs.tile, count * tiles)
        pairs = pairs.take(order)
    alpha = _opacity(paths, pairs, edge, tile)
    colours = paths.colours.flatten(0, 1)[pairs.path, :3, None]
    below = background.to(alpha)[None, :, None].expand(count * tiles, 3, tile * tile)
    ranked = over(below, torch.split(alpha, sizes), torch.split(colours, sizes))
    place = torch.empty_like(ranking)
    place[ranking] = torch.arange(len(ranking), device=ranking.device)
    image = ranked[place].view(count, rows, columns, 3, tile, tile).permute(0, 3, 1, 4, 2, 5)
    image = image.reshape(count, 3, rows * tile, columns * tile)[..., :height, :width]
    return image if sizes else image + 0 * paths.colours.sum()  # a gradient of 0 where no path touches the picture


def over(below: Tensor, alphas: tuple[Tensor, ...], colours: tuple[Tensor, ...]) -> Tensor:
    """Paths over a background: C = sum_i c_i a_i prod_{j > i} (1 - a_j), i = 0 the background with a_0 = 1.

    By Porter and Duff's "over" (SIGGRAPH 1984), C_i = C_{i-1} + a_i (c_i - C_{i-1}), that sum in Horner's form: each
    product is built up factor by factor, and an opaque path (a = 1) is no exception in its gradient.

    Args:
        below: [G, 3, A] of G tiles with A pixels, those with the most paths first.
        alphas: of each level from the lowest path to the highest, [n, A] for the first n tiles, n falling.
        colours: [n, 3, 1] of each level.
    """
    finished = []
    for alpha, colour in zip(alphas, colours, strict=True):
        below, rest = torch.split(below, [len(alpha), len(below) - len(alpha)])
        finished.append(rest)
        below = below + alpha[:, None] * (colour - below)
    return torch.cat([below, *reversed(finished)])


def by_level(group: Tensor, groups: int) -> tuple[Tensor, Tensor, list[int]]:
    """Items of groups level by level: first the first item of each group, then the second of those with two, ...

    Args:
        group: [N] int64, ascending, the group of each item.
        groups: their number.

    Returns:
        order: [N] item at each place; within a level, groups with more items first.
        ranking: [groups] the groups in that order.
        sizes: number of items in each level, falling.

    >>> order, ranking, sizes = by_level(torch.tensor([0, 1, 1, 1, 3]), 4)
    >>> order.tolist(), ranking.tolist(), sizes
    ([1, 0, 4, 2, 3], [1, 0, 3, 2], [3, 1, 1])
    """
    counts = torch.bincount(group, minlength=groups)
    ranking = torch.argsort(counts, descending=True, stable=True)
    rank = torch.empty_like(ranking)
    rank[ranking] = torch.arange(groups, device=group.device)
    level = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
    order = torch.argsort(level * groups + rank[group])
    return order, ranking, torch.bincount(level).tolist()


@dataclass(frozen=True)
class _Pairs:
    """P pairs of a path and a tile that it touches, in the order sample, tile, path."""

    sample: Tensor
    tile: Tensor
    path: Tensor
    """[P] each; the path counted over all samples."""
    corner: Tensor
    """[P, 2] upper left corner of the tile."""
    near: Tensor
    """[P, E] bool: the pieces that can be nearest to a pixel of the tile and cover a part of it."""

    def take(self, order: Tensor) -> _Pairs:
        return _Pairs(*(value[order] for value in (self.sample, self.tile, self.path, self.corner, self.near)))


def _pairs(paths: Paths, grid: tuple[int, int], edge: float, tile: int) -> _Pairs:
    """The pairs: first by bounding boxes, then by the distance of each tile's centre to each piece."""
    rows, columns = grid
    lines, half = paths.lines.detach(), paths.half.detach()
    device = lines.device
    each = lines.shape[1]
    piece = torch.arange(lines.shape[2] - 1, device=device)
    real = piece < paths.pieces[:, None]
    past = torch.cat([real.new_ones(each, 1), real], 1)[None, :, :, None]
    reach = half + edge / 2 + SLACK
    low = lines.masked_fill(~past, torch.inf).amin(2) - reach[..., None]
    high = lines.masked_fill(~past, -torch.inf).amax(2) + reach[..., None]
    x, y = (torch.arange(n, device=device, dtype=lines.dtype) * tile for n in (columns, rows))
    across = (low[:, None, :, 0] < x[:, None] + tile) & (high[:, None, :, 0] > x[:, None])
    along = (low[:, None, :, 1] < y[:, None] + tile) & (high[:, None, :, 1] > y[:, None])
    touched = (along[:, :, None] & across[:, None]).flatten(1, 2)
    sample, number, path = touched.nonzero(as_tuple=True)
    corner = torch.stack([x[number % columns], y[number // columns]], -1)
    kept, near = [], []
    radius = tile * 0.5**0.5
    for own in torch.split(torch.arange(len(path), device=device), max(1, AT_ONCE // (8 * len(piece)))):
        line = lines[sample[own], path[own]]
        centre = corner[own, None] + tile / 2
        distance = _squared_distance(centre, line[:, :-1], line[:, 1:]).sqrt()
        distance = distance.masked_fill(~real[path[own]], torch.inf)
        least = distance.amin(1, keepdim=True)
        near.append(distance <= torch.minimum(least + 2 * radius, radius + reach[sample[own], path[own], None]))
        inside = _is_inside(centre, line, real[path[own]])[:, 0] & paths.closed[path[own]]
        kept.append(near[-1].any(1) | inside)
    keep = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.bool, device=device)
    found = torch.cat(near) if near else torch.zeros(0, len(piece), dtype=torch.bool, device=device)
    return _Pairs(sample[keep], number[keep], (sample * each + path)[keep], corner[keep], found[keep])


def _opacity(paths: Paths, pairs: _Pairs, edge: float, tile: int) -> Tensor:
    """[P, tile * tile] opacity of each pair's path in each pixel of its tile: a_i = opacity x coverage."""
    each, closed = paths.lines.shape[1], paths.closed
    half = paths.half.flatten()
    with torch.no_grad():
        squared, piece = _nearest(paths, pairs, tile)
        filled = closed[pairs.path % each]
        inside = _filled_pixels(paths, pairs, filled, tile)
        ahead = half[pairs.path, None] - squared.sqrt()
        ahead = torch.where(filled[:, None] & inside, -ahead, ahead)
        whole = (ahead >= edge / 2).to(squared)
        row, pixel = ((ahead > -edge / 2) & (whole == 0)).nonzero(as_tuple=True)
        at = _pixels(pairs.corner[row], pixel, tile)
        path = pairs.path[row]
        start = path * paths.lines.shape[2] + piece[row, pixel]
    points = paths.lines.flatten(0, 2)
    distance = line_distance(at, points.index_select(0, start), points.index_select(0, start + 1))
    own = stroke_coverage(distance, half.index_select(0, path), edge)
    if closed.any():
        own = torch.where(closed[path % each], fill_coverage(distance, inside[row, pixel], edge), own)
    coverage = whole.index_put((row, pixel), own)
    return coverage * paths.colours.flatten(0, 1)[:, 3].index_select(0, pairs.path)[:, None]


def line_distance(at: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """[N] distances |p - a - t (b - a)| of points p to line pieces from a to b, each [N, 2].

    The nearest place t = (p - a) (b - a) / |b - a|^2, clamped to [0, 1], is a constant in the gradient, which is
    exact: the distance is least there, or the end of the piece is nearest.
    """
    with torch.no_grad():
        along = end - start
        t = ((at - start) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)
        t = t.clamp(0, 1)[:, None]
    return ((at - start.lerp(end, t)).square().sum(-1) + 1e-12).sqrt()


def _nearest(paths: Paths, pairs: _Pairs, tile: int) -> tuple[Tensor, Tensor]:
    """([P, A] squared distance, [P, A] int64 the piece) of the nearest piece to each pixel; infinite without any."""
    lines = paths.lines.detach().flatten(0, 1)
    pair, piece = pairs.near.nonzero(as_tuple=True)
    order, ranking, sizes = by_level(pair, len(pairs.path))
    pair, piece = pair[order], piece[order]
    offset = torch.arange(tile, device=lines.device, dtype=lines.dtype) + 0.5
    best = lines.new_full((len(ranking), tile, tile), torch.inf)
    which = torch.zeros(len(ranking), tile, tile, dtype=torch.int64, device=lines.device)
    chunk = max(1, AT_ONCE // (8 * tile * tile))
    for items, numbers in zip(torch.split(pair, sizes), torch.split(piece, sizes), strict=True):
        for first in range(0, len(items), chunk):
            own, number = items[first : first + chunk], numbers[first : first + chunk]
            path, corner = pairs.path[own], pairs.corner[own]
            start, end = lines[path, number], lines[path, number + 1]
            u = (end - start)[:, :, None]
            from_start = (corner - start)[:, :, None] + offset
            scaled = from_start * u / u.square().sum(1, keepdim=True).clamp_min(1e-12)
            t = (scaled[:, 1, :, None] + scaled[:, 0, None]).clamp_(0, 1)
            dx = from_start[:, 0, None] - t * u[:, 0, None]
            dy = from_start[:, 1, :, None] - t * u[:, 1, None]
            squared = dx.square_().add_(dy.square_())
            place = slice(first, first + len(own))
            closer = squared < best[place]
            best[place] = torch.where(closer, squared, best[place])
            which[place] = torch.where(closer, number[:, None, None], which[place])
    back = torch.empty_like(ranking)
    back[ranking] = torch.arange(len(ranking), device=ranking.device)
    return best.flatten(1)[back], which.flatten(1)[back]


def _filled_pixels(paths: Paths, pairs: _Pairs, filled: Tensor, tile: int) -> Tensor:
    """[P, A] bool: whether a pixel lies inside the pair's path, False for strokes."""
    each = paths.lines.shape[1]
    inside = torch.zeros(len(filled), tile * tile, dtype=torch.bool, device=filled.device)
    pixel = torch.arange(tile * tile, device=filled.device)
    piece = torch.arange(paths.lines.shape[2] - 1, device=filled.device)
    lines = paths.lines.detach().flatten(0, 1)
    for own in torch.split(filled.nonzero()[:, 0], max(1, AT_ONCE // (tile * tile))):
        path = pairs.path[own]
        at = _pixels(pairs.corner[own, None], pixel, tile)
        inside[own] = _is_inside(at, lines[path], piece < paths.pieces[path % each, None])
    return inside


def _is_inside(at: Tensor, lines: Tensor, real: Tensor) -> Tensor:
    """[N, A] bool: whether points [N, A, 2] lie inside of closed polylines [N, E + 1, 2], by the even-odd rule.

    A point is inside if the ray to its right crosses an odd number of the pieces that `real` [N, E] marks.
    """
    x, y = at.unbind(-1)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for e in range(real.shape[1]):
        (ax, ay), (bx, by) = lines[:, e].unbind(-1), lines[:, e + 1].unbind(-1)
        slope = (bx - ax) / torch.where(by == ay, torch.ones_like(by), by - ay)
        crossing = ax[:, None] + (y - ay[:, None]) * slope[:, None]
        spans = ((ay[:, None] <= y) != (by[:, None] <= y)) & real[:, e, None]
        inside ^= spans & (crossing > x)
    return inside


def _squared_distance(at: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """[N, E] squared distances of points [N, 1, 2] to pieces from [N, E, 2] to [N, E, 2]."""
    along = end - start
    t = ((at - start) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)
    return (at - start - t.clamp(0, 1)[..., None] * along).square().sum(-1)


def _pixels(corner: Tensor, pixel: Tensor, tile: int) -> Tensor:
    """Centres of pixels, numbered row by row, of tiles with these corners [..., 2]."""
    inner = torch.stack([pixel % tile, torch.div(pixel, tile, rounding_mode="floor")], -1)
    return corner + inner + 0.5
