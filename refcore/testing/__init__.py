"""A conformance suite for plugins, one line of pytest: `TestTint = suite(Tint(model="playground:tint"))`.

Every rule of the five contracts that can be measured is a check, and each check is a test of its own: shapes, dtype and
device, gradients present, finite and right, no dependence on batch mates, determinism, frozen weights, no global random
numbers, configs that survive a file, errors that help, and what a view costs. `check` runs them all without pytest.
"""

from __future__ import annotations

from refcore.testing.case import Case, Failed, NotApplicable
from refcore.testing.cost import Cost
from refcore.testing.run import CHECKS, check, run, suite

__all__ = ["CHECKS", "Case", "Cost", "Failed", "NotApplicable", "check", "run", "suite"]
