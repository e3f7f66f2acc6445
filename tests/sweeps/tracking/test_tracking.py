"""The tracker against a real MLflow store in SQLite, with fakes for what a trial is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spaces
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from ruamel.yaml import YAML

from dpcore.config import Places, TrialConfig
from dpcore.data.manifest import FileEntry, Manifest
from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.model.network import PoseNetwork, build_network, weights_digest
from dpcore.privacy.claim import PrivacyClaim, claim_of
from dpcore.privacy.disclosure import Disclosure, Reading
from dpcore.train.saved import DOCUMENT_FILE, MODEL_FOLDER, WEIGHTS_FILE, load_model, save_model
from search_spaces.loader import load_space
from sweeps.cli import main
from sweeps.models.claims import load_claim, save_claim
from sweeps.pricing.selection import as_released, epsilon_of_selection
from sweeps.records.export import UNKNOWN, render_yaml
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.records.trial_id import alias_of
from sweeps.report.comparison import Comparison
from sweeps.report.contact_sheet import ContactSheet
from sweeps.report.disclosure import PolicyDisclosure
from sweeps.report.disclosure_sheet import DisclosureSheet
from sweeps.tracking import mlflow_connection
from sweeps.tracking.allow_list import allowed_metrics
from sweeps.tracking.browsing import SweepSummary, config_yaml
from sweeps.tracking.mlflow_connection import take_credentials
from sweeps.tracking.mlflow_store import is_final
from sweeps.tracking.registry import FinishedTraining, log_training
from sweeps.tracking.tracker import Tracker, check_tracking
from sweeps.tracking.trial_facts import TrackedDataset

DIGEST, IDENTITY = "a" * 64, "b7" * 32
DATA = {"private": "p", "public": "q", "validation": "v", "nominal_examples": 100}


class FakeFacts:
    """Three small datasets; the private one is protected or not."""

    def __init__(self, *, protected: bool) -> None:
        self._protected = protected

    def datasets(self, config: TrialConfig) -> dict[str, TrackedDataset]:
        return {part: TrackedDataset(manifest=one, identity=IDENTITY) for part, one in self.manifests(config).items()}

    def manifests(self, config: TrialConfig) -> dict[str, Manifest]:
        return {
            part: Manifest(
                name=getattr(config.data, part),
                role="PRIVATE" if part == "private" else "PUBLIC",
                protected=part == "private" and self._protected,
                height_px=64,
                width_px=64,
                origin="test",
                count=1,
                files=(FileEntry(name="s.arrow", sha256=DIGEST, rows=1),),
                digest=DIGEST,
            )
            for part in ("private", "public", "validation")
        }

    def claim(self, config: TrialConfig, plan: object) -> PrivacyClaim:
        return ShortClaim(
            unit="image",
            relation="add_remove_record",
            labels="private",
            epsilon=0.8,
            delta=1e-5,
            accountant="PLD",
            sampling="",
            mechanism="",
            randomness="",
            public=(),
            not_covered=(),
            stand_in=True,
        )


class ShortClaim(PrivacyClaim):
    """A claim in two words."""

    def paragraph(self) -> str:
        return "a claim"


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables take two seconds to make: made once, copied for each test."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    check_tracking(f"sqlite:///{path}")
    return path


@pytest.fixture
def spec(tmp_path: Path, places: Places, empty_store: Path) -> SweepSpec:
    (tmp_path / "storage").mkdir()
    for copy in (tmp_path / "storage" / "mlflow.db", tmp_path / "shared.db"):
        shutil.copyfile(empty_store, copy)
    return SweepSpec(name="tried", space=load_space("quick", epsilons=[0.8]), places=places, storage=tmp_path / "storage")


def record_of(trial_id: str = "e0.8-000", **changes: object) -> TrialRecord:
    config = TrialConfig(
        method="dpsgd", data=DATA, stages={"private": {"steps": 4, "expected_batch_size": 10}}, epsilon=0.8, delta=1e-3, clip_norm=1.0
    )
    record = TrialRecord(trial_id=trial_id, role="search", number=0, config=config, epsilon=0.8)
    return replace(record, **changes)


def run_one_trial(tracker: Tracker, record: TrialRecord, steps: tuple[int, ...] = (2, 4)) -> None:
    tracker.sweep_started()
    tracker.trial_started(record)
    for step in steps:
        metrics = {"val/pckh_50": step / 10, "privacy/epsilon_spent": step / 5, "train/loss": 3.0, "time/step_s": 0.1}
        tracker.reported(record, CurvePoint(step, metrics, "d"))


def opened(spec: SweepSpec) -> tuple[MlflowClient, dict[str, Any]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{spec.storage}/mlflow.db")
    experiment = client.get_experiment_by_name(spec.name)
    runs = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return client, {run.data.tags["dpsweep.key"]: run for run in runs}


def test_sections_rendered_alone_are_the_whole_config_rendered_at_once() -> None:
    base = record_of().config
    for config in (base, base.changed(**{"clip_norm": 1e-4, "optimizer.learning_rate": 3.0})):
        assert config_yaml(config) == render_yaml(config.model_dump(mode="json"))


def test_a_run_of_several_attempts_says_where_the_last_one_went_on(spec: SweepSpec) -> None:
    tracker = Tracker(spec, facts=FakeFacts(protected=False))
    run_one_trial(tracker, record_of())
    tracker.trial_started(record_of(attempt=1, from_step=2))
    tracker.trial_started(record_of("e0.8-001"))
    tracker.close()
    _, runs = opened(spec)
    assert runs["e0.8-000"].data.tags["attempt"] == "1 from step 2"
    assert "attempt" not in runs["e0.8-001"].data.tags


def test_a_trial_is_a_child_with_params_metrics_claim_and_datasets(spec: SweepSpec) -> None:
    tracker, record = Tracker(spec, facts=FakeFacts(protected=False)), record_of()
    run_one_trial(tracker, record)
    tracker.trial_ended(replace(record, state="done", pckh_50=0.4))
    tracker.close()
    client, runs = opened(spec)
    child = runs["e0.8-000"]
    assert child.data.tags["mlflow.parentRunId"] == runs["epsilon 0.8"].info.run_id
    assert {child.data.tags[key] for key in ("sweep", "epsilon", "method", "trial_id", "claim", "state")} == {
        "tried", "0.8", "dpsgd", "e0.8-000", "a claim", "done",
    }  # fmt: skip
    assert child.data.tags["fingerprint"] == record.fingerprint
    assert child.data.params == {"method": "dpsgd", "clip_norm": "1.0", "optimizer.learning_rate": "0.001"}
    assert [(m.step, m.value) for m in client.get_metric_history(child.info.run_id, "val/pckh_50")] == [(2, 0.2), (4, 0.4)]
    assert child.data.metrics["train/loss"] == 3.0
    assert {d.dataset.name: d.tags[0].value for d in child.inputs.dataset_inputs} == {"p": "private", "q": "public", "v": "validation"}
    assert {a.path for a in client.list_artifacts(child.info.run_id)} == {"config.yaml", "claim.json"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_statuses_follow_the_state_and_nothing_is_left_running(spec: SweepSpec) -> None:
    tracker = Tracker(spec, facts=FakeFacts(protected=False))
    tracker.sweep_started()
    for trial_id, state in (("a", "done"), ("b", "failed"), ("c", "pruned"), ("d", None)):
        tracker.trial_started(record_of(trial_id))
        if state is not None:
            tracker.trial_ended(record_of(trial_id, state=state, error="Boom: why" if state == "failed" else None))
    tracker.close()
    _, runs = opened(spec)
    assert {name: runs[name].info.status for name in "abcd"} == {"a": "FINISHED", "b": "FAILED", "c": "KILLED", "d": "KILLED"}
    assert runs["b"].data.tags["error"] == "Boom: why"
    assert runs["references"].info.status == "FINISHED"


def test_a_resumed_sweep_continues_its_runs_and_doubles_nothing(spec: SweepSpec) -> None:
    record = record_of()
    first = Tracker(spec, facts=FakeFacts(protected=False))
    run_one_trial(first, record, steps=(2,))
    first.close(interrupted=True)
    second = Tracker(spec, facts=FakeFacts(protected=False))
    run_one_trial(second, record, steps=(2, 4))
    second.trial_ended(replace(record, state="done", pckh_50=0.4))
    second.close()
    client, runs = opened(spec)
    assert set(runs) == {"epsilon 0.8", "references", "e0.8-000"}
    history = client.get_metric_history(runs["e0.8-000"].info.run_id, "val/pckh_50")
    assert [point.step for point in history] == [2, 4]
    assert runs["e0.8-000"].info.status == "FINISHED"


def test_events_survive_a_killed_process_and_are_sent_by_the_next(spec: SweepSpec) -> None:
    record = record_of()
    first = Tracker(spec, facts=FakeFacts(protected=False))
    run_one_trial(first, record, steps=(2,))
    first.close()
    # A kill between the answer and the saved offset: everything is sent again.
    (spec.state_dir / "tracking.offset").write_text("0\n")
    second = Tracker(spec, facts=FakeFacts(protected=False))
    second.sweep_started()
    second.close()
    client, runs = opened(spec)
    assert len(client.get_metric_history(runs["e0.8-000"].info.run_id, "val/pckh_50")) == 1


def test_protected_data_lets_only_the_allow_list_out_and_no_durations(spec: SweepSpec, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter(range(1000, 100_000, 777))
    tracker, record = Tracker(spec, facts=FakeFacts(protected=True), clock=lambda: next(ticks)), record_of()
    run_one_trial(tracker, record)
    tracker.trial_ended(replace(record, state="failed", steps=4, error="ValueError: record im007.jpg is odd"))
    tracker.close()
    client, runs = opened(spec)
    child = runs["e0.8-000"]
    assert set(child.data.metrics) == {"val/pckh_50", "privacy/epsilon_spent"}
    assert child.data.tags["error"] == "ValueError"
    history = client.get_metric_history(child.info.run_id, "val/pckh_50")
    assert history[1].timestamp - history[0].timestamp == 2
    assert child.info.end_time - child.info.start_time == 4
    assert {d.dataset.name: d.dataset.digest for d in child.inputs.dataset_inputs}["p"] == IDENTITY[:36]
    spooled = (spec.state_dir / "tracking.spool.jsonl").read_text()
    assert "train/loss" not in spooled
    assert "im007" not in spooled
    assert "train/loss" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "final"), [(413, True), (422, True), (401, False), (404, False), (429, False), (503, False)])
def test_what_a_proxy_refuses_is_skipped_and_what_can_be_mended_waits(status: int, final: bool) -> None:
    answer = MlflowException(f"API request to endpoint /x failed with error code {status} != 200. Response body: ''")
    assert is_final(answer) == final


def test_a_run_whose_answer_got_lost_is_found_again_and_one_that_comes_late_is_deleted(
    spec: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = MlflowClient.create_run, []

    def losing(self: MlflowClient, *args: Any, **named: Any) -> Any:
        run = real(self, *args, **named)
        key = named["tags"]["dpsweep.key"]
        calls.append(key)
        if key == "e0.8-000" and calls.count("e0.8-000") == 1:
            raise MlflowException("the answer got lost")
        if key == "e0.8-001":
            real(self, *args, **named)  # a request before it, which is answered only now
        return run

    monkeypatch.setattr(MlflowClient, "create_run", losing)
    tracker = Tracker(spec, facts=FakeFacts(protected=False))
    tracker.sweep_started()
    for record in (record_of(), record_of("e0.8-001")):
        tracker.trial_started(record)
        tracker.trial_ended(replace(record, state="done", pckh_50=0.4))
    tracker.close()
    assert calls.count("e0.8-000") == calls.count("e0.8-001") == 1
    _, runs = opened(spec)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


@pytest.mark.parametrize("name", ["train/loss", "train/clipped_frac", "time/step_s", "data/batch_size", "val/pckh_50x"])
def test_a_metric_outside_the_allow_list_stays_inside(name: str) -> None:
    assert allowed_metrics({name: 1.0, "val/pckh_50": 0.5}, protected=True) == {"val/pckh_50": 0.5}
    assert name in allowed_metrics({name: 1.0}, protected=False)


def test_infinite_metrics_never_leave() -> None:
    assert allowed_metrics({"privacy/epsilon_spent": float("inf"), "val/pckh_50": float("nan")}, protected=False) == {}


def save_small_model(spec: SweepSpec, record: TrialRecord) -> PoseNetwork:
    """What a finished trial leaves in its folder."""
    network = build_network(record.config.model, spec.places, generator=torch.Generator().manual_seed(0))
    meta = {"trial_id": record.trial_id, "seconds": 12.5, "metrics": {"val/pckh_50": 0.4, "train/loss": 3.0}}
    folder = spec.checkpoint_dir(record.trial_id) / MODEL_FOLDER
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_model(folder, network, config=record.config, meta=meta)
    return network


def summarized(spec: SweepSpec, record: TrialRecord, *, protected: bool = False, **given: object) -> tuple[MlflowClient, dict[str, Any]]:
    """A sweep of one trial, whole."""
    tracker = Tracker(spec, facts=FakeFacts(protected=protected))
    run_one_trial(tracker, record)
    tracker.trial_ended(record)
    results = SweepResults(name="tried", records=(record,), accounting="composed", delta=1e-5)
    tracker.summary(SweepSummary(results=results, text="# report", **given))
    tracker.close()
    return opened(spec)


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_model_version_is_weights_config_and_signature_found_by_its_alias(spec: SweepSpec, tmp_path: Path, attempt: int) -> None:
    record = record_of(state="done", pckh_50=0.4, attempt=attempt)
    network = save_small_model(spec, record)
    client, runs = summarized(spec, record)
    version = client.get_model_version_by_alias("tried", "best-eps-0_8")
    assert version.run_id == runs["e0.8-000"].info.run_id
    assert version.tags.pop("price").startswith("sweep epsilon")
    assert version.tags == {"trial_id": "e0.8-000", "epsilon": "0.8", "fingerprint": record.fingerprint, "claim": "a claim"}
    folder = Path(download_artifacts(client.get_model_version_download_uri("tried", version.version), dst_path=str(tmp_path)))
    described = Model.load(folder)
    assert described.signature.inputs.input_names() == ["image"]
    assert described.signature.outputs.inputs[0].shape == (-1, 16, 3)
    assert YAML(typ="safe").load(folder / "config.yaml") == record.config.model_dump(mode="json")
    assert (load_claim(folder).claim.epsilon, load_claim(folder).price.accounting) == (0.8, "composed")
    saved = load_model(folder)
    assert saved.config == record.config
    assert weights_digest(saved.network.state_dict()) == weights_digest(network.state_dict())


def test_on_protected_data_a_model_version_tells_no_duration_and_no_sealed_metric(spec: SweepSpec) -> None:
    record = record_of(state="done", pckh_50=0.4)
    save_small_model(spec, record)
    client, _ = summarized(spec, record, protected=True)
    version = client.get_model_version_by_alias("tried", "best-eps-0_8")
    folder = Path(version.source.removeprefix("file://"))
    assert json.loads((folder / DOCUMENT_FILE).read_text())["meta"] == {"trial_id": "e0.8-000", "metrics": {"val/pckh_50": 0.4}}
    assert load_model(folder).config == record.config


def trained(spec: SweepSpec, folder: Path, *, protected: bool = False) -> FinishedTraining:
    """What `dpsweep train` leaves, after a sweep that MLflow knows."""
    tracker = Tracker(spec, facts=FakeFacts(protected=protected))
    tracker.sweep_started()
    tracker.close()
    record = record_of("train-0f3a9c1d22e4")
    network = build_network(record.config.model, spec.places, generator=torch.Generator().manual_seed(3))
    meta = {"trial_id": record.trial_id, "pckh_50": 0.4137, "pckh_10": 0.0719, "epsilon_spent": 0.7991, "seconds": 12.5}
    save_model(folder / MODEL_FOLDER, network, config=record.config, meta=meta)
    save_claim(folder, FakeFacts(protected=protected).claim(record.config, None), UNKNOWN)
    curve = tuple(CurvePoint(step, {"val/pckh_50": step / 9.7, "train/loss": 3.1}) for step in (2, 4))
    return FinishedTraining(trial_id=record.trial_id, config=record.config, folder=folder, curve=curve)


def test_a_training_is_a_run_and_a_version_with_claim_price_and_scores_once(spec: SweepSpec, tmp_path: Path) -> None:
    done = trained(spec, tmp_path / "out")
    assert {log_training(spec, done, facts=FakeFacts(protected=False)) for _ in range(2)} == {"models:/tried/1"}
    client, runs = opened(spec)
    run = runs[done.trial_id]
    assert run.info.status == "FINISHED"
    said = load_claim(done.folder).claim.paragraph()
    assert {key: run.data.tags[key] for key in ("role", "epsilon", "claim", "price")} == {
        "role": "train", "epsilon": "0.8", "claim": said, "price": UNKNOWN.text,
    }  # fmt: skip
    assert [point.value for point in client.get_metric_history(run.info.run_id, "val/pckh_50")] == [2 / 9.7, 4 / 9.7]
    version = client.get_model_version_by_alias("tried", "trained-eps-0_8")
    assert {key: version.tags[key] for key in ("claim", "price")} == {"claim": said, "price": UNKNOWN.text}


def test_on_protected_data_a_training_tells_neither_times_nor_what_is_sealed(spec: SweepSpec, tmp_path: Path) -> None:
    done = trained(spec, tmp_path / "out", protected=True)
    log_training(spec, done, facts=FakeFacts(protected=True))
    client, runs = opened(spec)
    run = runs[done.trial_id]
    assert set(run.data.metrics) == {"val/pckh_50"}
    times = {point.timestamp for point in client.get_metric_history(run.info.run_id, "val/pckh_50")}
    assert times == {run.info.start_time} == {run.info.end_time}
    assert not list((spec.storage_dir / "mlartifacts").rglob("*.jsonl"))
    (document,) = (spec.storage_dir / "mlartifacts").rglob(DOCUMENT_FILE)
    assert "seconds" not in json.loads(document.read_text())["meta"]


@pytest.mark.parametrize("name", ["models:/tried/1", "models:/tried@trained-eps-0_8"])
def test_the_command_prints_the_claim_of_a_registered_version_and_says_where_it_was_cut_off(
    spec: SweepSpec, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_training(spec, trained(spec, tmp_path / "out"), facts=FakeFacts(protected=False))
    storage = ["--storage", str(spec.storage)]
    assert main(["claim", name, "--json", *storage]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["epsilon"], printed["scores"]["pckh_50"], printed["price"]["accounting"]) == (0.8, 0.4137, "unknown")
    for wrong, said in (("models:/tried/7", "no such model"), ("models:/tried", "expected models:/NAME/VERSION")):
        assert main(["claim", wrong, *storage]) == 2
        assert said in capsys.readouterr().err
    (file,) = (path for path in (spec.storage_dir / "mlartifacts").rglob("claim.json") if path.parent.name != "artifacts")
    file.unlink()
    assert main(["claim", name, *storage]) == 2
    assert "its claim was cut off" in capsys.readouterr().err


def test_a_training_whose_sweep_mlflow_never_heard_of_says_so(spec: SweepSpec, tmp_path: Path) -> None:
    done = trained(spec, tmp_path / "out")
    (spec.state_dir / "tracking.json").unlink()
    with pytest.raises(Unavailable, match=r"the experiment of sweep tried is not known"):
        log_training(spec, done, facts=FakeFacts(protected=False))


def test_the_model_of_every_trial_that_ended_well_has_its_claim_when_the_sweep_ends(spec: SweepSpec) -> None:
    best, other = record_of(state="done", pckh_50=0.4137), record_of("e0.8-001", state="done", pckh_50=0.3131)
    void = record_of("e0.8-002", state="failed", fulfilled=False)
    for record in (best, other, void):
        save_small_model(spec, record)
    tracker = Tracker(spec, facts=FakeFacts(protected=False))
    run_one_trial(tracker, best)
    results = SweepResults(name="tried", records=(best, other, void), accounting="composed", delta=1e-5, sweep_epsilon=3.719)
    tracker.summary(SweepSummary(results=replace(results, composed_epsilon=3.719), text="# report"))
    tracker.close()
    for record in (best, other):
        assert load_claim(spec.checkpoint_dir(record.trial_id)).price.epsilon == 3.719
    with pytest.raises(BadInput, match="cut off"):
        load_claim(spec.checkpoint_dir(void.trial_id))


def test_a_selections_winner_is_tagged_and_registered_with_the_selections_epsilon(spec: SweepSpec) -> None:
    sweep = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 4, "shape": 1.0}}
    space = spaces.space(sweep=sweep, references={"control": False, "winner_seeds": 0})
    record = record_of(state="done", pckh_50=0.4137, sampling_prob=0.1, noise_multiplier=3.37)
    selected = epsilon_of_selection(record, space)
    assert selected is not None
    record = as_released(record, selected)
    selecting = spec.model_copy(update={"space": space.model_copy(update={"sweep": space.sweep.model_copy(update={"epsilons": (0.8,)})})})
    save_small_model(selecting, record)
    client, runs = summarized(selecting, record)
    version = client.get_model_version_by_alias("tried", "best-eps-0_8")
    for tags in (runs["e0.8-000"].data.tags, version.tags):
        assert (tags["epsilon"], tags["epsilon_target"]) == (f"{selected:.6g}", "0.8")
    made = load_claim(Path(version.source.removeprefix("file://")))
    assert (made.claim.epsilon, made.claim.accountant) == (selected, "RDP (dp-accounting, repeat and select)")


def test_a_run_of_two_attempts_claims_the_last_and_names_the_earlier_ones(spec: SweepSpec) -> None:
    record = record_of(state="done", pckh_50=0.4137, attempt=1, from_step=2)
    save_small_model(spec, record)
    summarized(spec, record)
    assert any("went on from step 2" in line for line in load_claim(spec.checkpoint_dir(record.trial_id)).claim.not_covered)


def test_a_winner_whose_selection_is_void_gets_no_version(spec: SweepSpec, capsys: pytest.CaptureFixture[str]) -> None:
    record = record_of(state="done", pckh_50=0.4137, fulfilled=False)
    save_small_model(spec, record)
    client, _ = summarized(spec, record)
    assert client.search_model_versions("name = 'tried'") == []
    assert "void: something else ran" in capsys.readouterr().err


def test_a_trial_has_its_curve_only_where_there_are_two_points(spec: SweepSpec) -> None:
    tracker = Tracker(spec, facts=FakeFacts(protected=False))
    tracker.sweep_started()
    for trial_id, steps in (("line", (2, 4)), ("dot", (4,))):
        record = record_of(trial_id, curve=tuple(CurvePoint(step, {"val/pckh_50": step / 10}) for step in steps))
        tracker.trial_started(record)
        tracker.trial_ended(replace(record, state="done", pckh_50=0.4))
    tracker.close()
    client, runs = opened(spec)
    assert [a.path for a in client.list_artifacts(runs["line"].info.run_id, "curves")] == ["curves/line.png"]
    assert client.list_artifacts(runs["dot"].info.run_id, "curves") == []


def test_contact_sheets_reach_the_summary_and_sealed_ones_lie_nowhere_else(spec: SweepSpec, tmp_path: Path) -> None:
    shown, sealed = tmp_path / "shown.png", tmp_path / "sealed.png"
    for path in (shown, sealed):
        path.write_bytes(b"png")
    sheets = (
        ContactSheet(epsilon=0.2, path=shown),
        ContactSheet(epsilon=0.8, path=sealed, mlflow_only=True),
        ContactSheet(epsilon=8.0, path=None, reason="no contact sheet: why"),
    )
    client, runs = summarized(spec, record_of(state="done"), sheets=sheets)
    summary = runs["summary"]
    assert {a.path for a in client.list_artifacts(summary.info.run_id, "contact_sheets")} == {
        "contact_sheets/shown.png",
        "contact_sheets/sealed.png",
    }
    assert summary.data.tags["contact_sheet.eps_8"] == "no contact sheet: why"
    assert shown.exists()
    assert not sealed.exists()
    # A kill between the answer and the saved offset sends everything again: the removed file is no error.
    (spec.state_dir / "tracking.offset").write_text("0\n")
    again = Tracker(spec, facts=FakeFacts(protected=False))
    again.sweep_started()
    again.close()
    assert opened(spec)[1]["summary"].info.status == "FINISHED"


def test_the_best_trial_becomes_a_model_version_with_its_alias(spec: SweepSpec, tmp_path: Path) -> None:
    record = record_of(state="done", pckh_50=0.4)
    save_small_model(spec, record)
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    results = SweepResults(name="tried", records=(record,), accounting="composed", delta=1e-5)
    for _ in range(2):
        tracker = Tracker(spec, facts=FakeFacts(protected=False))
        run_one_trial(tracker, record)
        tracker.trial_ended(record)
        tracker.summary(SweepSummary(results=results, text="# report", figures=[figure]))
        tracker.close()
    client, runs = opened(spec)
    version = client.get_model_version_by_alias("tried", "best-eps-0_8")
    assert (version.version, version.run_id) in {("1", runs["e0.8-000"].info.run_id), (1, runs["e0.8-000"].info.run_id)}
    assert len(client.search_model_versions("name = 'tried'")) == 1
    assert {a.path for a in client.list_artifacts(version.run_id, "model")} == {
        f"model/{n}"
        for n in (
            "MLmodel", WEIGHTS_FILE, DOCUMENT_FILE, "config.yaml", "claim.json", "README.md", "requirements.txt", "conda.yaml",
            "python_env.yaml", "input_example.json", "serving_input_example.json",
        )
    }  # fmt: skip
    summary = runs["summary"]
    assert summary.info.status == "FINISHED"
    assert {a.path for a in client.list_artifacts(summary.info.run_id, "figures")} == {"figures/figure.png"}
    assert summary.data.metrics == {}


def test_an_experiment_of_another_sweep_is_refused(spec: SweepSpec, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/shared.db"
    first = spec.model_copy(update={"tracking_uri": uri})
    second = first.model_copy(update={"storage": tmp_path / "elsewhere"})
    tracker = Tracker(first, facts=FakeFacts(protected=False))
    tracker.sweep_started()
    tracker.close()
    with pytest.raises(Refused, match="of another sweep"):
        Tracker(second, facts=FakeFacts(protected=False)).sweep_started()


def test_a_database_of_ones_own_keeps_its_artifacts_beside_the_sweep(spec: SweepSpec, tmp_path: Path) -> None:
    shared = spec.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/shared.db"})
    tracker = Tracker(shared, facts=FakeFacts(protected=False))
    tracker.sweep_started()
    tracker.close()
    experiment = MlflowClient(f"sqlite:///{tmp_path}/shared.db").get_experiment_by_name(shared.name)
    assert experiment.artifact_location == (shared.storage_dir / "mlartifacts" / shared.name).resolve().as_uri()


def test_the_experiment_of_a_sweep_that_failed_before_its_first_trial_is_free_again(spec: SweepSpec, tmp_path: Path) -> None:
    first = spec.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/shared.db"})
    given_up = Tracker(first, facts=FakeFacts(protected=False))
    given_up.sweep_started()
    given_up.close(interrupted=True)
    shutil.rmtree(first.state_dir)
    tracker = Tracker(first, facts=FakeFacts(protected=False))
    run_one_trial(tracker, record_of())
    tracker.close(interrupted=True)
    client = MlflowClient(tracking_uri=first.tracking_uri)
    keys = [run.data.tags["dpsweep.key"] for run in client.search_runs([client.get_experiment_by_name("tried").experiment_id])]
    assert sorted(keys) == ["e0.8-000", "epsilon 0.8", "references"]
    shutil.rmtree(first.state_dir)
    with pytest.raises(Refused, match="of another sweep"):
        Tracker(first, facts=FakeFacts(protected=False)).sweep_started()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////nowhere/at/all/mlflow.db"])
def test_an_unreachable_store_is_said_in_seconds(uri: str) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        check_tracking(uri)


def test_credentials_leave_the_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(mlflow_connection.os, "environ", environment)
    assert take_credentials("https://ann:secret@host:5000/mlflow") == "https://host:5000/mlflow"
    assert environment == {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "secret"}
    with pytest.raises(BadInput) as error:
        take_credentials("postgresql://ann:secret@host/db")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/x", "ftp://host"])
def test_a_store_that_mlflow_refuses_is_bad_input(uri: str) -> None:
    with pytest.raises(BadInput, match="expected http"):
        take_credentials(uri)


def test_alias_has_no_dots() -> None:
    assert alias_of(0.8) == "best-eps-0_8"
    assert alias_of(8.0) == "best-eps-8"


def test_runs_that_read_views_have_their_disclosure_and_a_claim_with_the_policy(spec: SweepSpec, tmp_path: Path) -> None:
    reading = Reading(attacker="blur_3 learned", pckh_50=0.4, psnr_db=20.0, ssim=0.5, hidden_psnr_db=20.0, hidden_ssim=0.5)
    counts = {"hidden_frac": 1.0, "trained_on": 9, "tested_on": 9, "datasets": ("q",)}
    measured = Disclosure(splits=("blur_3",), pckh_original=0.6, pckh_blind=0.2, readings=(reading,), **counts)
    (tmp_path / "sheet.png").write_bytes(b"a picture")
    config = record_of().config
    plain = claim_of(
        config.changed(method="public_only", epsilon=None, delta=None, clip_norm=None), None, FakeFacts(protected=False).manifests(config)
    )
    facts = FakeFacts(protected=True)
    facts.claim = lambda config, plan: plain  # type: ignore[method-assign,assignment,return-value]
    tracker = Tracker(spec, facts=facts)
    tracker.sweep_started()
    tracker.views_disclosed(PolicyDisclosure(splits=(measured,)), DisclosureSheet(path=tmp_path / "sheet.png", mlflow_only=True))
    view = spec.space.trial_config(0.8, {"method": "feature", "split": "blur_3", "clip_norm": 1.0})
    tracker.trial_started(record_of("views", config=view))
    tracker.trial_started(record_of("plain"))
    tracker.close()
    client, runs = opened(spec)
    assert runs["views"].data.metrics == {"split/disclosure": pytest.approx(0.5)}
    assert runs["plain"].data.metrics == {}
    assert "read off them to 50 %" in runs["views"].data.tags["claim"]
    assert "read off them" not in runs["plain"].data.tags["claim"]
    assert [a.path for a in client.list_artifacts(runs["references"].info.run_id, "disclosure")] == ["disclosure/sheet.png"]
    assert not (tmp_path / "sheet.png").exists()


def comparison_of(record: TrialRecord, **bars: TrialRecord | None) -> Comparison:
    """What the report compares at an ε."""
    runs = {"floor_run": None, "ceiling_run": None, "control_run": None} | bars
    return Comparison(epsilon=0.8, winner=record, seeds=(), by_method={}, **runs)


def browsed(spec: SweepSpec, *, protected: bool) -> tuple[MlflowClient, dict[str, Any]]:
    """A sweep of one trial with its bars, whole."""
    record = record_of(state="done", pckh_50=0.4137, epsilon_spent=0.7991, steps=4)
    save_small_model(spec, record)
    bars = {
        f"{name}_run": replace(record, trial_id=name, pckh_50=score)
        for name, score in (("floor", 0.31), ("control", 0.29), ("ceiling", 0.5))
    }
    verdicts, price = ["ε = 0.8: +10.4 points"], ["price of this sweep: ε = 3.719"]
    page = spec.sweep_dir / "report.html"
    page.write_text("<!doctype html><title>a report</title>", encoding="utf-8")
    given = {"comparisons": [comparison_of(record, **bars)], "verdicts": verdicts, "price": price, "pages": [page]}
    return summarized(spec, record, protected=protected, **given)


def test_names_say_epsilon_score_and_method_and_params_are_what_was_searched(spec: SweepSpec) -> None:
    _, runs = browsed(spec, protected=False)
    names = {key: run.info.run_name for key, run in runs.items()}
    assert names == {
        "epsilon 0.8": "ε 0.8 · 41.4 % · dpsgd",
        "e0.8-000": "ε 0.8 · 41.4 % · dpsgd · e0.8-000",
        "references": "references",
        "summary": "summary",
    }
    assert set(runs["e0.8-000"].data.params) <= spec.space.search.keys()


@pytest.mark.parametrize("protected", [False, True])
def test_the_parent_of_an_epsilon_shows_best_bars_and_price_and_of_protected_people_no_ceiling(spec: SweepSpec, protected: bool) -> None:
    _, runs = browsed(spec, protected=protected)
    parent = runs["epsilon 0.8"]
    shown = {"best/pckh_50": 0.4137, "floor/pckh_50": 0.31, "control/pckh_50": 0.29, "best/epsilon_spent": 0.7991}
    assert parent.data.metrics == (shown if protected else {**shown, "ceiling/pckh_50": 0.5})
    assert parent.data.tags["mlflow.note.content"] == "ε = 0.8: +10.4 points"


def test_the_note_of_the_experiment_says_verdict_price_and_claim_and_its_links_lead_to_runs(spec: SweepSpec) -> None:
    client, runs = browsed(spec, protected=False)
    experiment = client.get_experiment_by_name("tried")
    note = experiment.tags["mlflow.note.content"]
    for part in ("+10.4 points", "ε = 3.719", "a claim"):
        assert part in note
    start = f"#/experiments/{experiment.experiment_id}/runs/"
    for page in ("report.html", "report.md"):
        assert f"[{page}]({start}{runs['summary'].info.run_id}/artifacts/{page}?workflowType=machine_learning)" in note
    assert f"[e0.8-000]({start}{runs['e0.8-000'].info.run_id}?workflowType=machine_learning)" in note
    assert "(run:" not in note


def test_a_claim_is_the_description_of_its_run_and_of_its_version(spec: SweepSpec) -> None:
    client, runs = browsed(spec, protected=False)
    assert runs["e0.8-000"].data.tags["mlflow.note.content"] == "a claim"
    description = client.get_model_version_by_alias("tried", "best-eps-0_8").description
    assert description.startswith("a claim\n\nPrice: sweep epsilon")


def test_a_training_lies_under_its_epsilon_and_is_named_as_a_trial(spec: SweepSpec, tmp_path: Path) -> None:
    log_training(spec, trained(spec, tmp_path / "out"), facts=FakeFacts(protected=False))
    client, runs = opened(spec)
    run = runs["train-0f3a9c1d22e4"]
    assert run.info.run_name == "ε 0.8 · 41.4 % · dpsgd · train-0f3a9c1d22e4"
    assert run.data.tags["mlflow.parentRunId"] == runs["epsilon 0.8"].info.run_id
    assert run.data.tags["mlflow.note.content"] == run.data.tags["claim"]
    assert client.get_model_version("tried", "1").description.startswith(run.data.tags["claim"])


def test_a_dataset_says_how_many_people_it_has_unless_they_are_protected(spec: SweepSpec) -> None:
    _, runs = browsed(spec, protected=True)
    told = {one.dataset.name: json.loads(one.dataset.profile) for one in runs["e0.8-000"].inputs.dataset_inputs}
    assert told == {"p": {}, "q": {"num_rows": 1}, "v": {"num_rows": 1}}


def test_the_pages_of_a_report_lie_beside_its_markdown(spec: SweepSpec, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>a report</p>")
    client, runs = summarized(spec, record_of(state="done"), pages=[page])
    assert {a.path for a in client.list_artifacts(runs["summary"].info.run_id)} == {"report.md", "report.html"}
