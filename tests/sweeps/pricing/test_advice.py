"""What is advised where the truth is known: views that hide nothing, views that hide all, more and less ε."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import spaces
from ruamel.yaml import YAML

import dpsweep
from dpcore.config import Places
from dpcore.data.shards import ShardSet
from dpcore.data.synthetic import synth
from search_spaces.loader import build_space
from search_spaces.space import SpaceFile
from sweeps.cli import main
from sweeps.pricing.advice.found import AdviceAt, Scene, judged
from sweeps.report.overview.advice_text import HEADER, row_of
from sweeps.terminal.tables import render_table

EPSILONS = [0.03, 0.3, 3.0]
SPLITS = {
    "nothing": {"transform": "gaussian_blur", "sigma_px": 0.01},
    "all": {"transform": "pixelate", "cell_px": 64},
}


@dataclass(frozen=True, kw_only=True)
class World:
    places: Places
    advice: dpsweep.Advice

    def scene(self, split: str) -> Scene:
        return next(one for one in self.advice.found.scenes if one.split == split)


def document_of(**trial: Any) -> dict[str, Any]:
    values = {
        "data": {"private": "nobody/is/here", "public": "public", "validation": "validation", "nominal_examples": 600},
        "model": {"freeze": "early"},
        "stages": {"public": {"steps": 30, "batch_size": 16}, "private": {"steps": 20, "expected_batch_size": 60}},
        "subspace": {"examples": 60},
        **trial,
    }
    search = {
        "method": {"choice": ["dpsgd", "projected", "feature", "feature_projected"]},
        "split": {"choice": list(SPLITS), "when": {"method": ["feature", "feature_projected"]}},
        "clip_norm": {"float": [0.001, 1.0], "log": True},
        "subspace.rank": {"int": [8, 48], "when": {"method": ["projected", "feature_projected"]}},
        "public_weight": {"float": [0.0, 1.0], "when": {"method": ["feature", "feature_projected"]}},
    }
    return spaces.document(sweep={"epsilons": EPSILONS, "delta": 1e-4}, splits=SPLITS, trial=values, search=search)


def space_of(**trial: Any) -> SpaceFile:
    return build_space(document_of(**trial), name="small")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    root = tmp_path_factory.mktemp("advice")
    synth(root / "data" / "public", "public", count=80, seed=1, role="PUBLIC", name="public")
    synth(root / "data" / "validation", "private", count=96, seed=3, role="PUBLIC", name="validation")
    return Places(data_dir=root / "data", cache_dir=root / "cache")


@pytest.fixture(scope="module")
def world(places: Places) -> World:
    """Advice on a space whose private data does not exist."""
    found = dpsweep.advise(space_of(), data_dir=places.data_dir, cache_dir=places.cache_dir)
    return World(places=places, advice=found)


def of(scene: Scene, method: str) -> list[AdviceAt]:
    return [one for one in scene.methods if one.method == method]


def test_a_view_that_hides_nothing_is_advised_and_its_private_part_is_not_worth_its_price(world: World) -> None:
    scene = world.scene("nothing")
    assert scene.residual_ratio == pytest.approx(0.0, abs=1e-5)
    assert scene.public_weight == 1.0
    assert scene.free == pytest.approx(1.0, abs=0.05)
    for epsilon in EPSILONS:
        advised = scene.advised(epsilon)
        assert advised.method == "feature"
        assert advised.verdict == "free is enough"
        assert not any(one.pays for one in scene.at(epsilon))
    assert "feature with its private part off" in str(world.advice)


def test_a_view_that_hides_everything_cannot_pay(world: World) -> None:
    scene = world.scene("all")
    assert scene.residual_ratio == pytest.approx(1.0, abs=0.1)
    assert scene.residual_ratio > 0.9
    for one in (*of(scene, "feature"), *of(scene, "feature_projected")):
        assert not one.pays, (one.epsilon, one.method, one.verdict)


def test_a_larger_epsilon_is_predicted_to_gain_more_and_needs_fewer_people(world: World) -> None:
    for method in ("dpsgd", "projected", "feature", "feature_projected"):
        found = of(world.scene("all"), method)
        assert [one.epsilon for one in found] == EPSILONS
        kept = [one.kept for one in found]
        assert kept == sorted(kept)
        assert kept[-1] > kept[0]
        needed = [one.needed for one in found if one.needed is not None]
        assert needed == sorted(needed, reverse=True)
    plain = of(world.scene("all"), "dpsgd")
    assert plain[0].needed > plain[1].needed > plain[2].needed
    assert not plain[0].pays
    assert plain[2].pays


def test_the_n_that_is_needed_keeps_half_of_what_is_not_free(world: World) -> None:
    scene = world.scene("all")
    one = of(scene, "dpsgd")[1]
    larger = space_of(
        data={"private": "nobody/is/here", "public": "public", "validation": "validation", "nominal_examples": one.needed},
        stages={"public": {"steps": 30, "batch_size": 16}, "private": {"steps": 20, "expected_batch_size": round(one.needed / 10)}},
    )
    again = dpsweep.advise(larger, data_dir=world.places.data_dir, cache_dir=world.places.cache_dir)
    found = next(two for two in again.found.scenes if two.split == "all")
    assert of(found, "dpsgd")[1].kept == pytest.approx(scene.free + (1 - scene.free) / 2, abs=0.06)


def test_nothing_private_is_opened(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Private data that are there, but cannot be read, and would be noticed."""
    data = tmp_path / "data"
    shutil.copytree(world.places.data_dir, data)
    synth(data / "clinic", "private", count=30, seed=9, role="PRIVATE", name="clinic")
    for shard in (data / "clinic").glob("shard-*"):
        shard.write_bytes(b"not to be read")
    opened: list[str] = []
    monkeypatch.setattr(ShardSet, "images", _spying(ShardSet.images, opened))
    private = {"private": "clinic", "public": "public", "validation": "validation", "nominal_examples": 600}
    found = dpsweep.advise(space_of(data=private), epsilons=None, data_dir=data, cache_dir=tmp_path / "cache")
    assert set(opened) == {"public", "validation"}
    assert [scene.free for scene in found.found.scenes] == pytest.approx([scene.free for scene in world.advice.found.scenes])


def _spying(images: Any, opened: list[str]) -> Any:
    def noted(self: ShardSet, indices: Any) -> Any:
        opened.append(self.manifest.name)
        return images(self, indices)

    return noted


def test_private_people_are_refused_as_a_stand_in(world: World) -> None:
    synth(world.places.data_dir / "clinic", "private", count=30, seed=9, role="PRIVATE", name="clinic")
    with pytest.raises(dpsweep.BadInput, match=r"from PUBLIC data alone, and clinic is PRIVATE: give a PUBLIC dataset"):
        dpsweep.advise(space_of(), on="clinic", data_dir=world.places.data_dir, cache_dir=world.places.cache_dir)


def test_ranks_that_too_few_people_show_are_named(world: World) -> None:
    found = dpsweep.advise(space_of(), on="public", data_dir=world.places.data_dir, cache_dir=world.places.cache_dir).found
    assert any("ranks 48 not measured: only 40 other people" in note for note in found.notes)
    assert any("the shift from PUBLIC to PRIVATE people is not seen" in note for note in found.notes)


def test_the_command_prints_a_table_of_80_columns_or_json(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "small.yaml"
    YAML().dump(document_of(), path)
    where = ["--data-dir", str(world.places.data_dir), "--cache-dir", str(world.places.cache_dir)]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["advise", str(path), "--epsilons", "3", "--json", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [scene["split"] for scene in told["scenes"]] == list(SPLITS)
    assert {one["method"] for one in told["scenes"][0]["methods"]} == {"dpsgd", "projected", "feature", "feature_projected"}


def one_of(method: str, kept: float) -> AdviceAt:
    return AdviceAt(
        epsilon=1.0, method=method, kept=kept, stderr=0.01, public_weight=None, rank=None, clip_norm=1.0,
        noise_stddev=0.1, noise_to_signal=1.0, needed=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "free", "verdicts"),
    [
        ((0.50, 0.70, 0.51, 0.71), 0.1, ["pays", "best", "no better", "no better"]),
        ((0.50, 0.49, 0.70, 0.70), 0.1, ["pays", "no better", "best", "no better"]),
        ((0.10, 0.12, 0.30, 0.31), 0.3, ["free is enough"] * 4),
        ((0.20, 0.22, 0.40, 0.41), 0.3, ["free is enough", "free is enough", "too noisy", "too noisy"]),
        ((0.15, 0.12, 0.16, 0.11), 0.0, ["too noisy"] * 4),
        ((0.50, 0.55, 0.54, 0.62), 0.1, ["pays", "no better", "no better", "best"]),
    ],
)
def test_a_method_pays_above_what_is_free_and_above_its_own_parts(kept: tuple[float, ...], free: float, verdicts: list[str]) -> None:
    names = ("dpsgd", "projected", "feature", "feature_projected")
    found = list(judged([one_of(name, share) for name, share in zip(names, kept, strict=True)], free=free))
    assert [one.verdict for one in found] == verdicts


def test_the_table_fits_80_columns(world: World) -> None:
    rows = render_table(HEADER, [row_of(one) for one in world.scene("all").methods], width=80).splitlines()
    assert max(map(len, rows)) <= 80
    assert sum(row.startswith(tuple(f"{epsilon:g}  " for epsilon in EPSILONS)) for row in rows) == 12  # no row became a block


def test_a_plan_of_the_same_space_shows_the_advice_and_another_how_to_ask(world: World, tmp_path: Path) -> None:
    where = {"data_dir": world.places.data_dir, "cache_dir": world.places.cache_dir, "storage": tmp_path}
    dpsweep.advise(space_of(), data_dir=world.places.data_dir, cache_dir=world.places.cache_dir)
    assert str(world.advice) in str(dpsweep.plan(space_of(), **where))
    other = build_space(document_of(seed=4), name="small")
    assert "dpsweep advise SPACE" in str(dpsweep.plan(other, **where))
