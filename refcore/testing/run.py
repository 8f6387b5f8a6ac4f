"""Runs the checks: one by one as tests of pytest (`suite`), or all at once (`check`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from refcore import registry
from refcore.contracts.augmentation import Augmentation
from refcore.contracts.canvas import Canvas
from refcore.contracts.judge import Judge
from refcore.contracts.metric import Metric
from refcore.contracts.parser import Parser
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.contracts.tracker import Tracker
from refcore.contracts.transform import Transform
from refcore.errors import unknown
from refcore.plugin import Plugin, PluginType
from refcore.testing import (
    augmentations,
    canvases,
    common,
    judges,
    metrics,
    parsers,
    priors,
    referees,
    trackers,
    transforms,
)
from refcore.testing.case import Case, Failed, NotApplicable

Check = Callable[[Case], Any]


def _shared(kind: Any) -> dict[str, Check]:
    checks = (common.determinism, common.frozen_weights, common.no_global_randomness)
    bound: dict[str, Check] = {check.__name__: _bind(check, kind.exercise) for check in checks}
    if kind is not referees:  # they know no step
        bound |= {common.scheduled_numbers.__name__: _bind(common.scheduled_numbers, kind.exercise)}
    return {**bound, "time_and_memory_per_view": _bind(common.time_and_memory_per_view, kind.call)}


def _bind(check: Callable[..., Any], how: Any) -> Check:
    @functools.wraps(check)
    def bound(case: Case) -> Any:
        return check(case, how)

    return bound


def _named(*checks: Check) -> dict[str, Check]:
    return {check.__name__: check for check in checks}


CHECKS: Mapping[str, Mapping[str, Check]] = {
    Referee.kind: {
        **_named(
            common.config_round_trip,
            common.useful_errors,
            referees.loads,
            referees.conditioning,
            referees.shapes_dtype_and_device,
            referees.gradient_present_and_finite,
            referees.gradient_right,
            referees.negated_question,
            referees.no_dependence_on_batch_mates,
            referees.inputs_unchanged,
        ),
        **_shared(referees),
    },
    Prior.kind: {
        **_named(
            common.config_round_trip,
            common.useful_errors,
            priors.shapes_dtype_and_device,
            priors.every_moment,
            priors.gradient_present_and_finite,
            priors.gradient_right,
            priors.no_dependence_on_batch_mates,
            priors.randomness_by_key,
            priors.encoder,
            priors.noising,
            priors.state_round_trip,
            priors.inputs_unchanged,
        ),
        **_shared(priors),
    },
    Augmentation.kind: {
        **_named(
            common.config_round_trip,
            common.useful_errors,
            augmentations.draws,
            augmentations.draws_by_key,
            augmentations.every_moment,
            augmentations.shapes_dtype_and_device,
            augmentations.geometry,
            augmentations.gradient_present_and_finite,
            augmentations.gradient_right,
            augmentations.no_dependence_on_batch_mates,
            augmentations.inputs_unchanged,
        ),
        **_shared(augmentations),
    },
    Canvas.kind: {
        **_named(
            common.config_round_trip,
            canvases.useful_errors,
            canvases.loads,
            canvases.parameters,
            canvases.shapes_dtype_and_device,
            canvases.every_moment,
            canvases.gradient_present_and_finite,
            canvases.gradient_right,
            canvases.no_dependence_on_batch_mates,
            canvases.start_from_an_image,
            canvases.documents,
            canvases.latents,
            canvases.inputs_unchanged,
        ),
        **_shared(canvases),
    },
    Transform.kind: _named(
        common.config_round_trip,
        common.useful_errors,
        transforms.shapes_and_dtypes,
        transforms.no_dependence_on_batch_mates,
        transforms.zero_gradients_stay,
        transforms.inputs_unchanged,
    ),
    Parser.kind: _named(
        common.config_round_trip,
        common.useful_errors,
        parsers.parsing,
        parsers.repeatable,
        parsers.refuses_what_it_cannot_read,
        parsers.no_global_randomness,
    ),
    Judge.kind: _named(
        common.config_round_trip,
        common.useful_errors,
        judges.verdicts,
        judges.refuses_what_it_cannot_read,
        judges.no_global_randomness,
    ),
    Metric.kind: _named(
        common.config_round_trip,
        common.useful_errors,
        metrics.measures,
        metrics.no_dependence_on_batch_mates,
        metrics.says_what_it_needs,
        metrics.no_global_randomness,
    ),
    Tracker.kind: _named(
        common.config_round_trip,
        common.useful_errors,
        trackers.every_outcome,
        trackers.an_end_without_a_start,
        trackers.no_global_randomness,
    ),
}
"""Kind -> name of a check -> the check, whose docstring is the rule."""


def run(name: str, case: Case) -> Any:
    """Runs one check.

    Raises:
        Failed: the plugin breaks the rule.
        NotApplicable: the rule does not apply to this plugin.
        RefcoreError: there is no such check.
    """
    checks = CHECKS[case.kind]
    if name not in checks:
        raise unknown(f"check of {case.kind}", name, checks)
    return checks[name](case)


def suite(plugin: Plugin | type[Plugin], *, skip: Mapping[str, str] | None = None, **options: Any) -> type[Any]:
    """A test class with one test per check of the plugin's kind; assign it to a name that pytest collects.

    Args:
        plugin: an instance with the settings to check, or a class to check with default settings.
        skip: check -> the reason why this plugin deliberately breaks it.
        options: fields of `Case`: prompts, device, size, canvas, refused, seconds, megabytes, at, encode_error.

    Raises:
        RefcoreError: `skip` names an unknown check.

    Example:
        >>> from refcore_plugins.priors.l2 import L2
        >>> TestL2 = suite(L2(target=0.3))
        >>> TestL2().test_gradient_right()
    """
    case, skipped = _case(plugin, options), _skipped(plugin, skip)

    def test_of(name: str, check: Check) -> Callable[[Any], None]:
        def test(self: Any) -> None:
            if name in skipped:
                raise NotApplicable(skipped[name])
            check(case)

        test.__doc__ = check.__doc__
        return test

    tests = {f"test_{name}": test_of(name, check) for name, check in CHECKS[case.kind].items()}
    return type("Suite", (), {"__doc__": f"Conformance of {case.plugin!r}.", "case": case, **tests})


def check(plugin: Plugin | type[Plugin], *, skip: Mapping[str, str] | None = None, **options: Any) -> dict[str, str]:
    """Runs every check; arguments as for `suite`.

    Returns:
        Check -> "ok", or the reason why it does not apply.

    Raises:
        Failed: the plugin breaks rules; the message has one line for each.
    """
    case, skipped = _case(plugin, options), _skipped(plugin, skip)
    results, failures = {}, []
    for name, one in CHECKS[case.kind].items():
        try:
            if name in skipped:
                raise NotApplicable(skipped[name])
            one(case)
            results[name] = "ok"
        except NotApplicable as reason:
            results[name] = str(reason)
        except Exception as failure:  # any exception of a plugin is a finding
            kind = "" if isinstance(failure, Failed) else f"{type(failure).__name__}: "
            failures.append(f"{name}: {kind}{failure}")
    if failures:
        raise Failed(
            f"{case.plugin!r} breaks {len(failures)} of {len(results) + len(failures)}:\n" + "\n".join(failures)
        )
    return results


def _case(plugin: Any, options: Mapping[str, Any]) -> Case:
    return Case(plugin() if isinstance(plugin, PluginType) else plugin, **options)


def _skipped(plugin: Any, skip: Mapping[str, str] | None) -> Mapping[str, str]:
    kind = registry.kind_of(plugin if isinstance(plugin, PluginType) else type(plugin))
    for name in skip or {}:
        if name not in CHECKS[kind]:
            raise unknown(f"check of {kind}", name, CHECKS[kind])
    return skip or {}
