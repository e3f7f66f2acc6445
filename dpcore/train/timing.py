"""How long the parts of a trial take on this machine: some steps of each kind, timed on PUBLIC people.

Nothing private is read, so the times may be told whoever the private people are. The PUBLIC dataset takes the private part's place, as in a
rehearsal. Where it has fewer people than a batch, the time of its batch is scaled up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dpcore.config import Places, PrivacyUnit, RuntimeFlags, TrialConfig
from dpcore.config.freezing import FreezeRule
from dpcore.data.catalog import open_dataset, unit_ids
from dpcore.data.shards import ShardSet
from dpcore.data.views import build_views
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.randomness import PrivateStreams, PublicStreams, SweepKey
from dpcore.train.evaluator import training_loss
from dpcore.train.handout import Handout
from dpcore.train.inputs import InputBuilder, device_of, labels_of, public_batch
from dpcore.train.predictions import predict
from dpcore.train.private_steps import Progress
from dpcore.train.public_training import PublicFit, train_steps
from dpcore.train.sources import Examples, LabelledViews
from dpcore.train.trainer import PreparedTrial, prepare_trial, steps_of
from dpcore.train.trial_data import TrialData

TIMED_STEPS = 2
"""After one that is not timed: it allocates what the others find."""
TIMED_EXAMPLES = 16
_UNITS: tuple[PrivacyUnit, ...] = ("image", "person", "video")


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds on this machine.

    Attributes:
        start_s: before the first private step, without public stages and caches of features.
        public_step_s, view_step_s: of `stages.public` and `stages.public_view`; 0 where the trial has none.
        private_step_s: with the expected batch; 0 where the trial takes none.
        evaluation_s: of all validation people.
        feature_s: what lies below the first trained layer, for one example; 0 where nothing does or it is not cached.
    """

    start_s: float
    public_step_s: float
    view_step_s: float
    private_step_s: float
    evaluation_s: float
    feature_s: float


def time_steps(config: TrialConfig, runtime: RuntimeFlags, places: Places) -> StepTimes:
    """Times a trial's parts. Takes seconds: features of the PUBLIC people and the validation people are cached, as the trial would.

    Args:
        config: the trial; its private dataset is not opened beyond its manifest.
        runtime: of the sweep's trials.
        places: datasets and caches.

    Raises:
        BadInput: config and data do not fit.
    """
    skeleton = open_dataset(config.data.in_private_place, places).skeleton
    public, validation = (open_dataset(name, places).as_skeleton(skeleton) for name in (config.data.public, config.data.validation))
    rehearsed = _rehearsed(config, public)
    views = None if rehearsed.split is None else LabelledViews(build_views(public, rehearsed.split, places), labels_of(public))
    data = TrialData(private=public, public=public, validation=validation, views=views, public_views=views)
    handout = Handout(trial_id="timing", key=SweepKey.fresh(), places=places, folder=None, plan=_plan(rehearsed))
    prepare_trial(rehearsed, runtime, handout, data)  # fills caches
    began = time.monotonic()
    prepared = prepare_trial(rehearsed, runtime, handout, data)
    start_s = time.monotonic() - began
    private_step_s = _private_step(prepared, config)
    evaluation_s = _seconds(lambda: predict(prepared.engine.module, prepared.validation, prepared.reading))
    prepared.engine.close()
    return StepTimes(
        start_s=start_s,
        private_step_s=private_step_s,
        evaluation_s=evaluation_s,
        public_step_s=_public_step(prepared, runtime, places) if config.stages.public.steps and not config.model.starts_at_random else 0.0,
        view_step_s=_view_step(prepared, runtime, places) if config.stages.public_view is not None and config.split is not None else 0.0,
        feature_s=_feature(prepared, runtime, places),
    )


def _rehearsed(config: TrialConfig, public: ShardSet) -> TrialConfig:
    """The trial with PUBLIC people in the private place, from the start of its network and without a teacher."""
    unit = next(one for one in (config.privacy_unit, *_UNITS) if _names(public, one))
    changes = {
        "data.proxy": config.data.public,
        "data.proxy_examples": len(set(unit_ids(public, unit).tolist())),
        "privacy_unit": unit,
        "stages.public.steps": 0,
        "start": "public",
        "labels": "public",
        "teacher": {},
    }
    if not config.traits.uses_views:
        changes["split"] = None
    return config.changed(**changes)


def _names(dataset: ShardSet, unit: PrivacyUnit) -> bool:
    ids = {"person": dataset.person_ids, "image": dataset.image_ids, "video": dataset.video_ids}[unit]
    return bool((ids != "").all())


def _plan(config: TrialConfig) -> PrivacyPlan | None:
    """A plan that is never reserved: of a rehearsal nothing is charged. The noise takes as long whatever its size."""
    if not config.adds_noise or config.delta is None or config.epsilon is None:
        return None
    return PrivacyPlan(
        sampling_prob=config.sampling_prob,
        steps=config.stages.private.steps,
        noise_multiplier=1.0,
        delta=config.delta,
        epsilon_target=config.epsilon,
        epsilon_planned=config.epsilon,
        relation=config.relation,
        privacy_unit=config.privacy_unit,
    )


def _private_step(prepared: PreparedTrial, config: TrialConfig) -> float:
    if config.traits.private_sum == "none":
        return 0.0
    streams = PrivateStreams(key=SweepKey.fresh(), trial_id="timing", context="timing", attempt=0, secure=prepared.runtime.secure_rng)
    steps = steps_of(prepared, streams)
    progress = [steps.advance(Progress.start(prepared.engine.flat_weights(), averages=config.ema_decay is not None))]

    def advance() -> None:
        for _ in range(TIMED_STEPS):
            progress.append(steps.advance(progress[-1]))

    wanted, had = config.stages.private.expected_batch_size, prepared.terms.config.stages.private.expected_batch_size
    return _seconds(advance) / TIMED_STEPS * max(1.0, wanted / had)


def _public_step(prepared: PreparedTrial, runtime: RuntimeFlags, places: Places) -> float:
    stage = prepared.config.stages.public
    builder = _builder(prepared, stage.freeze, runtime, places)
    return _fit_step(prepared, builder, builder.examples(prepared.data.public, stage.augmentation), stage.freeze, stage.batch_size)


def _view_step(prepared: PreparedTrial, runtime: RuntimeFlags, places: Places) -> float:
    stage, views = prepared.config.stages.public_view, prepared.data.views
    if stage is None or views is None:
        return 0.0
    freeze = prepared.config.model.freeze
    builder = _builder(prepared, freeze, runtime, places)
    return _fit_step(prepared, builder, builder.view_examples(views, prepared.config.augmentation), freeze, stage.batch_size)


def _builder(prepared: PreparedTrial, freeze: str | FreezeRule, runtime: RuntimeFlags, places: Places) -> InputBuilder:
    split = prepared.network.split(freeze)
    return InputBuilder.for_split(split, model=prepared.config.model, places=places, device=device_of(runtime))


def _fit_step(prepared: PreparedTrial, builder: InputBuilder, examples: Examples, freeze: str | FreezeRule, batch_size: int) -> float:
    """One step of training in the open. Its learning rate is 0, so that the network stays what it is."""
    config, count = prepared.config, min(batch_size, len(examples))
    fit = PublicFit(
        tail=prepared.network.split(freeze).tail.to(builder.device),
        examples=examples,
        loss=training_loss(config, prepared.network.skeleton),
        streams=PublicStreams(config.seed),
        name="timing",
        batch_size=count,
        learning_rate=0.0,
    )
    train_steps(fit, 1)
    return _seconds(lambda: train_steps(fit, TIMED_STEPS)) / TIMED_STEPS * batch_size / count


def _feature(prepared: PreparedTrial, runtime: RuntimeFlags, places: Places) -> float:
    """Of one example, where features are cached: the network below its first trained layer."""
    config = prepared.config
    builder = _builder(prepared, config.model.freeze, runtime, places)
    if builder.stem is None or not config.augmentation.is_identity:
        return 0.0
    rows = min(TIMED_EXAMPLES, len(prepared.data.public))
    public_batch(builder, prepared.data.public, rows)
    return _seconds(lambda: public_batch(builder, prepared.data.public, rows)) / rows


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
