"""A conformance suite for plugins in one line of pytest: `TestTint = suite(Tint(model="playground:tint"))`.

Each measurable rule of the contracts is a check, and each check is a test of its own: shapes, dtypes and devices;
gradients that exist, are finite and correct; independence of the batch; determinism; frozen weights; no use of global
generators; configs that survive YAML; helpful errors; cost per view. `check` runs them all without pytest.
"""

from __future__ import annotations

from refcore.testing.case import Case, Failed, NotApplicable
from refcore.testing.cost import Cost
from refcore.testing.run import CHECKS, check, run, suite

__all__ = ["CHECKS", "Case", "Cost", "Failed", "NotApplicable", "check", "run", "suite"]
