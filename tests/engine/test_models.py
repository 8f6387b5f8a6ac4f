"""Models shared between runs: loaded once, equal results, text towers kept, nothing of a run shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from toys import ToyLatent, ToyReferee, ToySds, toy_config

from refcore import registry
from refcore.config.run import RunConfig
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.loading import load_panel
from refcore.engine.models import Models
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig

pytestmark = pytest.mark.fault("2.3")
LOADED: list[str] = []


class Counted(ToyReferee):
    class Config(ToyReferee.Config):
        model: str = "none"

    tower: object | None = None

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        LOADED.append("referee")
        self.tower = object()
        super().load(device, dtype)

    def read(self, prompts: Any) -> Any:
        assert self.tower is not None
        return super().read(prompts)

    def finish_reading(self) -> None:
        self.tower = None


class CountedCanvas(ToyLatent):
    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        LOADED.append("canvas")
        super().load(device, dtype, size)


class CountedPrior(ToySds):
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        LOADED.append("prior")
        super().load(device, dtype)


class Learner(CountedPrior):
    learns: ClassVar[bool] = True


class Unshared(CountedPrior):
    shareable: ClassVar[bool] = False


@pytest.fixture(autouse=True)
def _counted() -> None:
    LOADED.clear()
    for kind, name, cls in (
        ("referees", "counted", Counted),
        ("canvases", "counted", CountedCanvas),
        ("priors", "counted", CountedPrior),
        ("priors", "learner", Learner),
        ("priors", "unshared", Unshared),
    ):
        registry.register(kind, name, cls, "counts")  # type: ignore[arg-type]


def config(**fields: Any) -> RunConfig:
    plain = {"canvas": {"name": "counted"}, "referees": [{"name": "counted"}], "priors": [{"name": "counted"}]}
    return toy_config(**{**plain, **fields, "steps": 3})


def images(config: RunConfig, models: Models | None) -> torch.Tensor:
    inversion = Inversion(config, models=models)
    list(inversion)
    return inversion.images()


def test_a_second_run_loads_nothing_and_computes_the_same() -> None:
    alone = [images(config(), None), images(config(prompts=["a fish"]), None)]
    assert LOADED == ["canvas", "referee", "prior"] * 2
    LOADED.clear()
    with Models() as models:
        shared = [images(config(), models), images(config(prompts=["a fish"]), models), images(config(), models)]
        assert LOADED == ["canvas", "referee", "prior"]
        assert len(models) == 3
    assert len(models) == 0
    for one, other in zip([*alone, alone[0]], shared, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "other",
    [
        {"referees": [{"name": "counted", "config": {"seed": 4}}]},
        {"referees": [{"name": "counted", "dtype": "float32"}]},
        {"size": 16},
        {"dtype": "float32"},
    ],
)
def test_another_setting_dtype_or_size_loads_anew(other: dict[str, Any]) -> None:
    models = Models()
    images(config(), models)
    before = len(LOADED)
    found = images(config(**other), models)
    assert len(LOADED) > before
    assert torch.equal(found, images(config(**other), None))


def test_a_local_folder_that_has_changed_is_loaded_anew(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("one")
    own = config(referees=[{"name": "counted", "config": {"model": str(tmp_path)}}])
    models = Models()
    images(own, models)
    images(own, models)
    assert LOADED.count("referee") == 1
    (tmp_path / "weights").write_text("other")
    images(own, models)
    assert LOADED.count("referee") == 2
    prefixed = config(referees=[{"name": "counted", "config": {"model": f"local-dir:{tmp_path}"}}])
    images(prefixed, models)
    (tmp_path / "weights").write_text("a third")
    images(prefixed, models)
    assert LOADED.count("referee") == 4


@pytest.mark.parametrize("prior", ["learner", "unshared"])
def test_what_keeps_something_of_a_run_is_not_shared(prior: str) -> None:
    models = Models()
    for _ in range(2):
        images(config(priors=[{"name": prior}]), models)
    assert LOADED.count("prior") == 2
    assert LOADED.count("referee") == 1


def test_equal_priors_of_one_run_stay_two() -> None:
    twice = config(priors=[{"name": "counted"}, {"name": "counted"}])
    models = Models()
    engines = [build(twice, models), build(twice, models)]
    first, second = engines[0].priors
    assert first.prior is not second.prior
    assert [loaded.prior for loaded in engines[1].priors] == [first.prior, second.prior]


def test_a_panel_takes_its_referees_from_the_models() -> None:
    models = Models()
    images(config(), models)
    panel = load_panel(config(referees=[{"name": "counted", "prompt": "no {prompt}"}]).panel, models)
    assert LOADED.count("referee") == 1
    assert len(panel.losses(torch.rand(2, 3, 32, 32, dtype=torch.float64))) == 1


def test_a_panel_fills_models_that_are_empty() -> None:
    models, config = Models(), toy_config(referees=[{"name": "counted"}]).panel
    first, second = load_panel(config, models), load_panel(config, models)
    assert first.referees[0].referee is second.referees[0].referee
    assert len(models) == 1


def test_without_models_text_towers_are_dropped_and_with_them_kept() -> None:
    for models in (None, Models()):
        engine = Inversion(config(), models=models).engine
        referee: Any = engine.panel.referees[0].referee
        assert (referee.tower is None) == (models is None)


def test_a_referee_that_failed_to_load_is_tried_again() -> None:
    class Late(ToyReferee):
        class Config(PluginConfig):
            seed: int = 0
            side: int = 16
            context: int = 100
            nan_at: int | None = None

        ready = False

        def load(self, device: torch.device, dtype: torch.dtype) -> None:
            if not Late.ready:
                raise RefcoreError("not yet")
            super().load(device, dtype)

    registry.register("referees", "late", Late, "late")
    models = Models()
    with pytest.raises(RefcoreError, match="not yet"):
        images(config(referees=[{"name": "late"}]), models)
    Late.ready = True
    images(config(referees=[{"name": "late"}]), models)


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"prompts": ["a fish"]}, "prompts"),
        ({"referees": [{"name": "counted", "weight": 3.0}]}, "referees"),
        ({"seeds": [9], "noise": 0.1}, "seeds, noise"),
    ],
)
def test_the_engine_of_another_config_is_refused_as_a_foreign_state_is(other: dict[str, Any], names: str) -> None:
    engine = build(config())
    with pytest.raises(RefcoreError, match=rf"engine is of another config \(it differs in {names}\)"):
        Inversion(config(**other), engine=engine)
    Inversion(config(chunk=4), engine=engine)
    Inversion(config(referees=[{"name": "counted", "config": {"seed": 0}}]), engine=engine)


def test_a_panel_alone_fills_models_that_are_still_empty() -> None:
    """An empty `Models` is false, and is a place to keep models nevertheless."""
    config = toy_config()
    with Models() as models:
        load_panel(config.panel, models)
        assert len(models) > 0
