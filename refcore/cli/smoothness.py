"""`refcore smoothness`: smoothness and conditioning of the referees' loss along a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from refcore.cli.output import print_json, print_table, stdout
from refcore.config import presets
from refcore.errors import RefcoreError, unknown
from refcore.runs import rundir

if TYPE_CHECKING:
    from refcore.config.run import RunConfig
    from refcore.diagnostics.smoothness import SmoothnessReport

T = TypeVar("T")
AS_CONFIGURED = "config"
"""Word for the config's own value in `--views` and `--noise`."""
COLUMNS = {
    "loss": "loss",
    "gradient_norm": "|gradient|",
    "lipschitz_random": "Lipschitz, random",
    "lipschitz_step": "along the step",
    "smallest": "smallest eigenvalue",
    "largest": "largest",
    "condition": "condition",
}


def run(
    source: str,
    prompts: list[str],
    overrides: list[str],
    seed: int | None,
    steps: str | None,
    views: str,
    noise: str,
    at: str,
    directions: int,
    radius: float,
    dtype: str,
    out: Path | None,
    as_json: bool,
) -> None:
    numbers = {
        "steps": None if steps is None else listed("--steps", steps, int),
        "views": listed("--views", views, int, AS_CONFIGURED),
        "noise": listed("--noise", noise, float, AS_CONFIGURED),
    }
    for option, value, allowed in (("--at", at, ("params", "image")), ("--dtype", dtype, ("float64", "float32"))):
        if value not in allowed:
            raise RefcoreError(f'{option} is "{value}"; expected {" or ".join(allowed)}')
    if out is not None:
        rundir.refuse_existing(out, "--out")
    config = _config(source, prompts, overrides, seed)

    # Imported here: it loads torch and scipy, and mistakes on the command line are reported before.
    from refcore.diagnostics.smoothness import measure_smoothness

    with presets.needed_by(source if source in presets.names() else None):
        report = measure_smoothness(config, **numbers, at=at, directions=directions, radius=radius, dtype=dtype)  # type: ignore[arg-type]
    found = {**report.to_dict(), "versions": rundir.versions()}
    if out is not None:
        rundir.write_text(out, rundir.to_json(found, indent=1) + "\n")
    if as_json:
        print_json(found)
    else:
        _print(report)


def listed(option: str, text: str, read: Callable[[str], T], none: str | None = None) -> list[T | None]:
    """The numbers of a list such as `0,1,4`; the word `none` stands for None.

    Raises:
        RefcoreError: a word is not such a number.
    """
    found: list[T | None] = []
    for word in text.split(","):
        try:
            found.append(None if word.strip() == none else read(word))
        except ValueError as error:
            also = f', or "{none}"' if none else ""
            raise RefcoreError(
                f'{option} is "{text}": "{word}" is not a number; expected comma-separated numbers{also}'
            ) from error
    return found


def _config(source: str, prompts: list[str], overrides: list[str], seed: int | None) -> RunConfig:
    fields: dict[str, Any] = {"prompts": prompts} if prompts else {}
    if seed is not None:
        fields["seeds"] = [seed]
    if source in presets.names():
        config = presets.compose(source, None, overrides, **fields)
    elif Path(source).suffix in (".yaml", ".yml") or Path(source).is_file():
        config = presets.compose(None, source, overrides, **fields)
    else:
        raise unknown("preset or config file", source, presets.names())
    if not config.prompts:
        raise RefcoreError('the config has no prompts; give one with --prompt "a red circle"')
    return config


def _print(report: SmoothnessReport) -> None:
    rows, points = report.rows(), report.points
    samples = f"{rows[0]['samples']} samples (medians)" if rows[0]["samples"] > 1 else "one sample"
    where = "parameters" if report.at == "params" else "image"
    stdout.print(f"The referees' loss at the {where} ({points[0].dimension} numbers), {samples}\n", markup=False)
    print_table(
        ["step", "views", "noise", *COLUMNS.values()],
        [
            (
                row["step"],
                _given(row["views"]),
                "-" if row["views"] == 0 else _given(row["noise"]),
                *(_shown(row[name]) for name in COLUMNS),
            )
            for row in rows
        ],
    )
    if any(point.largest is None for point in points):
        stdout.print("\n-: Lanczos did not converge, or the run does not move there.", markup=False)


def _given(value: Any) -> str:
    return AS_CONFIGURED if value is None else f"{value:g}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
