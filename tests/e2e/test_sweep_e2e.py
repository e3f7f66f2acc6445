"""A whole small sweep through Ray, Optuna and MLflow, and everything that a user does with it afterwards."""

import json
from pathlib import Path

import pytest
from e2e_support import TINY_SPACE, Cli
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from ruamel.yaml import YAML

pytestmark = pytest.mark.timeout(1200)  # whole sweeps, on machines that others use too

TRIALS_PER_EPSILON, WINNER_SEEDS = 3, 1
PRIVATE_RUNS = 2 * (TRIALS_PER_EPSILON + WINNER_SEEDS)


@pytest.fixture(scope="module")
def swept(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a finished sweep named `small`."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "space.yaml").write_text(TINY_SPACE)
    out = cli.ok("run", folder / "space.yaml", "--name", "small", "--storage", folder / "storage", "--max-concurrent", 2)
    for word in ("PCKh", "floor", "ceiling", "control", "dpsweep best small"):
        assert word in out, out
    return folder / "storage"


def test_status_counts_exactly_the_planned_trials(cli: Cli, swept: Path) -> None:
    status = json.loads(cli.ok("status", "small", "--storage", swept, "--json"))
    assert status["state"] == "done"
    assert [(e["planned"], e["done"], e["running"], e["failed"]) for e in status["epsilons"]] == [(3, 3, 0, 0)] * 2
    assert status["sweep_epsilon"] > 8


def test_the_ledger_holds_one_settled_line_for_each_private_run_and_verifies(cli: Cli, swept: Path) -> None:
    ledger = json.loads(cli.ok("ledger", "small", "--storage", swept, "--json"))
    kinds = [line["kind"] for line in ledger["lines"]]
    assert (kinds.count("reserve"), kinds.count("settle")) == (PRIVATE_RUNS, PRIVATE_RUNS)
    cli.ok("ledger", "small", "--storage", swept, "--verify")


def test_best_replays_to_the_very_same_score_and_a_fresh_run_is_charged(cli: Cli, swept: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    told = json.loads(cli.ok("best", "small", "--epsilon", 8, "--storage", swept, "--out", best, "--json"))
    assert 0 < told["epsilon_spent"] <= told["epsilon_target"] == 8
    assert {"config", "runtime", "origin"} <= YAML(typ="safe").load(best).keys()
    before = json.loads(cli.ok("ledger", "small", "--storage", swept, "--json"))
    replayed = json.loads(cli.ok("train", best, "--replay", "--out", tmp_path / "replayed", "--json"))
    assert replayed["pckh_50"] == told["pckh_50"]
    assert replayed["trial_id"] == told["trial_id"]
    assert json.loads(cli.ok("ledger", "small", "--storage", swept, "--json")) == before
    fresh = json.loads(cli.ok("train", best, "--out", tmp_path / "fresh", "--json"))
    assert fresh["trial_id"] != told["trial_id"]
    assert fresh["fingerprint"] == told["fingerprint"]
    after = json.loads(cli.ok("ledger", "small", "--storage", swept, "--json"))
    assert after["epsilon_total"] > before["epsilon_total"]
    evaluated = json.loads(cli.ok("evaluate", tmp_path / "fresh", "--data", "tiny/validation", "--json"))
    assert evaluated["pckh_50"] == fresh["pckh_50"]
    claimed = json.loads(cli.ok("claim", fresh["model"], "--storage", swept, "--json"))
    assert claimed == json.loads(cli.ok("claim", tmp_path / "fresh", "--json"))
    assert (claimed["epsilon"], claimed["price"]["epsilon"]) == (fresh["epsilon_spent"], told["price"]["epsilon"])
    for trial in (told["trial_id"], "seed-e8-1"):
        assert json.loads(cli.ok("claim", swept / "small" / "checkpoints" / trial, "--json"))["price"] == told["price"]


def test_a_replay_under_another_thread_count_is_refused_by_name_and_writes_nothing(cli: Cli, swept: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    cli.ok("best", "small", "--epsilon", 8, "--storage", swept, "--out", best)
    document = YAML(typ="safe").load(best)
    document["runtime"]["threads"] += 1
    YAML(typ="safe").dump(document, best)
    done = cli("train", best, "--replay", "--out", tmp_path / "replayed")
    assert done.returncode == 2
    assert "'threads': 1" in done.stderr
    assert "'threads': 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["best.yaml"]


def test_mlflow_has_parents_children_curves_and_nothing_left_running(swept: Path) -> None:
    client = MlflowClient(f"sqlite:///{swept / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs: list[Run] = list(client.search_runs([experiment.experiment_id], max_results=1000))
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = [run for run in runs if run.data.tags.get("trial_id")]
    ids = [run.data.tags["trial_id"] for run in children]
    assert len(ids) == len(set(ids))
    private = [run for run in children if "privacy/epsilon_spent" in run.data.metrics and run.data.tags["role"] != "train"]
    assert len(private) == PRIVATE_RUNS
    parents = {run.info.run_id for run in runs} - {run.info.run_id for run in children}
    for run in private:
        assert run.data.metrics["privacy/epsilon_spent"] <= float(run.data.tags["epsilon"])
        assert run.data.tags["mlflow.parentRunId"] in parents
        assert run.data.params["clip_norm"]
        curve = client.get_metric_history(run.info.run_id, "val/pckh_50")
        assert len(curve) == len({point.step for point in curve}) >= 1


def test_an_existing_name_is_refused_and_left_as_it_was(cli: Cli, swept: Path) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (swept / "small").rglob("*.parquet"))
    done = cli("run", "quick", "--name", "small", "--storage", swept)
    assert done.returncode == 2
    assert "resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (swept / "small").rglob("*.parquet")) == before


def test_the_sweep_key_is_in_no_other_file(swept: Path) -> None:
    key = (swept / "small" / "sweep.key").read_bytes()
    assert (swept / "small" / "sweep.key").stat().st_mode & 0o777 == 0o600
    assert len(key) >= 32
    needle = key.strip()
    holders = [p.name for p in swept.rglob("*") if p.is_file() and needle in p.read_bytes()]
    assert holders == ["sweep.key"]
