"""Everything that the command line reads from others, with its part of all cases."""

from __future__ import annotations

from fuzz import config_cases, folder_cases, model_cases, run_cases
from fuzz.cases import Surface

SURFACES = {
    "overrides": Surface(config_cases.overrides, 22),
    "config texts": Surface(config_cases.config_texts, 12),
    "config structures": Surface(config_cases.config_structures, 16),
    "prompts": Surface(run_cases.prompts, 8),
    "seeds": Surface(run_cases.seeds, 4),
    "runs": Surface(run_cases.runs, 8),
    "pictures": Surface(model_cases.pictures, 16),
    "checkpoint folders": Surface(model_cases.checkpoint_folders, 12),
    "calibrations": Surface(folder_cases.calibrations, 5),
    "run folders": Surface(folder_cases.run_folders, 14),
    "prompt files": Surface(run_cases.prompt_files, 5),
    "plugin folders": Surface(folder_cases.plugin_folders, 4),
    "command lines": Surface(config_cases.command_lines, 8),
    "descriptions": Surface(config_cases.descriptions, 3),
    "conversions": Surface(model_cases.conversions, 6),
    "onnx files": Surface(model_cases.onnx_files, 4),
    "witness files": Surface(folder_cases.witness_files, 3),
    "benchmark folders": Surface(folder_cases.bench_folders, 3),
}
"""By name."""
