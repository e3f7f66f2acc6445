"""A sweep on data of COCO's form: without head sizes it maximises, shows and exports another metric than PCKh."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from drawn_coco import write_people
from mlflow import MlflowClient
from one_process import OneProcess

from dpcore.config import Places
from dpcore.data.synthetic import synth
from dpcore.errors import BadInput
from dpcore.pose.skeleton import COCO_17, Skeleton
from dpcore.train.saved import load_model
from search_spaces.loader import build_space
from sweeps.api.results import Best
from sweeps.api.sweep import status, summarize
from sweeps.api.trials import evaluate
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import run_sweep
from sweeps.engine.preflight import default_surroundings, describe_dataset
from sweeps.records.export import UNKNOWN, best_trial, export_trial
from sweeps.records.publication import trial_at_hand
from sweeps.records.results import SweepResults, read_results
from sweeps.records.spec import SweepSpec
from sweeps.storage.urls import default_store, sqlite_url

SPACE: dict[str, Any] = {
    "sweep": {"epsilons": [6.0], "delta": 1e-3, "trials_per_epsilon": 3, "sampler": "random", "accounting": "composed"},
    "references": {"floor": True, "ceiling": True, "control": False, "winner_seeds": 2, "disclosure": False},
    "trial": {
        "data": {"private": "private", "public": "public", "validation": "validation", "nominal_examples": 40},
        "model": {"backbone": "small", "freeze": "backbone"},
        "stages": {"public": {"steps": 12, "batch_size": 16}, "private": {"steps": 3, "expected_batch_size": 12}},
    },
    "search": {"method": {"choice": ["dpsgd"]}, "clip_norm": {"float": [0.01, 2.0], "log": True}},
}


def spec_of(root: Path, metric: str) -> SweepSpec:
    space = build_space({**SPACE, "sweep": {**SPACE["sweep"], "metric": metric}}, name="s")
    return SweepSpec(name="s", space=space, places=Places(data_dir=root / "data", cache_dir=root / "cache"), storage=root / metric)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Private and validation people with COCO's joints; the public ones have MPII's, and are read by name."""
    folder = tmp_path_factory.mktemp("coco")
    write_people(folder / "data" / "private", seed=2, count=40, role="PRIVATE")
    write_people(folder / "data" / "validation", seed=3, count=24, role="PUBLIC")
    synth(folder / "data" / "public", "public", count=32, seed=1, role="PUBLIC")
    return folder


@pytest.fixture(scope="module", params=["pck_bbox_20", "oks_ap"])
def swept(request: pytest.FixtureRequest, root: Path) -> Iterator[tuple[SweepSpec, SweepResults, str]]:
    spec, said = spec_of(root, request.param), list[str]()
    around = replace(default_surroundings(), say=said.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
        patch.setattr(driver_module, "run_tune", OneProcess())
        results = run_sweep(spec, around, summarize=partial(summarize, spec))
        yield spec, results, "\n".join(said)


Swept = tuple[SweepSpec, SweepResults, str]


def test_every_trial_is_done_and_the_best_has_the_highest_score(swept: Swept) -> None:
    spec, results, _ = swept
    assert {record.state for record in results.records} == {"done"}
    scores = [record.score for record in results.of_role("search")]
    assert all(score is not None and 0 <= score <= 1 for score in scores)
    assert results.best(6.0).score == max(scores)
    assert {record.pckh_50 for record in results.records} == {None}
    assert results.metric == spec.metric


def test_tables_and_best_carry_the_metric_beside_pckh_which_is_null(swept: Swept) -> None:
    spec, results, _ = swept
    read = read_results(spec.sweep_dir)
    assert [record.score for record in read.records] == [record.score for record in results.records]
    row = read.trial_table().to_pylist()[-1]
    assert (row["metric"], row["pckh_50"]) == (spec.metric, None)
    assert row["score"] == read.records[-1].score
    document = Best(record=best_trial(read, 6.0), price=UNKNOWN, answer=None, scored_on="all").document()
    assert (document["metric"], document["pckh_50"], document["pckh_10"]) == (spec.metric, None, None)
    assert document["score"] == results.best(6.0).score
    assert export_trial(best_trial(read, 6.0), spec).metric == spec.metric


def test_status_report_and_mlflow_say_the_metric(swept: Swept) -> None:
    spec, results, said = swept
    title, winner = results.metric_title, results.best(6.0)
    told = status("s", storage=spec.storage)
    assert told["metric"] == title
    assert told["epsilons"][0]["best"] == winner.score
    report = (spec.sweep_dir / "report" / "report.md").read_text()
    assert f"{title} %" in report
    assert "PCKh@0.5" not in report
    assert title in said
    client = MlflowClient(sqlite_url(default_store(spec.storage_dir)))
    runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    assert any(run.data.metrics.get(f"best/{spec.metric}") == winner.score for run in runs)


def test_a_pck_has_an_interval_and_oks_ap_says_none(swept: Swept) -> None:
    spec, _, _ = swept
    report = (spec.sweep_dir / "report" / "report.md").read_text()
    (row,) = (line for line in report.splitlines() if line.startswith("| 6 |"))
    assert ("±" in row) == (spec.metric == "pck_bbox_20")
    assert ("how it varies between validation people is not known" in report) == (spec.metric == "oks_ap")


def test_the_winner_is_scored_again_with_the_joints_of_its_data(swept: Swept, tmp_path: Path) -> None:
    spec, results, _ = swept
    winner = results.best(6.0)
    folder = trial_at_hand(spec, winner.trial_id)
    assert load_model(folder).skeleton == COCO_17
    again = evaluate(folder, "validation", data_dir=spec.places.data_dir, cache_dir=spec.places.cache_dir)
    assert (again["metric"], again["score"], again["pckh_50"]) == (spec.metric, winner.score, None)
    assert (again["stderr"] is None) == (spec.metric == "oks_ap")
    assert again["n"] == 24
    assert again["scores"].keys() == {"pck_bbox_20", "pck_torso_20", "oks_ap"}
    json.dumps(again)


@pytest.mark.parametrize(("metric", "said"), [("pckh_50", "no head size is known.*sweep.metric is pckh_50"), ("pckh_10", "no head size")])
def test_a_metric_that_the_data_cannot_give_is_refused_before_anything_is_touched(root: Path, metric: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        describe_dataset(spec_of(root, metric))
    assert not (root / metric).exists()


def test_public_data_without_a_common_joint_is_refused(root: Path) -> None:
    joints = tuple(f"j{number}" for number in range(17))
    strange = Skeleton(name="strange_17", joints=joints)
    write_people(root / "data" / "strange", seed=5, count=16, role="PUBLIC", skeleton=strange)
    data = {**SPACE["trial"]["data"], "public": "strange"}
    space = build_space({**SPACE, "trial": {**SPACE["trial"], "data": data}}, name="s")
    with pytest.raises(BadInput, match="no joint of the skeleton coco_17 can be had from strange_17 by name: nose"):
        describe_dataset(spec_of(root, "pck_bbox_20").model_copy(update={"space": space}))
