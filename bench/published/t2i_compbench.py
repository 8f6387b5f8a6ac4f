"""T2I-CompBench++ (Huang et al., TPAMI 2025): eight categories of 300 prompts, each with a metric of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final

from refcore.errors import RefcoreError, shortened
from refcore_bench.published.public_files import PublicFile
from refcore_bench.published.task import SMALL, Elsewhere, MetricUse, Prompted, PublishedTask, lines
from refcore_bench.task import TaskPrompt, Wording

COMMIT: Final = "1b7094991a57f3c22abdd4f6e8ba6c1a15517073"
AT: Final = f"https://raw.githubusercontent.com/Karine-Huang/T2I-CompBench/{COMMIT}/examples/dataset/"
HASHES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "color_val.txt": "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
        "shape_val.txt": "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
        "texture_val.txt": "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
        "spatial_val.txt": "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
        "3d_spatial_val.txt": "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
        "numeracy_val.txt": "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
        "non_spatial_val.txt": "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
        "complex_val.txt": "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
        "complex_val_spatial.txt": "6c7ac0ab75c7c9080cfc7b421fb059b9b0febb98471707aeedf58771088abc02",
        "complex_val_action.txt": "d49ee4c7f99e3f3379fb8704a54ff5288b83bb412971edf616a4721c2473308e",
        "complex_val_spatialaction.txt": "e02ddc7fed812e6577e7386ec2137ce0a994a5ce19771661f68df7ac349a6ca9",
    }
)
"""Public file -> its SHA-256."""
CATEGORIES: Final = (
    "color",
    "shape",
    "texture",
    "spatial",
    "3d_spatial",
    "numeracy",
    "non_spatial",
    "complex",
)
KINDS: Final = ("spatial", "action", "spatialaction")
"""Lists of complex prompts, by which the 3-in-1 score is averaged."""
SPLIT: Final = "val"
PICTURE: Final = re.compile(r"(?P<prompt>.+)_(?P<number>\d+)\.(?:png|jpe?g|webp)", re.DOTALL)
"""Name of an image in the public code: the prompt, and a number that runs through all images."""


class T2ICompBench(PublishedTask):
    """Ten images a prompt, with the seeds 42 to 51, as in the public code."""

    name = "t2i-compbench"
    wording = Wording(title="T2I-CompBench++", prompts="prompts", source="the prompts {}")
    licence = "MIT, Karine-Huang/T2I-CompBench"
    files = tuple(PublicFile(name, AT + name, f"sha256:{digest}") for name, digest in HASHES.items())
    metrics: ClassVar[Mapping[str, MetricUse]] = MappingProxyType(
        {
            "blip-vqa": MetricUse("blip-vqa"),
            "2d-owlv2": MetricUse("2d-owlv2"),
            "3d-owlv2": MetricUse("3d-owlv2"),
            "numeracy-owlv2": MetricUse("numeracy-owlv2"),
            "clip-score": MetricUse("clip-score"),
            "3-in-1": MetricUse("3-in-1"),
        }
    )
    as_published = frozenset({"color", "shape", "texture", "non_spatial"})
    seeds = "42-51"
    quick_prompts = tuple(
        TaskPrompt(prompt, category, SMALL, facts)
        for category, prompt, facts in (
            ("color", "a red circle and a blue square", {}),
            ("shape", "a round coin and a square tile", {}),
            ("texture", "a striped ring and a dotted star", {}),
            ("spatial", "a circle on the left of a square", {}),
            ("3d_spatial", "a circle in front of a square", {}),
            ("numeracy", "two circles and three squares", {}),
            ("non_spatial", "A circle is resting beside a square.", {}),
            ("complex", "The red circle is on the left of the blue square.", {"kind": "spatial"}),
        )
    )

    def read(self, folder: Path) -> list[TaskPrompt]:
        """The eight files NAME_val.txt, and, where they are there, the lists of spatial and acting complex prompts."""
        kinds: dict[str, str] = {}
        for kind in KINDS:
            if (folder / f"complex_val_{kind}.txt").is_file():
                kinds |= dict.fromkeys(lines(folder, f"complex_val_{kind}.txt"), kind)
        found = []
        for category in CATEGORIES:
            for prompt in lines(folder, f"{category}_val.txt"):
                own: dict[str, Any] = {"kind": kinds[prompt]} if category == "complex" and prompt in kinds else {}
                found.append(TaskPrompt(prompt, category, SPLIT, own))
        return found

    def groups(self) -> tuple[str, ...]:
        return CATEGORIES

    def groups_of(self, prompt: Prompted) -> tuple[str, ...]:
        return (prompt["category"],)

    def metric_of(self, group: str) -> str:
        return {
            "spatial": "2d-owlv2",
            "3d_spatial": "3d-owlv2",
            "numeracy": "numeracy-owlv2",
            "non_spatial": "clip-score",
            "complex": "3-in-1",
        }.get(group, "blip-vqa")

    def made_elsewhere(self, folder: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
        """`PROMPT_NUMBER.png` in FOLDER/CATEGORY, FOLDER/CATEGORY_val, or either's `samples`; or in FOLDER itself.

        As in the public code, the prompt is what stands before the first underscore, and the numbers are the order.
        """
        found: list[Elsewhere] = []
        wanted: dict[tuple[str, str], list[TaskPrompt]] = {}
        for one in prompts:
            for category in (one.category, ""):
                wanted.setdefault((category, _named(one.prompt)), []).append(one)
        counts: dict[TaskPrompt, int] = {}
        for place, category in _places(folder):
            matches = [(match, path) for path in place.iterdir() if (match := PICTURE.fullmatch(path.name))]
            for match, path in sorted(matches, key=lambda pair: (int(pair[0]["number"]), pair[1].name)):
                if not path.is_file():
                    continue
                named = match["prompt"].partition("_")[0]
                own = wanted.get((category, named), [])
                if len(own) != 1:
                    several = f"of prompts of {' and '.join(one.category for one in own)}; put it into CATEGORY"
                    raise RefcoreError(
                        f'"{shortened(path.name, 80)}" in "{place}" is '
                        f"{several if own else 'of no prompt of the benchmark; rename it to PROMPT_NUMBER.png'}, or "
                        "list file and prompt in a CSV (--csv)"
                    )
                counts[own[0]] = counts.get(own[0], -1) + 1
                found.append(Elsewhere(path, own[0], counts[own[0]]))
        return found


def _named(prompt: str) -> str:
    """The prompt as the public code reads it from a file's name: up to the first underscore."""
    return prompt.partition("_")[0]


def _places(folder: Path) -> list[tuple[Path, str]]:
    """(folder that may hold images, its category or "")."""
    found = []
    for category in CATEGORIES:
        for own in (folder / category, folder / f"{category}_val"):
            found += [(place, category) for place in (own / "samples", own) if place.is_dir()]
    return found or [(place, "") for place in (folder / "samples", folder) if place.is_dir()]


T2I_COMPBENCH: Final = T2ICompBench()
