"""Checks of a transform against `refcore.contracts.transform.Transform`."""

from __future__ import annotations

import torch

from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Transform
from refcore.engine import checks
from refcore.errors import ContractError
from refcore.moment import Moment
from refcore.testing.case import EXACT, Case, Failed, NotApplicable, global_randomness_untouched, require

SHAPES = {"latent": (4, 16, 16), "coefficients": (3, 8, 8, 2)}
"""Tensors of a sample: one with channels, rows and columns, and one with more."""
SAMPLES = 3


def shapes_and_dtypes(case: Case) -> None:
    """Names, shapes and dtypes are kept, in float32 and float64, at every place and at any step."""
    for dtype in (torch.float32, torch.float64):
        for step in (0, 4, 9):
            try:
                checks.transform(case.fresh(), *_inputs(case, dtype), Moment(step, 10))
            except ContractError as cause:
                raise Failed(str(cause)) from cause


def no_dependence_on_batch_mates(case: Case) -> None:
    """A sample is changed alone as it is in a batch."""
    x, before = _inputs(case, torch.float64)
    together = _applied(case, x, before)
    for row in range(SAMPLES):
        alone = _applied(case, _rows(x, row), _rows(before, row))
        for name, value in alone.items():
            off = (value[0] - together[name][row]).abs().max()
            require(
                off <= EXACT * (1 + together[name][row].abs().max()),
                f'"{name}" of a sample changes by {float(off):.3g} with its batch mates; expected none: reduce over '
                "all dimensions but the first",
            )


def zero_gradients_stay(case: Case) -> None:
    """A gradient of 0 stays 0, beside one that is not: that of a satisfied referee asks for nothing."""
    plugin: Transform = case.fresh()
    if set(plugin.places) == {"parameters"}:
        raise NotApplicable("it changes no gradients")
    x, before = _inputs(case, torch.float32)
    for value in x.values():
        value[1] = 0
    for name, value in _applied(case, x, before).items():
        require(bool(value.isfinite().all()), f'"{name}" is not finite for a gradient of 0; expected 0')
        require(
            not value[1].any(), f'a gradient of 0 becomes {float(value[1].abs().max()):.3g} in "{name}"; expected 0'
        )


def inputs_unchanged(case: Case) -> None:
    """What it is given stays as it was, and nothing is drawn from a global generator."""
    x, before = _inputs(case, torch.float32)
    copies = [{name: value.clone() for name, value in each.items()} for each in (x, before)]
    with global_randomness_untouched(type(case.plugin).__name__):
        _applied(case, x, before)
    for each, copy in zip((x, before), copies, strict=True):
        for name, value in each.items():
            require(torch.equal(value, copy[name]), f'apply changed "{name}" in place; work on a copy')


def _inputs(case: Case, dtype: torch.dtype) -> tuple[CanvasParams, CanvasParams]:
    """A gradient or parameters, and the parameters before."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> CanvasParams:
        return {
            name: torch.randn(SAMPLES, *shape, generator=generator, dtype=dtype).to(case.device)
            for name, shape in SHAPES.items()
        }

    return drawn(), drawn()


def _applied(case: Case, x: CanvasParams, before: CanvasParams) -> CanvasParams:
    plugin: Transform = case.fresh()
    return plugin.apply(x, before, case.at)


def _rows(x: CanvasParams, row: int) -> CanvasParams:
    return {name: value[row : row + 1] for name, value in x.items()}
