"""Writes docs/faults.md: every fault that was found, what is right, and the tests that hold it closed.

The tests are those marked `@pytest.mark.fault(NUMBER)`, or of a module with that `pytestmark`. Run it after a mark is
added or moved: `python tests/docs/faults.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
SECTIONS = {
    "1": "Against the original implementations",
    "2": "Losses and combiners",
    "3": "Files and text that people have",
    "4": "First hours of a new user",
    "5": "Safety and robustness",
}
OPEN = frozenset({"4.14"})
"""Faults that may still be without a test."""
FAULTS: dict[str, tuple[str, str]] = {
    "1.1": (
        "`vlminv` restarted its average after the 0-based steps 40 and 100.",
        "39 and 99, by the source's own counter: `(it + 1 - 40) % 60 == 0`.",
    ),
    "1.2": (
        "The average of `vlminv` started from the first latent.",
        "It starts after the first step, as the source copies it (`ema.start: 1`).",
    ),
    "1.3": (
        "Prompts went to the models as written.",
        "Each model's own text processing: LAVIS's `blip_caption` for BLIP, BLIP-2 and the paper's SDS; lower case for "
        "SigLIP 2; open_clip's cleaning; or `text: as_given`.",
    ),
    "1.4": (
        "`sdi` took 10 inversion steps to every timestep.",
        "A share of the steps in proportion to the timestep; also inversion noise (`eta`) and `tau`.",
    ),
    "1.5": (
        "SigLIP 2 read capitals, was given a mask, and saw bicubic pictures.",
        "Lower case, no mask, the processor's own filter; compared with the library's processor and model.",
    ),
    "1.6": (
        "Every referee stretched pictures that are not square.",
        "Each checkpoint's own rule: cropped, padded, kept in proportion or stretched.",
    ),
    "1.7": (
        "BLIP's questions began with [CLS].",
        "[ENC], as its authors set it; also p(yes) against p(no), and 480 pixels.",
    ),
    "1.8": (
        "Rewards had a saturating loss alone.",
        "A linear form as published (`2 - r`) and a saturating one, for every reward.",
    ),
    "1.9": (
        "Differences from other code were not said: threestudio's guidance scale, kornia's order and translation, "
        "torchjd's clipping, what VSD's adapter learns.",
        "The pages state each, with figures that a test computes.",
    ),
    "1.10": (
        "PaliGemma failed in `vqa`, and answers of several tokens had another token type than in `generate`.",
        "Every chat model that the pages name agrees with `generate`, with answers of one and of several tokens.",
    ),
    "1.11": (
        "CoCa failed with two prompts.",
        "Attention takes every mask that torch's takes: 2-D, 3-D, boolean.",
    ),
    "1.12": (
        "OpenAI's weights ran with GELU under a name without `quickgelu`, silently.",
        "The tag of the weights decides, and warnings of the libraries reach the user.",
    ),
    "1.13": (
        "Zero terminal SNR with velocity prediction gave NaN or infinity.",
        "Finite, and as diffusers' schedulers, in all of their corners.",
    ),
    "1.14": (
        "An autoencoder that needs float32 overflowed in float16, and the message blamed the learning rate.",
        "It is run in float32 as diffusers does, and the message names the dtype.",
    ),
    "2.1": (
        "Losses of certain models were clamped: the gradient was 0 or tiny.",
        "Losses from logits, with the published form where a preset says so.",
    ),
    "2.2": (
        "`nash_mtl` failed where one term alone had a gradient.",
        "Every combiner takes no, one, equal, opposite, huge and tiny rows.",
    ),
    "2.3": (
        "`Inversion(config, engine=)` used another config's weights and prompts.",
        "Refused; and a supported way to share loaded models between runs.",
    ),
    "2.4": (
        "A plugin that breaks its contract ended in an error of torch that did not name it.",
        "An error that names the plugin, the rule and what came.",
    ),
    "3.1": ("16-bit, int32 and float pictures were white or black.", "All modes and depths are read by value."),
    "3.2": ("Colour profiles were ignored.", "Pictures are converted to sRGB."),
    "3.3": (
        "A byte-order mark and comments became part of the prompts of a file.",
        "Neither does, and the page says how such files are read.",
    ),
    "3.4": ("A prompt of invalid bytes left an empty run folder.", "One line, and no folder."),
    "3.5": (
        "The parser `spacy` made things of sides, of what is absent, of styles and of groups.",
        "What a reader means, also in T2I-CompBench's templates.",
    ),
    "3.6": ("A single-file checkpoint was refused without a remedy.", "Read, or the conversion is named."),
    "4.1": (
        "`refcore invert` answered a prompt of the world with the name of a parser.",
        "It names the presets for such prompts.",
    ),
    "4.2": (
        "`refcore doctor` promised a download of a file that has to be converted, and no sizes.",
        "It names the conversion, and counts what a preset needs.",
    ),
    "4.3": (
        "`refcore config validate` passed a config whose run would fail after gigabytes.",
        "Files, calibrations, packages and plugins' fields are looked at first.",
    ),
    "4.4": (
        "`--set` could not append to an absent list, nor find a term by its label.",
        "It does both.",
    ),
    "4.5": ("No page listed the fields of a run.", "One made from the schema, with schedules and examples."),
    "4.6": (
        "A file could not extend a preset, and an objective needed a referee in the config beside it.",
        "`extends` and `preset` in files; the objective alone is enough.",
    ),
    "4.7": ("Scores of what is not wanted looked like any other.", "They are marked."),
    "4.8": ("Off a terminal, a run was silent to its end.", "A line every so often, and logging in Python."),
    "4.9": ("A result printed as raw tensors.", "As a table, with pictures, and `save`."),
    "4.10": ("What an installation takes was not said.", "It is, with the line for CPU builds of torch."),
    "4.11": (
        "Guides had no addresses, sizes or times of the checkpoints.",
        "Each, with patterns for the download and how to work offline.",
    ),
    "4.12": (
        "A run from one's own photograph had no strength, and one picture for all prompts.",
        "`init: {image, strength}`, a file for each sample, checked before a model is loaded.",
    ),
    "4.13": (
        "Small things: help texts, exit codes, labels of grids, links, grammar.",
        "Each has its test.",
    ),
    "4.14": (
        "`decode` and `judge` knew no step; one learning rate for all tensors; augmentations of fixed strength.",
        "Canvases and augmentations that know the step, learning rates for each tensor, schedules wherever a number "
        "moves.",
    ),
    "5.1": (
        "A checkpoint's JSON could name Python code, which ran.",
        "Every field that can name code is refused by name.",
    ),
    "5.2": ("A library asked on the terminal whether to run a checkpoint's code.", "It never asks."),
    "5.3": (
        "Checkpoints with missing layers, flipped bits or NaN scored silently.",
        "Keys, shapes and finiteness are checked at load, and a hash is recorded with every run.",
    ),
    "5.4": (
        "NaN and infinity in a config, or after the last update, ended as a finished run.",
        "Refused in the config, and looked for after every update.",
    ),
    "5.5": (
        "Misbehaving plugins ended uncaught, or were accepted.",
        "Contract checks that name plugin, method and rule; a score that fails is null with its reason; a note names a "
        "plugin that hangs.",
    ),
    "5.6": (
        "Small inputs took all memory or all time.",
        "Bounds with their reasons, before memory is taken; regular files only.",
    ),
    "5.7": ("Running out of memory was not recognised.", "The message names the field, and what would fit."),
    "5.8": (
        "Leftover, unwritable and overwritten files, closed streams and interrupts lost results or destroyed sources.",
        "Unique temporary names, checked outputs, an allow-list of formats, nothing overwritten unasked.",
    ),
    "5.9": ("Two processes mixed their results in one folder.", "A folder is locked by its run."),
    "5.10": (
        "Malformed files and extreme numbers ended in errors that named a type of Python.",
        "One line with the field, the value and the remedy.",
    ),
    "5.11": (
        "Pickles reached an unpickler, and a guide taught it.",
        "Safetensors only, unless a conversion is asked for; states are safetensors, too.",
    ),
}


def marked() -> dict[str, dict[str, list[str]]]:
    """Number of a fault -> file below tests/ -> names of the tests that are marked with it, in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        own = [node.value for node in tree.body if isinstance(node, ast.Assign) and _assigns_marks(node)]
        everywhere = [number for value in own for number in _numbers(value)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                numbers = everywhere + [number for decorator in node.decorator_list for number in _numbers(decorator)]
                for number in dict.fromkeys(numbers):
                    file = path.relative_to(ROOT).as_posix()
                    found.setdefault(number, {}).setdefault(file, []).append(node.name)
    return found


def page() -> str:
    """The page, in Markdown."""
    tests = marked()
    lines = [
        "# Faults found and their tests",
        "",
        "What was found wrong by comparing with the original implementations, by reading public bug reports and by",
        "using refcore as a new user would; what is right; and the tests that fail if a fault returns. A test's name",
        "is the sentence that it proves. The page is made by `python tests/docs/faults.py` from the marks of the tests",
        '(`@pytest.mark.fault("1.1")`); `pytest -m fault` runs them all.',
    ]
    section = ""
    for number, (wrong, right) in FAULTS.items():
        if number.partition(".")[0] != section:
            section = number.partition(".")[0]
            lines += ["", f"## {SECTIONS[section]}"]
        lines += ["", f"### {number}", "", f"**Wrong:** {wrong}", "", f"**Right:** {right}", ""]
        for file, names in tests.get(number, {}).items():
            lines += [f"- `{file}`:"] + [f"    - `{name}`" for name in names]
        if number not in tests:
            lines.append("- No test yet.")
    return "\n".join(lines) + "\n"


def _assigns_marks(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _numbers(value: ast.expr) -> Iterator[str]:
    """Numbers of the fault marks in an expression."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            yield from (str(ast.literal_eval(argument)) for argument in node.args)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
