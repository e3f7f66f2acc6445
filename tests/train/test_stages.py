"""Public stages: cached by content, deterministic, converged on a held-out tenth."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.model.network import codec_of, weights_digest
from dpcore.privacy.randomness import PublicStreams
from dpcore.train import public_training, stages
from dpcore.train.evaluator import loss_of, mean_loss, training_loss
from dpcore.train.handout import Handout
from dpcore.train.hearing import heard_by
from dpcore.train.inputs import NO_AUGMENTATION, InputBuilder
from dpcore.train.public_training import PublicFit, train_to_convergence
from dpcore.train.stages import held_out_tenth, public_network, started_network
from dpcore.train.trainer import run_trial
from dpcore.train.trial_data import open_trial_data

Make = Callable[..., TrialConfig]
COARSE = {"name": "coarse", "transform": "pixelate", "cell_px": 16}


def _elsewhere(places: Places, tmp_path: Path) -> Places:
    return Places(data_dir=places.data_dir, cache_dir=tmp_path / "cache")


def test_public_stage_is_trained_once_and_equal_in_another_cache(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("public_only")
    data = open_trial_data(config, train_places, runtime)
    first = weights_digest(public_network(config, data.public, places=train_places, runtime=runtime).state_dict())
    elsewhere = _elsewhere(train_places, tmp_path)
    assert weights_digest(public_network(config, data.public, places=elsewhere, runtime=runtime).state_dict()) == first

    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("the stage was trained again")

    monkeypatch.setattr(stages, "train_steps", refuse)
    assert weights_digest(public_network(config, data.public, places=train_places, runtime=runtime).state_dict()) == first


def test_a_public_trial_tells_how_far_its_stage_and_its_scores_are(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path
) -> None:
    config, told = make_config("public_only"), []
    with heard_by(lambda *heard: told.append(heard)):
        list(run_trial(config, runtime, Handout(places=_elsewhere(train_places, tmp_path), trial_id="f", key=None, folder=None)))
    steps = config.stages.public.steps
    assert [heard for heard in told if heard[0] == "public training, step"] == [
        ("public training, step", step, steps) for step in range(1, steps + 1)
    ]
    for what in ("features of frozen layers, picture", "scoring, person"):
        *_, (_, done, total) = [heard for heard in told if heard[0] == what]
        assert done == total > 0


def test_the_public_stage_takes_a_second_core_and_is_the_same_bit_for_bit_without(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves: list[int] = []

    class Counted(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
            halves.append(len(given[0]))
            return super().submit(fn, *given, **named)

    monkeypatch.setattr(public_training, "ThreadPoolExecutor", Counted)
    monkeypatch.setattr(public_training.torch, "get_num_threads", lambda: 1)
    stage = {"start": "public_view", "stages__public_view": {"steps": 3, "batch_size": 8}}
    config = make_config("public_only", **stage, split=COARSE, stages__public__batch_size=7)
    data, digests = open_trial_data(config, train_places, runtime), []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr(public_training.os, "sched_getaffinity", lambda process, cores=cores: cores)
        places = _elsewhere(train_places, tmp_path / str(len(cores)))
        network = started_network(config, public=data.public, views=data.views, places=places, runtime=runtime)
        digests.append(weights_digest(network.state_dict()))
    assert digests[0] == digests[1]
    assert halves == [3] * config.stages.public.steps  # of the public stage alone: nobody waits for the other


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_gradient_of_two_halves_is_that_of_the_batch(
    count: int, train_places: Places, make_config: Make, runtime: RuntimeFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PublicFit] = []
    monkeypatch.setattr(stages, "train_steps", lambda fit, steps: seen.append(fit) or public_training.train_steps(fit, 1))
    config = make_config("public_only", seed=29 + count)
    public_network(config, open_trial_data(config, train_places, runtime).public, places=train_places, runtime=runtime)
    (fit,) = seen
    batch = fit.examples.batch(np.arange(count), None)
    found = public_training._gradient(fit, batch, None)
    whole = torch.autograd.grad(fit.loss(fit.tail, batch).mean(), fit.trained)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_trials_share_a_public_stage_unless_something_that_moves_it_differs(
    train_places: Places, make_config: Make, runtime: RuntimeFlags
) -> None:
    base = make_config("public_only")
    data = open_trial_data(base, train_places, runtime)

    def start_of(config: TrialConfig) -> str:
        return weights_digest(public_network(config, data.public, places=train_places, runtime=runtime).state_dict())

    start = start_of(base)
    assert start_of(make_config("dpsgd", clip_norm=3.0, model__freeze="early", optimizer__learning_rate=0.5)) == start
    for change in ({"seed": 1}, {"stages__public__learning_rate": 1e-2}, {"stages__public__steps": 5}, {"model__label_sigma_bins": 2.0}):
        assert start_of(make_config("public_only", **change)) != start


def test_view_stage_trains_the_tail_alone_and_moves_with_the_split(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    stage = {"start": "public_view", "stages__public_view": {"steps": 3, "batch_size": 8}}
    fine = make_config("public_only", **stage, split={"name": "fine", "transform": "pixelate", "cell_px": 4})
    coarse = make_config("public_only", **stage, split=COARSE)
    states = []
    for config in (fine, coarse):
        data = open_trial_data(config, train_places, runtime)
        public = public_network(config, data.public, places=train_places, runtime=runtime).state_dict()
        started = started_network(config, public=data.public, views=data.views, places=train_places, runtime=runtime).state_dict()
        changed = {name.split(".")[1] for name in public if not torch.equal(public[name], started[name])}
        assert changed == {"head"}
        states.append(weights_digest(started))
    assert states[0] != states[1]


def test_held_out_tenth_follows_the_content_and_not_the_order() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(55, 4, 4, 3), dtype=np.uint8)
    order = rng.permutation(55)

    class Stack:
        def __init__(self, images: np.ndarray) -> None:
            self._images = images

        def __len__(self) -> int:
            return len(self._images)

        def images(self, indices: np.ndarray) -> np.ndarray:
            return self._images[indices]

    here, shuffled = held_out_tenth(Stack(pixels)), held_out_tenth(Stack(pixels[order]))
    assert len(here) == 6
    assert set(order[shuffled]) == set(here)


def test_a_stage_until_best_keeps_the_weights_of_its_best_look(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    """A rate far too high: the start stays the best, bit for bit. A low one: the held-out loss falls."""
    start = make_config("public_only", stages__public__steps=0)
    data = open_trial_data(start, train_places, runtime)
    held_out = held_out_tenth(data.public)

    def ended(**stage: object) -> tuple[str, float]:
        config = start.changed(**{f"stages.public.{name}": value for name, value in stage.items()})
        network = public_network(config, data.public, places=train_places, runtime=runtime)
        split = network.split("none")
        builder = InputBuilder.for_split(split, model=config.model, places=train_places, device=torch.device("cpu"))
        examples = builder.examples(data.public, NO_AUGMENTATION)
        loss = mean_loss(split.tail, examples, indices=held_out, loss=training_loss(config))
        return weights_digest(network.state_dict()), loss

    before = ended()
    assert ended(steps=6, batch_size=8, learning_rate=3.0, until="best") == before
    after = ended(steps=6, batch_size=8, learning_rate=3e-4, until="best")
    assert after[1] < before[1]
    assert ended(steps=6, batch_size=8, learning_rate=3e-4)[0] != after[0]


def test_training_to_convergence_returns_the_best_weights_and_stops_by_itself(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_training, "EVALUATE_EVERY_STEPS", 2)
    monkeypatch.setattr(public_training, "PATIENCE", 2)
    config = make_config("public_only")
    data = open_trial_data(config, train_places, runtime)
    split = public_network(config, data.public, places=train_places, runtime=runtime).split("backbone")
    device = torch.device("cpu")
    builder = InputBuilder.for_split(split, model=config.model, places=train_places, device=device)
    examples = builder.examples(data.public, NO_AUGMENTATION)
    held_out, codec = held_out_tenth(data.public), codec_of(config.model)
    before = mean_loss(split.tail, examples, indices=held_out, loss=loss_of(codec))
    fit = PublicFit(
        tail=split.tail, examples=examples, loss=loss_of(codec), streams=PublicStreams(0), name="public", batch_size=8, learning_rate=0.3
    )
    outcome = train_to_convergence(fit, held_out=held_out, max_steps=400)
    assert outcome.converged
    assert outcome.steps < 400
    assert outcome.holdout_loss == pytest.approx(mean_loss(split.tail, examples, indices=held_out, loss=loss_of(codec)))
    assert outcome.holdout_loss <= before


def test_public_steps_are_those_of_torchs_adam_to_the_bit(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    """With a tensor that has no gradient, tensors of unlike scales and a rate that changes."""
    config = make_config("public_only")
    data = open_trial_data(config, train_places, runtime)
    network = public_network(config, data.public, places=train_places, runtime=runtime)
    split = network.split("none")
    builder = InputBuilder.for_split(split, model=config.model, places=train_places, device=torch.device("cpu"))
    fit = PublicFit(
        tail=split.tail,
        examples=builder.examples(data.public, NO_AUGMENTATION),
        loss=training_loss(config, network.skeleton),
        streams=PublicStreams(0),
        name="test",
        batch_size=8,
        learning_rate=0.01,
    )
    fit = replace(fit, scales=tuple((1.0, 0.03)[index % 2] for index in range(len(fit.trained))))
    theirs = [parameter.detach().clone().requires_grad_() for parameter in fit.trained]
    groups = [{"params": [parameter], "lr": 0.01 * scale} for parameter, scale in zip(theirs, fit.scales or (), strict=True)]
    reference, ours, generator = torch.optim.Adam(groups), public_training._Adam(fit), torch.Generator().manual_seed(0)
    for step in range(4):
        gradients: list[torch.Tensor | None] = [torch.randn(one.shape, generator=generator) for one in theirs]
        gradients[step] = None
        ours.rate = 0.01 / (1 + step)
        for group, scale in zip(reference.param_groups, fit.scales or (), strict=True):
            group["lr"] = ours.rate * scale
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        reference.step()
        ours.descend(gradients)
    assert all(torch.equal(one, other) for one, other in zip(fit.trained, theirs, strict=True))


def test_other_labels_of_the_same_views_are_another_stage(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    config = make_config("public_only", start="public_view", stages__public_view={"steps": 3, "batch_size": 8}, split=COARSE)
    data = open_trial_data(config, train_places, runtime)
    assert data.views is not None
    mirrored = replace(data.views.labels, keypoints=63 - data.views.labels.keypoints)
    started = [
        weights_digest(started_network(config, public=data.public, views=views, places=train_places, runtime=runtime).state_dict())
        for views in (data.views, replace(data.views, labels=mirrored))
    ]
    assert started[0] != started[1]
