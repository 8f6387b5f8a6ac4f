"""Templates of the files of a new plugin package (`refcore new`), one per file and kind; $words are filled in.

Each class is small, complete and keeps its contract; as its author changes it, the tests show what breaks.
"""

from __future__ import annotations

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "$summary, a $kind for refcore."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["refcore"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.refcore]
$name = "$module"

[tool.setuptools]
packages = ["$module"]
"""

README = """\
# $distribution

$summary: the $kind `$name` for [refcore](https://pypi.org/project/refcore/).

```
pip install -e ".[test]"
refcore plugins show $name
pytest
```

$where:

```$language
$usage
```

`$module/__init__.py` registers the name; it is imported whenever plugins are listed, so it imports nothing heavy.
`$module/$kind.py` is the plugin, and `tests/test_$identifier.py` tests its contract.
$more"""

MORE = {
    "referees": """
How well the referee judges images of the playground, and whether it can make one on its own:

```
refcore probe referee $name
```
""",
    "priors": "",
    "augmentations": "",
    "canvases": "",
    "parsers": "",
    "metrics": "",
    "trackers": "",
}

WHERE = dict.fromkeys(MORE, ("In a run's config", "yaml")) | dict.fromkeys(
    ("metrics", "trackers"), ("On the command line", "sh")
)
"""Where a plugin is named, and the language of that."""

INIT = '''\
"""Registers the $kind `$name`; nothing heavy is imported here."""

from __future__ import annotations

from refcore.hooks import Register, hookimpl

api_version = $api_version
"""Version of refcore's hooks and contracts that this package was written for."""


@hookimpl
def register_$kinds(register: Register) -> None:
    register(
        "$name",
        "$module.$kind:$cls",
        summary="$summary",
    )
'''

SUMMARY = {
    "referees": "Brightness of the image, from dark to bright in the prompt",
    "priors": "Smoothness: squared second differences of neighbouring pixels",
    "augmentations": "A random exposure of each view",
    "canvases": "A mosaic of square tiles",
    "parsers": "Prompts as lists, split at commas",
    "metrics": "Contrast of the picture, whatever the prompt",
    "trackers": "A table of every step's numbers, as CSV",
}

MODULE = {
    "referees": '''\
"""The referee `$name`: $lower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from refcore import Conditioning, PluginConfig, Referee
from torch import Tensor

LEVELS = {"black": 0.0, "dark": 0.25, "dim": 0.4, "light": 0.75, "bright": 0.9, "white": 1.0}
"""Brightness requested by a word of the prompt; 0.5 without such a word."""
EPS = 1e-8
"""Added inside the logarithm of a probability."""


class $cls(Referee):
    """p(match) = exp(-((brightness - asked) / tolerance)^2); the loss is -log p, or -log(1 - p) if not wanted."""

    class Config(PluginConfig):
        tolerance: float = Field(0.2, gt=0, description="Difference in brightness at which p(match) is 1/e.")
        size: int = Field(64, ge=1, description="Side of the views in pixels.")

    name = "$name"
    score_unit = "probability"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load, since it has no weights."""
        self.device, self.dtype = device, dtype
        self.input_size = (self.config.size, self.config.size)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Tensor `asked` [P]: the brightness in [0, 1] that each prompt asks for."""
        named = [[LEVELS[word] for word in prompt.lower().split() if word in LEVELS] for prompt in prompts]
        asked = torch.tensor([sum(levels) / len(levels) if levels else 0.5 for levels in named], device=self.device)
        notes = tuple("" if levels else f"names no brightness; known: {', '.join(LEVELS)}" for levels in named)
        return Conditioning(tuple(prompts), {"asked": asked}, notes=notes)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        off = self._off(views, conditioning["asked"].index_select(0, prompt_index))
        return off if wanted else -torch.log(-torch.expm1(-off) + EPS)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """p(match), in [0, 1]."""
        return torch.exp(-self._off(images, conditioning["asked"]))

    def _off(self, views: Tensor, asked: Tensor) -> Tensor:
        """-log p, [N]."""
        brightness = views.mean((1, 2, 3))
        return ((brightness - asked.to(brightness)) / self.config.tolerance).square()
''',
    "priors": '''\
"""The prior `$name`: $lower."""

from __future__ import annotations

import torch
from pydantic import Field
from refcore import Conditioning, Moment, PluginConfig, Prior, Rng
from torch import Tensor


class $cls(Prior):
    """The mean squared second difference along rows and columns: 0 for every linear colour ramp."""

    class Config(PluginConfig):
        across: float = Field(1.0, ge=0, description="Weight of the differences along rows.")
        down: float = Field(1.0, ge=0, description="Weight of the differences along columns.")

    name = "$name"
    space = "image"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load, since it has no weights."""

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, Tensor]:
        """The gradient of the value, shaped like the images x [B, 3, H, W], and the value [B]."""
        with torch.enable_grad():
            images = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
            value = self._curvature(images)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return gradient, value.detach()

    def _curvature(self, images: Tensor) -> Tensor:
        """[B]"""
        across = images.diff(n=2, dim=3).square().mean((1, 2, 3))
        down = images.diff(n=2, dim=2).square().mean((1, 2, 3))
        return self.config.across * across + self.config.down * down
''',
    "augmentations": '''\
"""The augmentation `$name`: $lower."""

from __future__ import annotations

from pydantic import Field
from refcore import Augmentation, Moment, PluginConfig, Rng, Schedule
from refcore.contracts.augmentation import Params
from torch import Tensor


class $cls(Augmentation):
    """Each view times 2^stops, like a camera's exposure, with stops drawn per view."""

    class Config(PluginConfig):
        stops: Schedule = Field(0.3, ge=0, description="Largest change either way, in stops (factors of 2).")

    name = "$name"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """stops [n], uniform, as large as they are at this step."""
        return {"stops": rng.uniform(-1, 1) * at.of(self.config.stops)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        return views * params["stops"].to(views.dtype).exp2().view(-1, 1, 1, 1)
''',
    "canvases": '''\
"""The canvas `$name`: $lower."""

from __future__ import annotations

import torch
from pydantic import Field
from refcore import Canvas, Moment, PluginConfig, RefcoreError, Rng
from refcore.contracts.canvas import CanvasParams
from torch import Tensor
from torch.nn import functional as F

TILES = "tiles"
"""The only tensor of the params, [B, 3, H / tile, W / tile]: logits of the tiles' colours."""


class $cls(Canvas):
    """Square tiles of one colour each: an image has three degrees of freedom per tile."""

    class Config(PluginConfig):
        tile: int = Field(4, ge=1, description="Side of a tile in pixels; the image's sides are multiples of it.")
        noise: float = Field(0.1, ge=0, description="Standard deviation of the initial logits around mid-grey.")

    name = "$name"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """16 x 16 tiles by default. `dtype` is not used: the tiles are float32."""
        tile = self.config.tile
        self.device = device
        self.size = size if size is not None else (16 * tile, 16 * tile)
        if min(self.size) < 1 or any(side % tile for side in self.size):
            near = tuple(max(1, round(side / tile)) * tile for side in self.size)
            raise RefcoreError(
                f"size {self.size[0]}x{self.size[1]} (height x width): each side must be a multiple of the tile's "
                f"{tile} pixels; the nearest is {near[0]}x{near[1]}"
            )

    def init(self, rng: Rng) -> CanvasParams:
        height, width = (side // self.config.tile for side in self.size)
        return {TILES: self.config.noise * rng.normal(3, height, width).to(self.device)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        """See `Canvas.decode`; it is the same in every step."""
        return F.interpolate(params[TILES].sigmoid(), scale_factor=self.config.tile, mode="nearest")

    @torch.no_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """Each tile gets its mean colour, kept 0.001 away from 0 and 1, where logits are infinite."""
        return {TILES: F.avg_pool2d(images.to(self.device, torch.float32), self.config.tile).logit(eps=1e-3)}
''',
}

MODULE["parsers"] = '''\
"""The parser `$name`: $lower."""

from __future__ import annotations

from pydantic import Field
from refcore import ParsedPrompt, Parser, Phrase, PluginConfig
from refcore.errors import ParseError


class $cls(Parser):
    """Each piece between separators is a thing without a count; there are no relations."""

    class Config(PluginConfig):
        separator: str = Field(",", min_length=1, description="Separator between two things.")

    name = "$name"
    config: Config

    def parse(self, prompt: str) -> ParsedPrompt:
        """See `Parser.parse`."""
        pieces = [piece.strip() for piece in prompt.split(self.config.separator)]
        if not all(pieces):
            raise ParseError(f'"{prompt}" has an empty piece; expected things with "{self.config.separator}" between')
        return ParsedPrompt(prompt, tuple(Phrase(piece, None, piece) for piece in pieces))
'''

MODULE["metrics"] = '''\
"""The metric `$name`: $lower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from refcore import BenchmarkPrompt, Measurement, Metric, PluginConfig
from refcore.images import Levels


class $cls(Metric):
    """Standard deviation of the grey levels, of at most `cap`."""

    class Config(PluginConfig):
        cap: float = Field(0.5, gt=0, le=0.5, description="Largest value, in units of the range from black to white.")

    name = "$name"
    unit = "standard deviation of the levels, 0 to 0.5"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads nothing: there is no model."""

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. The part is the mean level."""
        found = []
        for image in images:
            grey = np.asarray(image, np.float64).mean(2) / 255
            found.append(Measurement(min(float(grey.std()), self.config.cap), {"mean level": float(grey.mean())}))
        return found
'''

MODULE["trackers"] = '''\
"""The tracker `$name`: $lower."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any, TextIO

from pydantic import Field
from refcore import RefcoreError, Tracker
from refcore.contracts.tracker import Outcome, TrackedRun


class $cls(Tracker):
    """One row a number: step, name, value. A run that goes on appends to its table."""

    class Config(Tracker.Config):
        file: str = Field("$name.csv", min_length=1, description="Name of the table in the run's folder.")

    name = "$name"
    config: Config
    _file: TextIO | None = None
    _rows: Any = None

    def start(self, run: TrackedRun) -> None:
        """See `Tracker.start`.

        Raises:
            RefcoreError: the run has no folder.
        """
        if run.folder is None:
            raise RefcoreError("the tracker $name has no folder to write to; give the run one (out=)")
        self._file = (run.folder / self.config.file).open("a" if run.first_step else "w", newline="")
        self._rows = csv.writer(self._file)
        if not run.first_step:
            self._rows.writerow(["step", "name", "value"])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._rows.writerows([step, name, value] for name, value in values.items())

    def pictures(self, step: int, pictures: Mapping[str, Any]) -> None:
        """None are kept."""

    def end(self, outcome: Outcome) -> None:
        if self._file is not None:
            self._file.close()
'''

TEST_HEAD = '''\
"""`$name` keeps the contract of a $kind and behaves as documented."""

from __future__ import annotations

$imports
from refcore.testing import suite

from $module.$kind import $cls

Test$cls = suite($cls$options)
"""One test per rule of the contract; `pytest -v` lists them."""


def test_it_is_found_by_its_name() -> None:
    assert registry.get("$kinds", "$name") is $cls


'''

TEST = {
    "referees": """\
def test_the_brightness_asked_for_has_the_lowest_loss() -> None:
    referee = $cls()
    referee.load(torch.device("cpu"), torch.float32)
    views = torch.tensor([0.1, 0.25, 0.9]).view(3, 1, 1, 1).expand(3, 3, *referee.input_size)
    losses = referee.judge(views, referee.read(["a dark room"]), torch.zeros(3, dtype=torch.int64))
    assert losses.argmin() == 1
    assert referee.score(views[1:2], referee.read(["a dark room"])) == 1
""",
    "priors": """\
def test_an_even_ramp_is_at_rest_and_an_edge_is_not() -> None:
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    prior = $cls()
    for images, moves in ((ramp, False), (ramp.round(), True)):
        gradient, value = prior.gradient(images, prior.read(["any"]), Moment(0, 1), Rng([0], 0, "test"))
        assert bool(value > 1e-6) is moves
        assert bool(gradient.abs().max() > 1e-6) is moves
""",
    "augmentations": """\
def test_no_stops_change_nothing_and_one_stop_doubles() -> None:
    views = torch.rand(2, 3, 4, 4)
    augmentation = $cls()
    changed = augmentation.apply(views, {"stops": torch.tensor([0.0, 1.0])})
    assert torch.equal(changed[0], views[0])
    assert torch.allclose(changed[1], 2 * views[1])
    for step, most in ((0, 0.2), (1, 0.1)):
        falling = $cls(stops={"kind": "linear", "start": 0.2, "end": 0.0})
        stops = falling.draw((4, 4), Rng([0], 0, "test", count=99), Moment(step, 2))["stops"]
        assert most / 2 < stops.abs().max() <= most
""",
    "canvases": """\
def test_a_tile_has_one_colour() -> None:
    canvas = $cls(tile=4)
    canvas.load(torch.device("cpu"), torch.float32, (8, 12))
    image = canvas.decode(canvas.init(Rng([0], 0, "test")), Moment.end(1))
    assert image.shape == (1, 3, 8, 12)
    assert torch.equal(image[..., :4, :4], image[..., :1, :1].expand(1, 3, 4, 4))
    assert not torch.equal(image[..., 0, 0], image[..., 0, 4])
""",
    "parsers": """\
def test_a_list_is_taken_apart() -> None:
    assert $cls().parse("a red hat, grass").sentences() == ("a red hat", "grass")
    with pytest.raises(RefcoreError, match="empty piece"):
        $cls().parse("a red hat,")
""",
    "metrics": """\
def test_a_flat_picture_has_no_contrast_and_a_board_the_most() -> None:
    metric, prompt = $cls(), BenchmarkPrompt("any")
    flat, board = np.full((4, 4, 3), 90, np.uint8), np.zeros((4, 4, 3), np.uint8)
    board[:, ::2] = 255
    assert [one.value for one in metric.measure([flat, board], [prompt, prompt])] == [0.0, 0.5]
""",
    "trackers": """\
def test_a_run_that_goes_on_appends_to_its_table(tmp_path: Path) -> None:
    for first in (0, 1):
        tracker = $cls()
        tracker.start(TrackedRun("a run", tmp_path, {}, [("a red hat", 0)], first))
        tracker.scalars(first + 1, {"loss/clip": 0.5})
        tracker.end("finished")
    table = (tmp_path / tracker.config.file).read_text().splitlines()
    assert table == ["step,name,value", "1,loss/clip,0.5", "2,loss/clip,0.5"]
""",
}

IMPORTS = {
    "referees": "import torch\nfrom refcore import registry",
    **dict.fromkeys(("priors", "augmentations", "canvases"), "import torch\nfrom refcore import Moment, Rng, registry"),
    "parsers": "import pytest\nfrom refcore import RefcoreError, registry",
    "metrics": "import numpy as np\nfrom refcore import BenchmarkPrompt, registry",
    "trackers": (
        "from pathlib import Path\n\nfrom refcore import registry\nfrom refcore.contracts.tracker import TrackedRun"
    ),
}
"""What the tests import beside `suite` and the plugin."""
OPTIONS = {
    "referees": ', prompts=("a dark room", "a bright room", "a dim hall")',
    "priors": "",
    "augmentations": "",
    "canvases": ", size=(24, 32)",
    "parsers": "",
    "metrics": "",
    "trackers": "",
}
"""Arguments of `suite` after the plugin."""
