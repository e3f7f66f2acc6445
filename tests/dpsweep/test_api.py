"""The way in from Python: light to import, documented by doctests that run, and the same spec as the command line."""

import doctest
import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import dpsweep
from dpcore.config import Places, RuntimeFlags
from dpcore.errors import BadInput
from search_spaces.loader import load_space
from sweeps.api.specs import SweepOptions, name_of_function
from sweeps.cli import build_parser
from sweeps.commands.sweep_commands import build_spec
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec

ROOT = Path(__file__).parents[2]
DOCUMENTED = (
    "sweeps.api.specs",
    "sweeps.api.sweep",
    "sweeps.api.results",
    "sweeps.api.trials",
    "sweeps.api.models",
    "sweeps.api.calculators",
    "sweeps.api.ledgers",
)

FLAGS: dict[str, tuple[list[str], object]] = {
    "name": (["--name", "odd.name-7"], "odd.name-7"),
    "epsilons": (["--epsilons", "0.35,1.7"], [0.35, 1.7]),
    "trials": (["--trials", "7"], 7),
    "set": (
        ["--set", "sweep.stopper=asha", "--set", "optimizer.learning_rate=0.037"],
        {"sweep.stopper": "asha", "optimizer.learning_rate": 0.037},
    ),
    "seed": (["--seed", "11"], 11),
    "address": (["--address", "auto"], "auto"),
    "max_concurrent": (["--max-concurrent", "3"], 3),
    "cpus_per_trial": (["--cpus-per-trial", "2.5"], 2.5),
    "gpus_per_trial": (["--gpus-per-trial", "0.25"], 0.25),
    "max_failures": (["--max-failures", "0"], 0),
    "trial_timeout": (["--trial-timeout", "90.5"], 90.5),
    "storage": (["--storage", "s3://bucket/a"], "s3://bucket/a"),
    "state": (["--state", "kept"], "kept"),
    "tracking_uri": (["--tracking-uri", "http://me:se%2Fcret@mlflow:5000"], "http://me:se%2Fcret@mlflow:5000"),
    "study_storage": (["--study-storage", "postgresql://host/studies"], "postgresql://host/studies"),
    "ledger": (["--ledger", "postgresql://host/ledger"], "postgresql://host/ledger"),
    "data_dir": (["--data-dir", "pictures"], "pictures"),
    "cache_dir": (["--cache-dir", "scratch"], "scratch"),
}  # fmt: skip
"""Each flag of `dpsweep run` with awkward values, on the command line and from Python."""
BEFORE_THE_SPEC = ("help", "space", "dry_run", "time", "json", "notify", "warm_start")
"""Not part of what is compared here: a warm start reads an earlier sweep (tests/sweeps/search/test_warm_start.py)."""


def from_command_line(*argv: str) -> SweepSpec:
    return build_spec(build_parser().parse_args(["run", "quick", *argv]))


def both(*options: str) -> tuple[SweepSpec, SweepSpec]:
    """The spec of the command line and that of Python, for the same options."""
    argv = [word for option in options for word in FLAGS[option][0]]
    given: SweepOptions = {option: FLAGS[option][1] for option in options}  # type: ignore[misc, assignment]
    return from_command_line(*argv), dpsweep.new_spec("quick", **given)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "")  # what take_credentials sets is undone at the end


def test_every_flag_of_run_is_an_option_and_is_compared() -> None:
    parser = next(iter(build_parser()._subparsers._group_actions)).choices["run"]  # type: ignore[union-attr, index]
    flags = {action.dest for action in parser._actions} - set(BEFORE_THE_SPEC)
    assert flags == set(FLAGS)
    assert flags | {"warm_start", "runtime", "trial_function"} == set(SweepOptions.__annotations__)


@pytest.mark.parametrize("option", sorted(FLAGS))
def test_one_flag_gives_the_same_spec_from_python_and_from_the_command_line(option: str) -> None:
    told, made = both(*(["storage", "state"] if option == "storage" else [option]))
    assert told == made
    assert told.model_dump_json() == made.model_dump_json()


def test_all_flags_together_give_the_same_spec_and_the_same_fingerprints() -> None:
    told, made = both(*FLAGS)
    assert told == made
    assert told.model_dump_json() == made.model_dump_json()
    draws = [spec.space.trial_config(0.35, _draw(spec)).fingerprint() for spec in (told, made)]
    assert draws[0] == draws[1]
    assert (made.runtime.device, made.runtime.threads, made.runtime.report_every_steps) == ("cuda", 2, 4)
    assert "cret" not in made.model_dump_json()
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "se%2Fcret"


def _draw(spec: SweepSpec) -> dict[str, object]:
    return dict(spec.space.draw(0.35, random.Random(7)))


def test_a_spec_that_is_built_by_hand_has_the_runtime_that_its_cpus_gpus_and_stopper_ask_for(places: Places, tmp_path: Path) -> None:
    space = load_space("quick", assignments=["sweep.stopper=asha"])
    spec = SweepSpec(name="s", space=space, places=places, storage=tmp_path, gpus_per_trial=1, cpus_per_trial=3)
    assert spec.runtime == RuntimeFlags(device="cuda", threads=3, report_every_steps=4, checkpoint_every_steps=4)
    assert SweepSpec.parse(spec.model_dump_json(by_alias=True).encode(), where="spec.json") == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tracking_uri": "http://me:secret@host"}, "would be stored"),
        ({"tracking_uri": "postgresql:///runs?user=me&password=secret"}, "would be stored"),
        ({"tracking_uri": "./mlruns"}, "expected http"),
        ({"study_url": "postgresql://host/s?PASSWORD=secret"}, "would be stored"),
        ({"name": "../up"}, "letter or digit first"),
        ({"gpus_per_trial": 1, "runtime": RuntimeFlags()}, "exactly if it computes on cuda"),
        ({"gpus_per_trial": 2}, "gpus_per_trial 2: a trial computes on one GPU, so that its sum has one noise; give at most 1"),
        ({"runtime": RuntimeFlags(device="cuda")}, "exactly if it computes on cuda"),
        ({"storage": "s3://bucket/a", "state": "kept", "ledger_url": "postgresql:///l?password=secret"}, "the password of the ledger"),
        ({"storage": "s3://bucket/a"}, "give --state DIR"),
        ({"cpus_per_trial": 0, "space": None}, "greater than 0"),
    ],
)  # fmt: skip
def test_an_unsafe_spec_cannot_be_built(fields: dict[str, object], message: str, places: Places, tmp_path: Path) -> None:
    values = {"name": "s", "space": load_space("quick"), "places": places, "storage": tmp_path, **fields}
    with pytest.raises(ValueError, match=message):
        SweepSpec(**values)  # type: ignore[arg-type]


def test_beside_a_bucket_and_a_ledger_in_a_database_a_folder_here_is_the_state(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = SweepSpec(name="s", space=load_space("quick"), places=places, storage="s3://bucket/a", ledger_url="postgresql://host/l")
    assert spec.state == tmp_path / "sweep_results"


def test_paths_of_a_spec_are_absolute_for_workers_with_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = SweepSpec(name="s", space=load_space("quick"), places=Places(data_dir="data", cache_dir="cache"), storage="store")
    assert (spec.places.data_dir, spec.places.cache_dir, spec.storage) == (tmp_path / "data", tmp_path / "cache", tmp_path / "store")


def test_a_mistake_in_an_option_is_one_message() -> None:
    with pytest.raises(BadInput, match="trails: unknown option; did you mean trials"):
        dpsweep.new_spec("quick", trails=3)  # type: ignore[call-arg]
    with pytest.raises(BadInput, match="epsilons: the space is loaded already"):
        dpsweep.new_spec(load_space("quick"), epsilons=[1.0])
    with pytest.raises(BadInput, match="seed: a spec has its options already"):
        dpsweep.plan(dpsweep.new_spec("quick"), seed=1)
    with pytest.raises(AttributeError, match="no attribute 'sweep'"):
        dpsweep.sweep  # noqa: B018


def test_a_trial_function_is_named_as_a_worker_imports_it() -> None:
    assert name_of_function(load_space) == "search_spaces.loader:load_space"
    assert name_of_function("own:function") == "own:function"
    with pytest.raises(BadInput, match="must be a function of a module"):
        name_of_function(lambda config, runtime, handout: iter(()))


def test_importing_dpsweep_and_loading_a_space_needs_nothing_heavy() -> None:
    program = (
        "import sys, dpsweep\n"
        "light = [m for m in sys.modules if m.split('.')[0] in ('sweeps', 'dpcore', 'search_spaces', 'pydantic', 'numpy')]\n"
        "dpsweep.new_spec('quick', epsilons=[0.8]), dpsweep.BadInput, dir(dpsweep)\n"
        "heavy = [m for m in ('torch', 'ray', 'mlflow', 'optuna', 'opacus', 'matplotlib', 'pandas') if m in sys.modules]\n"
        "print(light, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[] []"


def test_every_public_name_is_there_and_is_documented() -> None:
    for name in dpsweep.__all__:
        assert (getattr(dpsweep, name).__doc__ or "").strip(), name
    assert set(dpsweep.__all__) == set(dpsweep._MODULE_OF)


@pytest.mark.parametrize("module", DOCUMENTED)
def test_doctests_of_the_api_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(module))
    assert found.failed == 0
    assert list(tmp_path.rglob("spec.json")) == []  # a plan begins nothing


@pytest.fixture
def results(places: Places, tmp_path: Path) -> dpsweep.Results:
    """Two trials at ε 0.8, the second better, a third failed; a name that HTML must escape in an error."""
    space = load_space("quick", epsilons=[0.8], assignments=["sweep.validation_search_frac=null"])
    config = space.trial_config(0.8, dict(space.draw(0.8, random.Random(3))))
    points = (CurvePoint(10, {"val/pckh_50": 0.3}), CurvePoint(20, {"val/pckh_50": 0.4}))
    base = {"role": "search", "config": config, "epsilon": 0.8, "delta": 1e-5}
    records = (
        TrialRecord(trial_id="e0.8-000", number=0, state="done", pckh_50=0.4137, curve=points, **base),  # type: ignore[arg-type]
        TrialRecord(trial_id="e0.8-001", number=1, state="done", pckh_50=0.5173, **base),  # type: ignore[arg-type]
        TrialRecord(trial_id="e0.8-002", number=2, state="failed", error="<b>", **base),  # type: ignore[arg-type]
    )
    found = SweepResults(
        name="s", records=records, accounting="composed", delta=1e-5, sweep_epsilon=2.3771, composed_epsilon=2.3771, planned=3
    )
    spec = SweepSpec(name="s", space=space, places=places, storage=tmp_path)
    found.write_parquet(spec.sweep_dir / "results")
    spec.save()
    return dpsweep.Results(found=found, spec=spec)


def test_results_read_from_their_folder_are_tables_with_a_winner_and_a_price(results: dpsweep.Results) -> None:
    read = dpsweep.read_results("s", storage=results.spec.storage)
    assert read.found == results.found
    assert read.best(0.8).trial_id == "e0.8-001"
    assert dpsweep.best("s", 0.8, storage=results.spec.storage) == read.best(0.8)
    with pytest.raises(BadInput, match=r"no ε = 0\.9"):
        read.best(0.9)
    table = read.to_arrow()
    assert table.column("pckh_50").to_pylist() == [0.4137, 0.5173, None]
    assert json.loads(table.column("config")[0].as_py())["method"] == results.trials[0].config.method
    assert read.curves().num_rows == 2


def test_results_show_themselves_in_a_terminal_and_in_a_notebook(results: dpsweep.Results) -> None:
    text = repr(results)
    assert "e0.8-001" in text
    assert "51.7" in text
    assert "ε = 2.377; stand-in data: ε as it would be" in text
    assert "counted per image, added or removed; public: the views of every image under" in text
    html = results._repr_html_()
    assert "<td>e0.8-001</td>" in html
    assert "ε = 2.377" in html


def test_a_data_frame_where_pandas_is_there_and_a_message_where_it_is_not(
    results: dpsweep.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    assert list(results.to_pandas()["trial_id"]) == ["e0.8-000", "e0.8-001", "e0.8-002"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(dpsweep.Unavailable, match="pip install pandas"):
        results.to_pandas()
