"""A whole sweep on protected people, and then everything that it wrote is read: what may be known, and nothing else."""

import contextlib
import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from one_process import OneProcess

from dpcore.config import Places
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from search_spaces.loader import build_space
from sweeps.api.results import report
from sweeps.api.sweep import summarize
from sweeps.engine import driver as driver_module
from sweeps.engine.driver import run_sweep
from sweeps.engine.preflight import default_surroundings
from sweeps.ledger.ledger import Ledger
from sweeps.records.cohort_ledger import bind_ledger
from sweeps.records.export import best_trial
from sweeps.records.messages import Answer
from sweeps.records.results import SweepResults
from sweeps.records.spec import SweepSpec
from sweeps.storage.urls import default_store, sqlite_url
from sweeps.tracking.allow_list import is_allowed

SPACE: dict[str, Any] = {
    "sweep": {"epsilons": [4.0], "delta": 1e-3, "trials_per_epsilon": 2, "sampler": "random", "accounting": "composed"},
    "references": {"floor": True, "ceiling": "non_private", "control": True, "winner_seeds": 1},
    "splits": {"pixels_8": {"transform": "pixelate", "cell_px": 8}},
    "trial": {
        "data": {"private": "clinic", "public": "public", "validation": "validation", "nominal_examples": 48},
        "public_batch_size": 8,
        "model": {"backbone": "small", "freeze": "backbone"},
        "stages": {
            "public": {"steps": 4, "batch_size": 8},
            "public_view": {"until": "converged", "max_steps": 4, "batch_size": 8},
            "private": {"steps": 3, "expected_batch_size": 12},
        },
    },
    "search": {
        "method": {"choice": ["feature"]},
        "split": {"choice": ["pixels_8"]},
        "clip_norm": {"float": [0.1, 1.0]},
    },
}


class Swept:
    """The sweep, once for all tests: where it lies, and what was said and handed around. In a bucket without a sealed ceiling."""

    def __init__(self, root: Path, *, in_bucket: bool) -> None:
        self.root = root
        self.places = Places(data_dir=root / "data", cache_dir=root / "cache")
        self.dataset = self._write_people()
        storage = f"fsspec+local://{root / 'bucket'}" if in_bucket else root / "store"
        space = build_space({**SPACE, "references": {**SPACE["references"], "ceiling": False if in_bucket else "non_private"}}, name="s")
        state = root / "store" if in_bucket else None
        self.spec = SweepSpec(name="s", space=space, places=self.places, storage=storage, state=state)
        self.ray = OneProcess()
        self.said: list[str] = []
        self.stderr = io.StringIO()

    def _write_people(self) -> ShardSet:
        header = DatasetHeader(name="clinic", role="PRIVATE", protected=True, height_px=64, width_px=64, origin="hrnet clinic.json")
        write_shards(self.places.data_dir / "clinic", (draw_record("private", seed=4, index=i) for i in range(48)), header=header)
        synth(self.places.data_dir / "public", "public", count=24, seed=1, role="PUBLIC")
        synth(self.places.data_dir / "validation", "private", count=12, seed=3, role="PUBLIC")
        bind_ledger(open_shards(self.places.data_dir / "clinic"), ledger=None, epsilon_total=None, delta=None)
        return open_shards(self.places.data_dir / "clinic")

    def run(self) -> SweepResults:
        around = replace(default_surroundings(), say=self.said.append, disclosure=lambda spec, say: None)
        with contextlib.redirect_stderr(self.stderr):
            return run_sweep(self.spec, around, summarize=partial(summarize, self.spec))

    def outside(self) -> Iterator[tuple[Path, bytes]]:
        """Every file outside the dataset's own folder, with tables unpacked."""
        for path in sorted(path for path in self.root.rglob("*") if self.places.data_dir not in path.parents):
            if path.is_file():
                yield path, str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()


@pytest.fixture(scope="module", params=["folder", "bucket"])
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    with pytest.MonkeyPatch.context() as patch:
        made = Swept(tmp_path_factory.mktemp("protected"), in_bucket=request.param == "bucket")
        patch.setattr(driver_module, "ray_session", lambda spec: contextlib.nullcontext(1))
        patch.setattr(driver_module, "run_tune", made.ray)
        made.results = made.run()
        yield made


def client(swept: Swept) -> MlflowClient:
    return MlflowClient(sqlite_url(default_store(swept.spec.storage_dir)))


def runs(swept: Swept) -> list[Any]:
    mlflow = client(swept)
    experiment = mlflow.get_experiment_by_name("s")
    assert experiment is not None
    return list(mlflow.search_runs([experiment.experiment_id]))


def test_the_sweep_ran_whole(swept: Swept) -> None:
    states = {record.trial_id: record.state for record in swept.results.records}
    assert set(states.values()) == {"done"}
    assert len(states) == (7 if swept.spec.bucket_uri is None else 6)
    assert Ledger(str(swept.dataset.manifest.ledger)).lines()


def test_no_plain_digest_of_the_people_is_written_logged_or_handed_to_ray(swept: Swept) -> None:
    manifest = swept.dataset.manifest
    plain = {manifest.digest, *(file.sha256 for file in manifest.files), *map(str, swept.dataset.content_hashes)}
    key = (swept.dataset.folder / "dataset.key").read_text().strip()
    wanted = {digest[:16].encode() for digest in {*plain, key}} | {bytes.fromhex(digest)[:8] for digest in {*plain, key}}
    handed = json.dumps([swept.ray.configs, swept.ray.results]) + "\n".join(swept.said) + swept.stderr.getvalue()
    places = [(Path("ray and terminal"), handed.encode()), *swept.outside()]
    assert not [path for path, content in places if any(digest in content for digest in wanted)]
    assert any(swept.dataset.identity.encode() in content for _, content in places)


def test_metrics_everywhere_are_on_the_allow_list(swept: Swept) -> None:
    in_mlflow = {name for run in runs(swept) for name in run.data.metrics}
    assert in_mlflow == {name for name in in_mlflow if is_allowed(name)}
    assert {"best/pckh_50", "floor/pckh_50", "price/epsilon"} <= in_mlflow
    in_tables = {row["metric"] for row in pq.read_table(swept.spec.sweep_dir / "results" / "curves.parquet").to_pylist()}
    in_reports = {name for line in swept.spec.reports_path.read_text().splitlines() for name in json.loads(line)["metrics"]}
    by_ray = {name for result in swept.ray.results if (told := Answer.decode(result, swept.ray.envelope).report) for name in told.metrics}
    assert {"val/pckh_50", "privacy/epsilon_spent"} <= in_tables
    assert not [name for name in in_tables | in_reports | by_ray if not is_allowed(name)]


def test_params_and_tags_are_the_public_config_and_what_is_said_of_a_run(swept: Swept) -> None:
    known = {"trial_id", "role", "epsilon", "method", "fingerprint", "claim", "state", "sweep", "sweep_id", "accounting", "key"}
    for run in runs(swept):
        own = {tag for tag in run.data.tags if not tag.startswith("mlflow.")}
        assert not [tag for tag in own if tag.split(".")[-1] not in known and not tag.startswith("contact_sheet.")], own
        assert not [param for param in run.data.params if "digest" in param or "sha256" in param]
        digests = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
        assert digests.get("clinic", swept.dataset.identity[:36]) == swept.dataset.identity[:36]


def test_no_clock_tells_how_long_a_trial_took(swept: Swept) -> None:
    started = json.loads((swept.spec.state_dir / "tracking.json").read_text())["started_ms"]
    with sqlite3.connect(next(swept.spec.storage_dir.glob("*mlflow*.db"))) as database:
        times = [*database.execute("select start_time from runs"), *database.execute("select end_time from runs")]
        times += database.execute("select timestamp from metrics")
    database.close()
    assert {time - started for (time,) in times if time is not None} <= set(range(4))
    journal = [json.loads(line) for line in swept.spec.study_path.read_text().splitlines()]
    assert {entry[name] for entry in journal for name in ("datetime_start", "datetime_complete") if entry.get(name)} == {
        "1970-01-01T00:00:00+00:00"
    }
    assert {record.seconds for record in swept.results.records} == {0.0}
    assert not [line for line in swept.said if line.endswith(" s")]
    assert {len(line.at) for line in Ledger(str(swept.dataset.manifest.ledger)).lines()} == {len("2026-01-31")}


def test_the_sealed_score_stands_in_its_own_file_alone(swept: Swept) -> None:
    if swept.spec.bucket_uri is not None:
        assert not swept.results.of_role("sealed_ceiling")  # refused on a bucket: tests/sweeps/records/test_publication.py
        return
    file = swept.spec.sealed_dir / "ceiling.json"
    score = str(json.loads(file.read_text())["val/pckh_50"])
    shown = "\n".join(swept.said) + swept.stderr.getvalue() + json.dumps(swept.ray.results)
    assert f'"val/pckh_50": {score}' in file.read_text()
    assert swept.results.trial("ceiling").pckh_50 is None
    ceiling = [run for run in runs(swept) if run.data.tags.get("role") == "sealed_ceiling"]
    assert [run.data.metrics for run in ceiling] == [{}]
    assert "sealed" in shown
    assert "run and sealed" in (swept.spec.sweep_dir / "report" / "report.md").read_text()
    assert not (swept.spec.sealed_dir / "ceiling").exists()


def test_private_folders_are_for_their_owner_alone(swept: Swept) -> None:
    views = [path for path in (swept.places.cache_dir / "views").iterdir() if path.is_dir() and not path.name.startswith(".")]
    private = [swept.dataset.folder, *([] if swept.spec.bucket_uri else [swept.spec.sealed_dir]), *views]
    assert views
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_the_sweeps_key_lies_in_one_file_and_nothing_sealed_in_the_bucket(swept: Swept) -> None:
    key = swept.spec.key_path.read_bytes().strip()
    holders = [path for path, content in swept.outside() if key in content or bytes.fromhex(key.decode()) in content]
    assert holders == [swept.spec.key_path]
    if swept.spec.bucket_uri is not None:
        assert {path.name for path in (swept.root / "bucket" / "s").iterdir()} == {"spec.json", "results", "report", "checkpoints"}


def test_the_winners_model_is_registered_and_drawn_wherever_it_lies(swept: Swept) -> None:
    version = client(swept).get_model_version_by_alias("s", "best-eps-4")
    assert version.tags["trial_id"] == best_trial(swept.results, 4.0).trial_id


def test_the_report_shows_what_the_door_lets_out_and_no_picture_of_a_patient(swept: Swept) -> None:
    folder = swept.spec.sweep_dir / "report"
    page = (folder / "report.html").read_text(encoding="utf-8")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {"report.html", "report.md", "trials.csv", "trials.parquet", "deployment_eps_4.yaml"} <= files.keys()
    written = page + files["report.md"].decode() + files["trials.csv"].decode() + files["deployment_eps_4.yaml"].decode()
    assert not [name for name in ("train/loss", "clipped_frac", "time/step_s", "sha256", "stand-in") if name in written]
    assert "real people, protected" in page
    assert "one image" in page
    crops = page.count("data:image/png")  # of the PUBLIC synthetic people of the validation data
    assert crops == 12
    assert "crops of validation" in page
    if swept.spec.bucket_uri is None:
        rows = {row["trial_id"]: row for row in csv.DictReader(io.StringIO(files["trials.csv"].decode()))}
        assert {rows["ceiling"][name] for name in ("score", "pckh_50", "pckh_10", "clip_norm")} == {""}
        assert "run and sealed" in page
        assert not re.search(r"ceiling \d", page[page.index("<main>") :])


def test_private_pictures_are_drawn_for_their_owner_alone_and_where_they_were_asked_for(swept: Swept) -> None:
    if swept.spec.bucket_uri is not None:
        return
    written = report("s", storage=swept.spec.storage_dir, show_private=True)
    page = written.private_page
    assert page is not None
    assert page.parent == swept.spec.sealed_dir
    assert (page.stat().st_mode & 0o777, page.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "This page shows 12 private pictures" in page.read_text(encoding="utf-8")
    assert "private pictures of clinic" in page.read_text(encoding="utf-8")
    assert not [path for path in written.files if "clinic" in path.name or b"private pictures" in path.read_bytes()]
