"""What makes two runs one."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

from dpcore.config import RuntimeFlags, TrialConfig, digest_of
from dpcore.train import replay
from dpcore.train.replay import replay_document

Make = Callable[..., TrialConfig]
DATA = {"private": "a", "public": "b", "validation": "c"}


def replay_digest(config: TrialConfig, runtime: RuntimeFlags, data_digests: dict[str, str]) -> str:
    """Equal: a repetition under the same key replays."""
    return digest_of(replay_document(config, runtime, data_digests))


def test_reporting_more_often_is_still_the_same_run(make_config: Make) -> None:
    plain, chatty = RuntimeFlags(), RuntimeFlags(report_every_steps=1, checkpoint_every_steps=1)
    assert replay_digest(make_config(), plain, DATA) == replay_digest(make_config(), chatty, DATA)


@pytest.mark.parametrize("change", [{"threads": 2}, {"physical_batch_size": 8}, {"secure_rng": True}, {"device": "cuda"}])
def test_rounding_and_generator_make_another_run(make_config: Make, change: dict[str, Any]) -> None:
    plain, changed = RuntimeFlags(), RuntimeFlags(**change)
    assert replay_digest(make_config(), plain, DATA) != replay_digest(make_config(), changed, DATA)


def test_noise_of_the_device_makes_another_run(make_config: Make) -> None:
    on_cpu, on_device = RuntimeFlags(device="cuda"), RuntimeFlags(device="cuda", noise_on_device=True)
    assert replay_digest(make_config(), on_cpu, DATA) != replay_digest(make_config(), on_device, DATA)


def test_config_and_each_dataset_make_another_run(make_config: Make) -> None:
    known = {replay_digest(make_config(), RuntimeFlags(), DATA), replay_digest(make_config(seed=1), RuntimeFlags(), DATA)}
    known |= {replay_digest(make_config(), RuntimeFlags(), {**DATA, name: "other"}) for name in DATA}
    assert len(known) == 5


def test_every_flag_but_those_of_reporting_makes_another_run(make_config: Make) -> None:
    named = set(replay_document(make_config(), RuntimeFlags(), DATA)["runtime"])
    assert set(RuntimeFlags.model_fields) - named == {"report_every_steps", "checkpoint_every_steps", "largest_rank"}


def test_versions_of_python_and_of_each_library_and_the_instruction_set_make_another_run(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {replay_digest(make_config(), RuntimeFlags(), DATA)}
    for name in ("torch", "numpy", "dp-accounting"):
        with monkeypatch.context() as patch:
            patch.setattr(replay, "version", lambda asked, name=name: "0" if asked == name else version(asked))
            known.add(replay_digest(make_config(), RuntimeFlags(), DATA))
    with monkeypatch.context() as patch:
        patch.setattr(replay.platform, "python_version", lambda: "0")
        known.add(replay_digest(make_config(), RuntimeFlags(), DATA))
    with monkeypatch.context() as patch:
        patch.setattr(replay.torch.backends.cpu, "get_cpu_capability", lambda: "other")
        known.add(replay_digest(make_config(), RuntimeFlags(), DATA))
    assert len(known) == 6


@pytest.mark.parametrize("name", ["FEATURES_VERSION", "ENGINE_VERSION", "MECHANISM_VERSION"])
def test_other_features_and_other_arithmetic_make_another_run(name: str, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise on other gradients would show their difference."""
    before = replay_digest(make_config(), RuntimeFlags(), DATA)
    monkeypatch.setattr(replay, name, -1)
    assert replay_digest(make_config(), RuntimeFlags(), DATA) != before
