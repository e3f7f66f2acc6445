"""Another package adds a method, a backbone, a head, a sampler, a regime and an importer, and sweeps with them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fake_trials import compose
from PIL import Image

from dpcore.config import METHODS, TrialConfig, parse_config
from dpcore.config.networks import BACKBONES, HEADS
from dpcore.config.registry import installed
from dpcore.data.formats import IMPORTERS
from dpcore.errors import BadInput
from dpcore.pose.metrics import METRICS
from dpcore.pose.skeleton import MPII_16
from dpcore.privacy.accounting import epsilon_spent
from dpcore.privacy.plan import PrivacyPlan
from search_spaces.regimes import REGIMES
from search_spaces.samplers import SAMPLERS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SPACE = """
sweep: {epsilons: [3.7], delta: 1.0e-3, trials_per_epsilon: 2, sampler: noted, accounting: twice}
references: {floor: false, ceiling: false, control: false, winner_seeds: 1, disclosure: false}
splits: {pixels_8: {transform: pixelate, cell_px: 8}}
trial:
  data: {private: theirs, public: tiny/public, validation: tiny/validation, nominal_examples: 30}
  model: {backbone: strides, head: mean, freeze: backbone}
  stages:
    public: {steps: 4, batch_size: 8}
    private: {steps: 3, expected_batch_size: 7}
search:
  method: {choice: [signed, public_mix]}
  split: {choice: [pixels_8], when: {method: public_mix}}
  public_batch_size: {choice: [5], when: {method: public_mix}}
  clip_norm: {float: [0.1, 1.0], log: true}
"""


def install(folder: Path) -> Path:
    """The package in a folder, with the metadata that pip would write."""
    shutil.copytree(HERE / "stranger", folder / "stranger")
    about = folder / "stranger-0.7.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.7\n")
    code = (HERE / "stranger" / "pieces.py").read_text()
    (about / "entry_points.txt").write_text(code.partition('ENTRY_POINTS = """\\\n')[2].removesuffix('"""\n'))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package on this process's path, and gone from it and from the tables afterwards."""
    folder = install(tmp_path_factory.mktemp("site"))
    sys.path.insert(0, str(folder))
    installed.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for table in (METHODS, BACKBONES, HEADS, IMPORTERS, METRICS, REGIMES, SAMPLERS):
            patch.setattr(table, "_entries", dict(table._entries))
        yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
        del sys.modules[name]
    installed.cache_clear()


@pytest.fixture
def write_space(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path / "space.yaml"


def test_a_space_with_a_strangers_names_loads_without_torch(site: Path, write_space: Path) -> None:
    code = f"""
import sys
from search_spaces.loader import load_space
space = load_space({str(write_space)!r})
print(space.methods, space.sweep.regime.name, space.sweep.sampler_traits.draws, "torch" in sys.modules, "optuna" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=_environment(site), capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "('signed', 'public_mix') twice independent False False"


def test_a_strangers_regime_refuses_what_it_will(site: Path, tmp_path: Path) -> None:
    from search_spaces.loader import load_space

    (tmp_path / "unlucky.yaml").write_text(SPACE)
    with pytest.raises(BadInput, match=r"^sweep.seed: unlucky$"):
        load_space(tmp_path / "unlucky.yaml")


def test_a_strangers_method_makes_its_direction_from_released_values(site: Path) -> None:
    from dpcore.privacy.directions import direction_of
    from dpcore.privacy.mechanism import Mechanism, Randomness, Sources
    from dpcore.privacy.per_example import Batch, GradientEngine
    from dpcore.privacy.randomness import PrivateStreams, PublicStreams, SweepKey

    class Held:
        """Examples whose gradient is themselves, and views of another one."""

        def __len__(self) -> int:
            return 5

        def draw_geometry(self, stream: object, count: int) -> None:
            return None

        def batch(self, indices: np.ndarray, draw: object) -> Batch:
            return self._batch(torch.eye(6)[indices])

        def view_batch(self, indices: np.ndarray, draw: object) -> Batch:
            raise AssertionError("a row that is a gradient alone needs no view")

        def _batch(self, inputs: torch.Tensor) -> Batch:
            return Batch(inputs, torch.zeros(len(inputs), 1, 2), torch.ones(len(inputs), 1, dtype=torch.bool))

    def directions(method: str, **changes: object) -> torch.Tensor:
        module = torch.nn.Linear(6, 1, bias=False)
        torch.nn.init.zeros_(module.weight)
        config = parse_config(TrialConfig, {**VALUES, "method": method, **changes})
        mechanism = Mechanism(
            config,
            GradientEngine(module, lambda m, b: m(b.inputs)[:, 0]),
            sources=Sources(private=Held(), views=Held()),
            randomness=Randomness(private=PrivateStreams(key=SweepKey(bytes(range(32))), trial_id="t"), public=PublicStreams(0)),
            noise_multiplier=0.37,
            physical_batch_size=2,
        )
        return mechanism.direction(0).value

    plain = directions("dpsgd")
    assert torch.equal(directions("signed"), torch.sign(plain))
    views = {"split": {"name": "d", "transform": "downsample", "factor": 2}, "public_weight": 0.6, "public_batch_size": 5}
    mixed = directions("public_mix", **views)
    public = torch.tensor([0.12] * 5 + [0.0])
    torch.testing.assert_close(mixed, plain + public)
    shorter = dataclasses.replace(METHODS.get("signed"), direction=lambda public, private: private[:2])
    with pytest.raises(BadInput, match="method signed: its direction must be a tensor of shape"):
        direction_of(shorter, None, torch.zeros(6))


VALUES = {
    "epsilon": 1.0,
    "delta": 1e-5,
    "clip_norm": 0.7,
    "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 5},
    "stages": {"private": {"steps": 10, "expected_batch_size": 3}},
}


def test_fields_follow_the_traits_of_a_strangers_method(site: Path) -> None:
    with pytest.raises(BadInput, match=r"method signed has no public_weight: leave it out \(given 0.5\)"):
        parse_config(TrialConfig, {**VALUES, "method": "signed", "public_weight": 0.5})
    with pytest.raises(BadInput, match=r"method public_mix .* reads public views: give a split"):
        parse_config(TrialConfig, {**VALUES, "method": "public_mix"})
    with pytest.raises(BadInput, match="dp_bias_correction: method signed makes its own direction"):
        parse_config(TrialConfig, {**VALUES, "method": "signed", "optimizer": {"name": "adam", "dp_bias_correction": True}})


def test_a_strangers_network_is_built_drawn_alike_and_saved(site: Path, tmp_path: Path) -> None:
    from dpcore.config import Places
    from dpcore.model.network import build_network, weights_digest
    from dpcore.train.saved import load_model, save_model

    config = parse_config(
        TrialConfig, {**VALUES, "method": "dpsgd", "model": {"backbone": "strides", "head": "mean", "freeze": "backbone"}}
    )
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    first, second = (build_network(config.model, places, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert weights_digest(first.state_dict()) == weights_digest(second.state_dict())
    save_model(tmp_path / "model", first, config=config, meta={})
    loaded = load_model(tmp_path / "model")
    images = torch.rand(2, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(loaded.network(images), first.eval()(images), strict=True))
    with pytest.raises(BadInput, match=r"model.freeze early needs a last block to train, backbone strides has none"):
        parse_config(TrialConfig, {**VALUES, "method": "dpsgd", "model": {"backbone": "strides", "head": "mean"}})


def test_a_strangers_metric_stands_beside_our_own(site: Path) -> None:
    from dpcore.train.evaluator import metrics_of

    truth = np.zeros((2, 16, 2))

    class TwoPeople(SimpleNamespace):
        def __len__(self) -> int:
            return 2

    dataset = TwoPeople(
        frame=None,
        skeleton=MPII_16,
        keypoints=truth,
        visible=np.arange(16)[None] < np.array([[9], [4]]),
        head_size_px=np.array([7.3, 11.9]),
        person_boxes_px=np.full((2, 4), np.nan),
        places=np.full((2, 3), np.nan),
        areas_px2=np.full(2, np.nan),
        image_ids=np.array(["a", "b"]),
        manifest=SimpleNamespace(width_px=64, height_px=64),
    )
    sure = torch.ones(2, 16)
    found = metrics_of((torch.full((2, 16, 2), 3.7, dtype=torch.float64), sure), dataset=dataset, per_joint=False)  # type: ignore[arg-type]
    assert found == {"val/pckh_50": pytest.approx(found["val/pckh_50"]), "val/pckh_10": 0.0, "val/error_px": pytest.approx(3.7 * 2**0.5)}
    assert 0 < found["val/pckh_50"] < 1
    lost = metrics_of((torch.full((2, 16, 2), torch.nan, dtype=torch.float64), sure), dataset=dataset, per_joint=False)  # type: ignore[arg-type]
    assert lost == {"val/pckh_50": 0.0, "val/pckh_10": 0.0}


def test_a_plan_is_priced_and_told_by_a_strangers_regime(site: Path, write_space: Path) -> None:
    from search_spaces.loader import load_space
    from sweeps.pricing.plan import Accountant, plan_sweep

    def plan_of(config: TrialConfig, cache_dir: object) -> PrivacyPlan:
        return PrivacyPlan(
            sampling_prob=7 / 30,
            steps=3,
            noise_multiplier=2.37,
            delta=1e-3,
            epsilon_target=3.7,
            epsilon_planned=3.61,
            relation="add_remove",
        )

    plan = plan_sweep(load_space(write_space), Accountant(plan=plan_of, compose=compose, spent=epsilon_spent))
    assert "(composition of all its trials by PLD, says a stranger), per image" in plan.headline
    assert plan.sweep_epsilon == plan.composed_epsilon is not None
    assert [price.accounting for price in plan.prices] == ["composed", "public_proxy", "private_selection", "unaccounted", "twice"]


def _environment(site: Path, data: Path | None = None) -> dict[str, str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    more = {} if data is None else {"DPSWEEP_DATA_DIR": str(data)}
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def _pictures(folder: Path, count: int) -> Path:
    """Photographs of noise, each with a brighter patch, and the list that names them."""
    folder.mkdir()
    generator, rows = np.random.default_rng(5), []
    for number in range(count):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "keypoints": generator.uniform(1, 62, (16, 2)).tolist()})
    (folder / "list.json").write_text(json.dumps(rows))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["entry points", "DPSWEEP_PLUGINS"])
def test_a_sweep_with_everything_of_a_strangers_runs_on_rays_workers(way: str, site: Path, write_space: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = _environment(site, data)
    if way == "DPSWEEP_PLUGINS":
        shutil.copytree(site / "stranger", tmp_path / "bare" / "stranger")
        registers = "\n".join(
            [
                "from stranger import pieces",
                "from dpcore.config.methods import METHODS",
                "from dpcore.config.networks import BACKBONES, HEADS",
                "from dpcore.data.formats import IMPORTERS",
                "from dpcore.pose.metrics import METRICS",
                "from search_spaces.regimes import REGIMES",
                "from search_spaces.samplers import SAMPLERS",
                "METHODS.register(pieces.SIGNED), METHODS.register(pieces.PUBLIC_MIX), BACKBONES.register(pieces.STRIDES)",
                "HEADS.register(pieces.MEAN), SAMPLERS.register(pieces.NOTED), REGIMES.register(pieces.TWICE)",
                "IMPORTERS.register(pieces.KEYPOINT_LIST), METRICS.register(pieces.ERROR_PX)",
            ]
        )
        (tmp_path / "bare" / "registers.py").write_text(registers)
        environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path / "bare"), str(ROOT)]), "DPSWEEP_PLUGINS": "registers"}

    def ok(*line: object) -> str:
        command = [sys.executable, "-m", "sweeps.cli", *map(str, line)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    photographs = _pictures(tmp_path / "photographs", 30)
    source = ("--annotations", photographs / "list.json", "--images", photographs, "--height", 64, "--width", 64)
    ok("data", "import", "keypoint_list", *source, "--head-px", 9.5, "--out", data / "theirs", "--role", "PRIVATE", "--stand-in")
    for name, domain, count in (("public", "public", 20), ("validation", "private", 12)):
        ok("data", "synth", "--domain", domain, "--count", count, "--role", "PUBLIC", "--out", data / "tiny" / name)
    store = tmp_path / "store"
    told = ok("run", write_space, "--name", "theirs", "--storage", store, "--max-concurrent", 1)
    assert told.count("sweep theirs: priced by a stranger") == 1
    assert "says a stranger" in told
    ok("ledger", "theirs", "--storage", store, "--verify")
    best = json.loads(ok("best", "theirs", "--epsilon", 3.7, "--storage", store, "--json"))
    assert best["method"] in ("signed", "public_mix")
    curves = pq.read_table(next(store.rglob("curves.parquet")))
    assert "val/error_px" in curves.to_pydict()["metric"]
    assert "**priced by a stranger**" in next(store.rglob("report.md")).read_text()
