"""A whole trial: what it reports, that it can be interrupted anywhere, what it refuses."""

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import open_dataset
from dpcore.data.synthetic import synth
from dpcore.errors import BadInput, Corrupt, NotReplayable, Refused
from dpcore.pose.skeleton import MPII_16
from dpcore.privacy import mechanism
from dpcore.privacy.clipping import BoundedSum
from dpcore.privacy.noise import NoisedSum, add_noise
from dpcore.privacy.randomness import RandomStream, SweepKey
from dpcore.train import trainer, trial_data
from dpcore.train.checkpoint import open_trial_folder
from dpcore.train.saved import load_model
from dpcore.train.trainer import Report, run_trial

Make = Callable[..., TrialConfig]
METHODS = ("dpsgd", "projected", "feature", "feature_projected", "nonprivate", "public_only")


def _run(config: TrialConfig, runtime: RuntimeFlags, places: Places, *, key: SweepKey | None, folder: Path | None = None) -> list[Report]:
    return list(run_trial(config, runtime, handed(config, places=places, trial_id="t", key=key, folder=folder)))


def _digests(reports: list[Report]) -> list[tuple[int, str]]:
    return [(report.step, report.weights_digest) for report in reports]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_to_a_report_with_all_its_metrics(
    method: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    reports = _run(make_config(method), runtime, train_places, key=key)
    last = reports[-1]
    assert [report.done for report in reports] == [False] * (len(reports) - 1) + [True]
    assert [report.step for report in reports] == ([0] if method == "public_only" else [2, 4, 6])
    assert {"val/pckh_50", "val/pckh_10", "val/pckh_50/l_wrist"} <= set(last.metrics)
    spends = method in ("dpsgd", "projected", "feature", "feature_projected")
    assert ("privacy/epsilon_spent" in last.metrics) == spends
    if spends:
        assert 0 < last.metrics["privacy/epsilon_spent"] <= 1.0
        assert reports[0].metrics["privacy/epsilon_spent"] < last.metrics["privacy/epsilon_spent"]


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected"])
def test_a_replacement_claim_runs_in_bf16_with_corrected_adam_under_more_noise(
    method: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    noise = {}
    for relation in ("add_remove", "replace"):
        config = make_config(method, relation=relation, optimizer__dp_bias_correction=True)
        last = _run(config, runtime.model_copy(update={"precision": "bf16"}), train_places, key=key)[-1]
        assert 0.99 < last.metrics["privacy/epsilon_spent"] <= 1.0
        noise[relation] = last.metrics["privacy/noise_multiplier"]
    assert noise["replace"] > 1.3 * noise["add_remove"]


def test_replay_that_reaches_other_weights_is_refused_and_writes_nothing(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path
) -> None:
    config, runtime = make_config("dpsgd"), runtime.model_copy(update={"checkpoint_every_steps": 3})
    first = run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=trial_folder))
    list(islice(first, 2))
    first.close()  # type: ignore[attr-defined]
    path = trial_folder / "digests.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["weights_digest"] = "0" * 32
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = path.read_text()
    with pytest.raises(NotReplayable, match="does not repeat the run bit for bit"):
        _run(config, runtime, train_places, key=key, folder=trial_folder)
    assert path.read_text() == before
    assert not (trial_folder / "result.json").exists()


@pytest.mark.parametrize("change", ["clip_norm", "key", "physical_batch_size"])
def test_a_folder_of_another_trial_is_refused_naming_what_differs(
    change: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path
) -> None:
    list(
        islice(run_trial(make_config(), runtime, handed(make_config(), places=train_places, trial_id="t", key=key, folder=trial_folder)), 1)
    )
    config = make_config(clip_norm=0.7) if change == "clip_norm" else make_config()
    other_key = SweepKey(bytes(32)) if change == "key" else key
    flags = runtime.model_copy(update={"physical_batch_size": 8}) if change == "physical_batch_size" else runtime
    named = {"clip_norm": "config", "key": "key", "physical_batch_size": "runtime"}[change]
    with pytest.raises(Refused, match=f"{named}: .* there, .* now"):
        _run(config, flags, train_places, key=other_key, folder=trial_folder)


def test_trial_id_and_key_change_the_noise_and_the_seed_does_not_have_to(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    config = make_config("dpsgd")
    ours = _run(config, runtime, train_places, key=key)[-1]
    other_key = _run(config, runtime, train_places, key=SweepKey(bytes(32)))[-1]
    other_id = list(run_trial(config, runtime, handed(config, places=train_places, trial_id="u", key=key, folder=None)))[-1]
    assert len({ours.weights_digest, other_key.weights_digest, other_id.weights_digest}) == 3


@pytest.mark.parametrize("change", [{"clip_norm": 0.25}, {"optimizer__learning_rate": 2e-3}, {"seed": 1}, {"model__freeze": "early"}])
def test_one_key_and_trial_id_never_put_the_same_noise_on_other_sums(
    change: dict[str, Any], train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_normal(config: TrialConfig, runtime: RuntimeFlags = runtime) -> float:
        """Of the noise of step 0."""
        drawn: list[float] = []

        def listening(bounded: BoundedSum, *, noise_multiplier: float, stream: RandomStream) -> NoisedSum:
            drawn.append(float(stream.normal(1)[0]))
            return add_noise(bounded, noise_multiplier=noise_multiplier, stream=stream)

        monkeypatch.setattr(mechanism, "add_noise", listening)
        list(islice(run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=None)), 1))
        return drawn[0]

    config = make_config("dpsgd")
    assert first_normal(config) == first_normal(config)
    assert first_normal(config) != first_normal(make_config("dpsgd", **change))
    assert first_normal(config) != first_normal(config, runtime.model_copy(update={"physical_batch_size": 8}))


@pytest.fixture
def noises(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str, float]]:
    """Of each step that adds noise: the noise multiplier, the kind of stream, and the stream's first normal."""
    made: list[tuple[float, str, float]] = []

    def listening(bounded: BoundedSum, *, noise_multiplier: float, stream: RandomStream) -> NoisedSum:
        made.append((noise_multiplier, type(stream).__name__, float(stream.normal(1)[0])))
        return add_noise(bounded, noise_multiplier=noise_multiplier, stream=stream)

    monkeypatch.setattr(mechanism, "add_noise", listening)
    return made


def test_other_people_under_the_name_of_a_dataset_get_other_noise(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, noises: list[tuple[float, str, float]], tmp_path: Path
) -> None:
    elsewhere = Places(data_dir=tmp_path / "data", cache_dir=train_places.cache_dir)
    shutil.copytree(train_places.data_dir, elsewhere.data_dir)
    shutil.rmtree(elsewhere.data_dir / "private")
    synth(elsewhere.data_dir / "private", "private", count=64, seed=4, role="PRIVATE", name="private")
    for places in (train_places, elsewhere):
        list(islice(run_trial(make_config(), runtime, handed(make_config(), places=places, trial_id="t", key=key, folder=None)), 1))
    assert noises[0] != noises[len(noises) // 2]


@pytest.mark.parametrize(("secure", "stream"), [(False, "NumpyStream"), (True, "ChaChaStream")])
def test_noise_is_added_at_the_planned_multiplier_from_the_generator_that_was_asked_for(
    secure: bool,
    stream: str,
    train_places: Places,
    make_config: Make,
    runtime: RuntimeFlags,
    key: SweepKey,
    noises: list[tuple[float, str, float]],
) -> None:
    config = make_config(epsilon=0.937)
    _run(config, runtime.model_copy(update={"secure_rng": secure}), train_places, key=key)
    plan = handed(config, places=train_places, trial_id="t", key=key, folder=None).plan
    assert plan is not None
    assert plan.noise_multiplier != round(plan.noise_multiplier, 2)
    assert {(multiplier, kind) for multiplier, kind, _ in noises} == {(plan.noise_multiplier, stream)}
    assert len(noises) == config.stages.private.steps


def test_protected_data_are_never_trained_on_without_privacy(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = open_dataset("private", train_places)
    private.manifest = private.manifest.model_copy(update={"protected": True})
    monkeypatch.setattr(trial_data, "open_dataset", lambda name, places: private if name == "private" else open_dataset(name, places))
    with pytest.raises(Refused, match="is protected"):
        _run(make_config("nonprivate"), runtime, train_places, key=key)


def test_an_image_with_two_crops_is_one_unit_and_its_people_are_none(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = open_dataset("private", train_places)
    shared = private.image_ids.copy()
    shared[1] = shared[0]
    monkeypatch.setattr(private, "image_ids", shared)
    monkeypatch.setattr(trial_data, "open_dataset", lambda name, places: private if name == "private" else open_dataset(name, places))
    assert _run(make_config("feature", examples_per_unit=2), runtime, train_places, key=key)[-1].done
    with pytest.raises(Refused, match="private-2-000000 and synthetic private-2-000001 overlap"):
        _run(make_config("dpsgd", privacy_unit="person"), runtime, train_places, key=key)
    with pytest.raises(Refused, match="name no video"):
        _run(make_config("dpsgd", privacy_unit="video"), runtime, train_places, key=key)
    assert _run(make_config("public_only"), runtime, train_places, key=None)


def test_finished_folder_repeats_its_reports_and_holds_the_scored_model(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path
) -> None:
    config = make_config("dpsgd", ema_decay=0.9)
    reports = _run(config, runtime, train_places, key=key, folder=trial_folder)
    result = json.loads((trial_folder / "result.json").read_text())
    stamp = (trial_folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert _digests(_run(config, runtime, train_places, key=key, folder=trial_folder)) == _digests(reports)
    assert (trial_folder / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert result["pckh_50"] == reports[-1].metrics["val/pckh_50"]
    assert load_model(trial_folder).config == config
    assert not list(trial_folder.glob("checkpoint-*"))


def test_saved_model_with_a_flipped_byte_is_corrupt(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, trial_folder: Path
) -> None:
    _run(make_config("public_only"), runtime, train_places, key=None, folder=trial_folder)
    path = trial_folder / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(Corrupt, match="not those that"):
        load_model(trial_folder)


def test_running_trial_holds_its_folder_against_a_second_one(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path
) -> None:
    with open_trial_folder(trial_folder), pytest.raises(Refused, match="in use"):
        _run(make_config(), runtime, train_places, key=key, folder=trial_folder)


def test_private_method_without_a_key_is_refused_before_anything_is_read(
    train_places: Places, make_config: Make, runtime: RuntimeFlags
) -> None:
    with pytest.raises(BadInput, match="sweep key"):
        _run(make_config(), runtime, train_places, key=None)


def test_control_reads_no_private_pixel_and_needs_no_key(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("feature", private_weight=0.0, epsilon=None, delta=None, clip_norm=None)
    _run(config, runtime, train_places, key=None)  # views exist from here on

    def refuse(self: object, indices: object) -> None:
        raise AssertionError("a control asked for crops")

    from dpcore.data.shards import ShardSet

    monkeypatch.setattr(ShardSet, "images", refuse)
    reports = _run(config, runtime, train_places, key=None)
    assert "privacy/epsilon_spent" not in reports[-1].metrics


def test_one_thread_is_set_for_the_process(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    _run(make_config("public_only"), runtime, train_places, key=None)
    assert torch.get_num_threads() == 1


def test_reports_of_protected_data_hold_no_fact_of_a_private_batch(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, trial_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpcore.train.trial_data import TrialData

    open_reports = _run(make_config(), runtime, train_places, key=key)
    monkeypatch.setattr(TrialData, "protected", property(lambda self: True))
    sealed_reports = _run(make_config(), runtime, train_places, key=key, folder=trial_folder)
    assert load_model(trial_folder).meta["seconds"] is None
    private_facts = {"train/loss", "train/clipped_frac", "time/step_s"}
    assert all(private_facts <= set(report.metrics) for report in open_reports)
    assert all(not private_facts & set(report.metrics) for report in sealed_reports)
    assert _digests(sealed_reports) == _digests(open_reports)


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected", "nonprivate", "public_only"])
def test_a_rehearsal_opens_no_private_dataset_and_prints_no_epsilon(
    method: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    synth_count = len(open_dataset("validation", train_places))
    data = {"data__private": "nowhere", "data__proxy": "validation", "data__proxy_examples": synth_count, "data__validation": "other"}
    if not (train_places.data_dir / "other").exists():
        synth(train_places.data_dir / "other", "private", count=8, seed=9, role="PUBLIC", name="other")
    last = _run(make_config(method, **data), runtime, train_places, key=key)[-1]
    assert not [name for name in last.metrics if name.startswith("privacy/")]


def test_a_rehearsal_refuses_a_private_dataset_in_the_place_of_the_proxy(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    config = make_config("dpsgd", data__proxy="private", data__proxy_examples=64)
    with pytest.raises(Refused, match=r"data\.proxy: dataset private has the role PRIVATE"):
        _run(config, runtime, train_places, key=key)


def test_trials_share_the_check_of_their_rows_exactly_where_they_take_the_same_gradients(make_config: Make) -> None:
    def name(start: str = "a", code: dict[str, str] | None = None, runtime: RuntimeFlags | None = None, **changes: object) -> str:
        config = make_config("dpsgd", **changes)
        return trainer._name_of(config, SimpleNamespace(code=code or {}, skeleton=MPII_16), start, runtime or RuntimeFlags())

    own = name()
    assert own == name(clip_norm=2.5, optimizer__learning_rate=0.125)  # what comes after the rows
    others = {
        name(start="b"),
        name(code={"mine": "1"}),
        name(runtime=RuntimeFlags(precision="bf16")),
        name(runtime=RuntimeFlags(threads=2)),
        name(loss="pck_mass"),
        name(optimizer__scale="relative"),
        name(model__freeze="early"),
    }
    assert len(others | {own}) == 8
