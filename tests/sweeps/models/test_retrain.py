"""Training from best.yaml: charged before it begins, resumed under one reservation, its key gone at the end."""

import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_trials
import pytest
import spaces
import torch
from safetensors.torch import save_file

from dpcore.config import Places
from dpcore.data import catalog
from dpcore.errors import BadInput, DiskFull, NotReplayable, OutOfMemory, Refused, Unavailable
from dpcore.privacy import accounting
from dpcore.privacy.randomness import SweepKey
from dpcore.train.attempts import Attempt
from dpcore.train.handout import Handout
from sweeps.api.trials import registered
from sweeps.ledger.charges import FilterTerms
from sweeps.ledger.ledger import Ledger
from sweeps.models import retrain
from sweeps.models.claims import load_claim
from sweeps.models.retrain import KEY_FILE, TrainRequest, train_fresh, train_replay, train_resumed
from sweeps.pricing.selection import epsilon_of_selection
from sweeps.records.export import ExportedConfig, Price, Release, export_trial
from sweeps.records.results import CurvePoint, SweepResults, TrialRecord, read_results
from sweeps.records.spec import SweepSpec
from sweeps.tracking import registry


def dataset_of(name: str, places: Places) -> SimpleNamespace:
    """What is read of a dataset that needs no file."""
    role = "PRIVATE" if name.endswith("/private") else "PUBLIC"
    return SimpleNamespace(
        members=SimpleNamespace(cohort="d" * 8), manifest=SimpleNamespace(name=name, role=role, protected=False, ledger=None)
    )


@pytest.fixture
def request_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainRequest:
    """A config that a person wrote, on a dataset that needs no file, with a trial of milliseconds."""

    def trial(config: Any, runtime: Any, handout: Handout) -> Iterator[Any]:
        for report in fake_trials.run_trial(config, runtime, handout):
            if report.done:
                last = {"pckh_50": report.metrics["val/pckh_50"], "pckh_10": 0.1, "epsilon_spent": config.epsilon}
                known = {"epsilon_target": config.epsilon, "delta": config.delta, "method": config.method}
                result = {**last, **known, "trial_id": handout.trial_id, "fingerprint": config.fingerprint()}
                (handout.folder / "result.json").write_text(json.dumps(result))
                (handout.folder / "model").mkdir(exist_ok=True)
                document = {"config": config.model_dump(mode="json"), "weights_digest": report.weights_digest, "meta": result}
                (handout.folder / "model" / "model.json").write_text(json.dumps(document))
                save_file({"w": torch.zeros(3)}, handout.folder / "model" / "model.safetensors")
            yield report

    monkeypatch.setattr(retrain, "run_trial", trial)
    monkeypatch.setattr(retrain, "plan_privacy", fake_trials.plan)
    monkeypatch.setattr(retrain, "price", fake_trials.compose)
    monkeypatch.setattr(accounting, "plan_privacy", fake_trials.plan)
    monkeypatch.setattr(retrain, "epsilon_spent", fake_trials.spent)
    monkeypatch.setattr(catalog, "open_dataset", dataset_of)
    return TrainRequest(
        exported=ExportedConfig(config=spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})),
        spec=None,
        places=Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache"),
        out=tmp_path / "out",
        ledger_url=f"sqlite:///{tmp_path / 'ledger.sqlite'}",
    )


def lines_of(request: TrainRequest) -> list[str]:
    return [line.kind for line in Ledger(str(request.ledger_url)).lines()]


def test_a_training_that_ended_leaves_no_key_beside_its_model(request_of_a_file: TrainRequest) -> None:
    result = train_fresh(request_of_a_file)
    assert not (request_of_a_file.out / KEY_FILE).exists()
    assert lines_of(request_of_a_file) == ["reserve", "settle"]
    assert train_resumed(request_of_a_file, new_attempt=False) == result
    assert lines_of(request_of_a_file) == ["reserve", "settle"]


def test_a_training_is_charged_to_its_people_at_its_noise_and_probability_to_all_their_digits(request_of_a_file: TrainRequest) -> None:
    changed = request_of_a_file.config.changed(
        **{"epsilon": 0.937, "data.nominal_examples": 1013, "stages.private.expected_batch_size": 7, "delta": 3.17e-5}
    )
    train_fresh(replace(request_of_a_file, exported=ExportedConfig(config=changed)))
    line = Ledger(str(request_of_a_file.ledger_url)).lines()[0]
    assert (line.noise_multiplier, line.sampling_prob, line.epsilon, line.delta) == (1 / 0.937, 7 / 1013, 0.937, 3.17e-5)
    assert (line.cohort, line.dataset) == ("d" * 8, changed.data.private)


@pytest.mark.parametrize(
    ("fault", "told", "how"),
    [
        (
            OutOfMemory("step 2 does not fit", physical_batch_size=16),
            OutOfMemory,
            "step 2 does not fit; then `--resume --new-attempt`",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull, "disk full: .*out on .* --resume`"),
    ],
)
def test_a_fault_of_a_training_says_how_to_go_on_and_its_charge_stands(
    fault: Exception, told: type[Exception], how: str, request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*given: Any, **named: Any) -> Iterator[Any]:
        raise fault
        yield

    with monkeypatch.context() as patch:
        patch.setattr(retrain, "run_trial", failing)
        with pytest.raises(told, match=how):
            train_fresh(request_of_a_file)
    train_resumed(request_of_a_file, new_attempt=told is OutOfMemory)
    attempts = [(line.kind, line.attempt) for line in Ledger(str(request_of_a_file.ledger_url)).lines()]
    assert attempts == ([("reserve", 0), ("reserve", 1), ("settle", 1)] if told is OutOfMemory else [("reserve", 0), ("settle", 0)])


def test_an_interrupted_training_goes_on_with_its_key_under_its_reservation(
    request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = retrain.run_trial

    def interrupted(*given: Any, **named: Any) -> Iterator[Any]:
        yield next(iter(whole(*given, **named)))
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "run_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_fresh(request_of_a_file)
    assert lines_of(request_of_a_file) == ["reserve"]
    monkeypatch.setattr(retrain, "run_trial", whole)
    train_resumed(request_of_a_file, new_attempt=False)
    starts = (request_of_a_file.out / "starts.txt").read_text().splitlines()
    assert len(starts) == 2
    assert len(set(starts)) == 1
    assert lines_of(request_of_a_file) == ["reserve", "settle"]


def test_another_config_does_not_continue_in_the_folder_of_one_that_ended(request_of_a_file: TrainRequest) -> None:
    train_fresh(request_of_a_file)
    other = ExportedConfig(config=request_of_a_file.config.changed(clip_norm=0.2))
    changed = replace(request_of_a_file, exported=other)
    with pytest.raises(Refused, match="began with another config"):
        train_resumed(changed, new_attempt=False)


def interrupt_after_first_report(request: TrainRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves a begun training with a checkpoint of step 1 behind."""
    whole = retrain.run_trial

    def interrupted(*given: Any, **named: Any) -> Iterator[Any]:
        yield next(iter(whole(*given, **named)))
        (request.out / "checkpoint-000001").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retrain, "run_trial", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_fresh(request)


def refuse_to_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets only new attempts pass, like another machine."""
    whole = retrain.run_trial

    def elsewhere(config: Any, runtime: Any, handout: Handout) -> Iterator[Any]:
        if handout.attempt.number == 0:
            raise NotReplayable("threads: 1 there, 2 now")
        yield from whole(config, runtime, handout)

    monkeypatch.setattr(retrain, "run_trial", elsewhere)


def test_another_machine_is_told_what_differs_and_charged_only_when_a_new_attempt_is_asked_for(
    request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after_first_report(request_of_a_file, monkeypatch)
    refuse_to_replay(monkeypatch)
    with pytest.raises(NotReplayable, match=r"threads: 1 there, 2 now.*--resume --new-attempt"):
        train_resumed(request_of_a_file, new_attempt=False)
    assert lines_of(request_of_a_file) == ["reserve"]
    train_resumed(request_of_a_file, new_attempt=True)
    first, second, settled = Ledger(str(request_of_a_file.ledger_url)).lines()
    assert (first.attempt, first.steps) == (0, 3)
    assert (second.attempt, second.steps, second.key_id, second.trial_id) == (1, 2, first.key_id, first.trial_id)
    assert (settled.kind, settled.attempt) == ("settle", 1)


def test_an_interrupted_new_attempt_is_resumed_without_another_charge(
    request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after_first_report(request_of_a_file, monkeypatch)
    whole = retrain.run_trial
    with monkeypatch.context() as patch:
        patch.setattr(retrain, "run_trial", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_resumed(request_of_a_file, new_attempt=True)
    assert lines_of(request_of_a_file) == ["reserve", "reserve"]
    seen: list[Attempt] = []

    def watched(config: Any, runtime: Any, handout: Handout) -> Iterator[Any]:
        seen.append(handout.attempt)
        yield from whole(config, runtime, handout)

    monkeypatch.setattr(retrain, "run_trial", watched)
    train_resumed(request_of_a_file, new_attempt=False)
    assert seen == [Attempt(number=1, from_step=1)]
    assert lines_of(request_of_a_file) == ["reserve", "reserve", "settle"]


def test_with_the_key_lost_the_charge_stands_and_only_a_new_attempt_goes_on(
    request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after_first_report(request_of_a_file, monkeypatch)
    (request_of_a_file.out / KEY_FILE).unlink()
    with pytest.raises(NotReplayable, match=r"is lost.*its charge remains.*--new-attempt"):
        train_resumed(request_of_a_file, new_attempt=False)
    assert lines_of(request_of_a_file) == ["reserve"]
    train_resumed(request_of_a_file, new_attempt=True)
    first, second, _ = Ledger(str(request_of_a_file.ledger_url)).lines()
    assert first.key_id != second.key_id
    assert second.steps == 2


def test_a_folder_that_was_never_begun_has_nothing_to_resume(request_of_a_file: TrainRequest) -> None:
    with pytest.raises(BadInput, match="nothing to resume"):
        train_resumed(request_of_a_file, new_attempt=True)
    assert lines_of(request_of_a_file) == []


def test_a_crash_in_the_middle_of_beginning_leaves_no_folder(request_of_a_file: TrainRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, document: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(retrain, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        train_fresh(request_of_a_file)
    assert not request_of_a_file.out.exists()


@pytest.fixture
def request_of_a_trial(request_of_a_file: TrainRequest, tmp_path: Path) -> Callable[..., TrainRequest]:
    """best.yaml of a sweep's one trial, whose curve has these digests."""

    def make(*digests: str, attempt: int = 0, from_step: int = 0) -> TrainRequest:
        config = request_of_a_file.config
        spec = SweepSpec(name="s", space=spaces.space(), places=request_of_a_file.places, storage=tmp_path / "store")
        record = TrialRecord(trial_id="e0.5-000", role="search", number=0, epsilon=0.5, config=config, attempt=attempt, from_step=from_step)
        for step, digest in enumerate(digests, start=1):
            record = record.with_point(CurvePoint(step, {"val/pckh_50": fake_trials.score_of(config) * step / 3}, digest))
        results = SweepResults(name="s", records=(record.ended(seconds=1.0),), accounting="composed", delta=1e-5)
        results.write_parquet(spec.sweep_dir / "results")
        SweepKey.fresh().save(spec.key_path)
        return replace(request_of_a_file, exported=export_trial(record, spec), spec=spec, ledger_url=None, out=tmp_path / "kept" / "model")

    return make


def test_a_replay_that_reaches_every_recorded_digest_keeps_the_model_and_charges_nothing(
    request_of_a_trial: Callable[..., TrainRequest],
) -> None:
    request = request_of_a_trial("e0.5-000-1", "e0.5-000-2", "e0.5-000-3")
    assert train_replay(request, keep=True)["trial_id"] == "e0.5-000"
    assert request.out.is_dir()
    assert not (request.out.parent.parent / "store" / "ledger.sqlite").exists()


@pytest.mark.parametrize("tampered", [1, 2, 3])
def test_a_replay_that_misses_a_recorded_digest_writes_nothing(tampered: int, request_of_a_trial: Callable[..., TrainRequest]) -> None:
    request = request_of_a_trial(*("other" if step == tampered else f"e0.5-000-{step}" for step in (1, 2, 3)))
    with pytest.raises(NotReplayable, match=f"at step {tampered}, recorded are other.*nothing was written"):
        train_replay(request, keep=True)
    assert list(request.out.parent.iterdir()) == []


def test_a_trial_that_took_two_attempts_is_not_replayed_as_if_it_were_one(request_of_a_trial: Callable[..., TrainRequest]) -> None:
    with pytest.raises(NotReplayable, match="attempt 1, which went on from step 2"):
        train_replay(request_of_a_trial("a", "b", "c", attempt=1, from_step=2), keep=False)


def test_a_training_of_a_sweep_with_private_validation_pays_for_its_score_too(request_of_a_file: TrainRequest) -> None:
    settings = {"validation": "private", "validation_epsilon": 2.0, "validation_units": 3000}
    places = request_of_a_file.places
    spec = SweepSpec(name="s", space=spaces.space(sweep=settings), places=places, storage=places.data_dir.parent / "store")
    train_fresh(replace(request_of_a_file, spec=spec))
    lines = Ledger(str(request_of_a_file.ledger_url)).lines()
    assert [(line.kind, line.trial_id.endswith("/score"), line.sampling_prob) for line in lines] == [
        ("reserve", True, 1.0),
        ("reserve", False, 0.01),
        ("settle", True, 1.0),
        ("settle", False, 0.01),
    ]


def test_a_training_that_would_pass_its_sweeps_cap_is_refused_before_anything_is_written(request_of_a_file: TrainRequest) -> None:
    places = request_of_a_file.places
    spec = SweepSpec(name="s", space=spaces.space(sweep={"epsilon_total": 0.4999}), places=places, storage=places.data_dir.parent / "store")
    with pytest.raises(Refused, match=r"0\.4999"):
        train_fresh(replace(request_of_a_file, spec=spec))
    assert lines_of(request_of_a_file) == []
    assert not request_of_a_file.out.exists()


@pytest.mark.parametrize("on_purpose", [False, True])
def test_training_from_a_sweep_that_searched_its_steps_stays_behind_its_filter(
    on_purpose: bool, request_of_a_file: TrainRequest, tmp_path: Path
) -> None:
    terms = FilterTerms(sweep="s", order=8, rdp=1e6)
    spec = SweepSpec(name="s", space=spaces.space(), places=request_of_a_file.places, storage=tmp_path / "store", privacy_filter=terms)
    Ledger(spec.resolved_ledger_url)
    url = request_of_a_file.ledger_url if on_purpose else None
    train_fresh(replace(request_of_a_file, spec=spec, ledger_url=url))
    lines = Ledger(url or spec.resolved_ledger_url).lines()
    assert {line.priced_by for line in lines} == {"" if on_purpose else terms.text()}


def test_a_trained_model_has_its_claim_and_says_that_its_choice_is_not_priced_here(request_of_a_file: TrainRequest) -> None:
    train_fresh(request_of_a_file)
    made = load_claim(request_of_a_file.out)
    assert (made.claim.epsilon, made.claim.relation) == (request_of_a_file.config.epsilon, "add_remove_record")
    assert made.price.text == "what choosing these settings cost is not known here"
    assert made.scores["pckh_50"] == pytest.approx(fake_trials.score_of(request_of_a_file.config))


def test_a_training_whose_sweep_is_not_at_hand_takes_the_price_from_its_file(request_of_a_file: TrainRequest) -> None:
    price = Price(accounting="composed", epsilon=7.3719, delta=1e-5, text="sweep epsilon 7.37")
    release = Release(epsilon_spent=0.4971, delta=1e-5, price=price)
    train_fresh(replace(request_of_a_file, exported=request_of_a_file.exported.model_copy(update={"release": release})))
    assert load_claim(request_of_a_file.out).price == price


def test_every_report_of_a_training_is_heard(request_of_a_file: TrainRequest) -> None:
    heard: list[int] = []
    train_fresh(replace(request_of_a_file, on_report=lambda report: heard.append(report.step)))
    assert heard == [1, 2, 3]


def test_a_training_that_mlflow_does_not_take_is_finished_and_says_why(
    request_of_a_file: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = train_fresh(request_of_a_file)
    alone = registered(request_of_a_file, document, [])
    assert alone.document == {**document, "model": None}
    assert "sweep that the config came from is not at hand" in str(alone.not_registered)
    spec = SweepSpec(name="s", space=spaces.space(), places=request_of_a_file.places, storage=tmp_path / "store")

    def refusing(*given: Any) -> str:
        raise Unavailable("MLflow does not answer at http://127.0.0.1:9")

    monkeypatch.setattr(registry, "log_training", refusing)
    down = registered(replace(request_of_a_file, spec=spec), document, [])
    assert (down.document["model"], down.not_registered) == (None, "MLflow does not answer at http://127.0.0.1:9")


def test_a_replay_of_a_selections_winner_says_what_the_selection_spent(request_of_a_trial: Callable[..., TrainRequest]) -> None:
    request = request_of_a_trial("e0.5-000-1", "e0.5-000-2", "e0.5-000-3")
    sweep = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 4, "shape": 1.0}}
    space = spaces.space(sweep=sweep, references={"control": False, "winner_seeds": 0})
    spec = request.spec.model_copy(update={"space": space})
    written = read_results(spec.sweep_dir)
    winner = replace(written.records[0], sampling_prob=0.01, noise_multiplier=2.0)
    replace(written, records=(winner,)).write_parquet(spec.sweep_dir / "results")
    selected = epsilon_of_selection(winner, space)
    told = train_replay(replace(request, spec=spec), keep=True)
    assert told["epsilon_spent"] == selected
    assert json.loads((request.out / "model" / "model.json").read_text())["meta"]["epsilon_spent"] == selected
    assert load_claim(request.out).claim.epsilon == selected
