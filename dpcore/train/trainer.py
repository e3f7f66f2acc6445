"""One trial, from its config to its reports.

start (cached public stages) → private steps through the mechanism → optimizer, EMA → evaluation → checkpoint → result.
All randomness comes from streams that are named by step, so a trial that is interrupted anywhere and resumed from its
checkpoint gives bit for bit the weights of the undisturbed one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcore.config import RuntimeFlags, TrialConfig, digest_of
from dpcore.config.parsing import identity_of
from dpcore.data.catalog import unit_ids
from dpcore.data.validation_parts import rows_of
from dpcore.errors import BadInput, Diverged
from dpcore.inference.reading import PoseReading
from dpcore.inference.upright import UprightDetector
from dpcore.model.network import PoseNetwork, weights_digest
from dpcore.model.safety.dp_safe import require_dp_safe
from dpcore.privacy.accounting import epsilon_spent
from dpcore.privacy.mechanism import Mechanism, needs_fitted_basis
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.plan import PrivacyPlan, Spent
from dpcore.privacy.randomness import Indices, PrivateStreams, PublicStreams
from dpcore.privacy.rehearsal import StepTerms, step_terms
from dpcore.privacy.row_check import EXAMPLES, require_right_rows
from dpcore.privacy.sources import Randomness, Sources
from dpcore.train.attempts import newest_checkpoint_step
from dpcore.train.checkpoint import TrialFolder, open_trial_folder
from dpcore.train.evaluator import metrics_of, training_loss, unit_scores
from dpcore.train.handout import Handout
from dpcore.train.inputs import InputBuilder, device_of, public_batch
from dpcore.train.optimizer import start_scales
from dpcore.train.physical_batch import is_out_of_memory, out_of_memory, probe_of, settled_batch_size
from dpcore.train.predictions import predict
from dpcore.train.private_steps import PrivateSteps, Progress, end_of, sources_of
from dpcore.train.replay import replay_document
from dpcore.train.reports import EPSILON_SPENT, NOISE_MULTIPLIER, Report
from dpcore.train.saved import MODEL_FOLDER, save_model
from dpcore.train.sources import Inputs, SomeInputs
from dpcore.train.stages import started_network
from dpcore.train.start_basis import StartBasis, start_basis
from dpcore.train.trial_data import TrialData, needs_pairs, open_trial_data

__all__ = ["PreparedTrial", "Report", "prepare_trial", "run_trial", "steps_of"]


def run_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> Iterator[Report]:
    """Runs a trial, report by report; the last one is `done`.

    `public_only` is its start evaluated: with start public the zero-shot score, with public_view the floor of its split.

    *Guarantees*: with `folder`, an interrupted run continues at its newest checkpoint and equals the undisturbed run bit
    for bit, or is refused; a finished folder repeats its reports and computes nothing. Reports of protected data hold
    functions of released weights and public data alone.
    *Assumes*: the caller has reserved `handout.plan`, of a later attempt the steps from `attempt.from_step` on.

    Args:
        config: what to train.
        runtime: how to compute it; its thread count is set for the process.
        handout: the try, with its key and its folder.

    Raises:
        BadInput: config, data and key do not fit. Refused: the folder belongs to another trial or is in use.
        NotAsPlanned: what was executed is not what the plan says.
        NotReplayable: only a new attempt can go on in the folder. OutOfMemory: only one with a smaller physical batch.
        Diverged: the released weights are no numbers any more.
        Refused: per-example gradients of this network are not right (`dpcore.privacy.row_check`).
        Corrupt: stored bytes differ from what was written. Unavailable: the device is not there.
    """
    key, attempt, needs_key = handout.key, handout.attempt, config.traits.private_sum != "none" and not config.is_control
    if key is None and (handout.validation is not None or needs_key):
        raise BadInput(f"method {config.method} draws private data, or noise for a private score: give it a sweep key")
    if attempt.physical_batch_size is not None:
        runtime = runtime.model_copy(update={"physical_batch_size": attempt.physical_batch_size})
    torch.set_num_threads(runtime.threads)
    prepared = _prepare(config, runtime, handout)
    starts = {"start": prepared.start_digest, "subspace": None if prepared.basis is None else prepared.basis.digest}
    sums = {**replay_document(config, prepared.runtime, prepared.data.digests(), prepared.network.code), **starts}
    people = None if handout.people is None else handout.people.model_dump(mode="json")
    sums |= {} if people is None else {"people": people}  # a private score of other people has other noise
    tried = {"attempt": attempt.number, "from_step": attempt.from_step}
    identity = {**sums, **tried, "trial_id": handout.trial_id, "key": None if key is None else key.key_id()}
    streams = None
    if key is not None:
        context = digest_of(sums)
        streams = PrivateStreams(key=key, trial_id=handout.trial_id, context=context, attempt=attempt.number, secure=runtime.secure_rng)
        streams = replace(streams, noise_device=runtime.device if runtime.noise_on_device else None)
    with nullcontext(None) if handout.folder is None else open_trial_folder(handout.folder) as store:
        if store is not None:
            store.settle_identity(identity)
            if store.result() is not None:
                yield from _repeated(store, config.stages.private.steps, reserved=prepared.plan)
                return
        yield from _Trial(prepared, streams, store).reports()


@dataclass(frozen=True, kw_only=True)
class PreparedTrial:
    """A trial before its first private step."""

    config: TrialConfig
    runtime: RuntimeFlags
    physical_batch_size: int
    handout: Handout
    data: TrialData
    network: PoseNetwork
    start_digest: str
    engine: GradientEngine
    sources: Sources
    basis: StartBasis | None
    validation: tuple[Inputs, ...]
    scored_rows: Indices | None
    reading: PoseReading
    plan: PrivacyPlan | None
    terms: StepTerms


def _prepare(config: TrialConfig, runtime: RuntimeFlags, handout: Handout) -> PreparedTrial:
    private_validation = handout.validation is not None
    data = open_trial_data(config, handout.places, runtime, sealed=handout.sealed, private_validation=private_validation)
    return prepare_trial(config, runtime, handout, data)


def prepare_trial(config: TrialConfig, runtime: RuntimeFlags, handout: Handout, data: TrialData) -> PreparedTrial:
    """Everything of a trial that comes before its first private step, on datasets that are open already. Errors as `run_trial`."""
    device, places = device_of(runtime), handout.places
    network = started_network(config, public=data.public, views=data.views, places=places, runtime=runtime)
    start_digest = weights_digest(network.state_dict())
    split = network.split(config.model.freeze)
    require_dp_safe(split.stem, split.tail)
    builder = InputBuilder.for_split(split, model=config.model, places=places, device=device, resident=runtime.data_on_device)
    scales = start_scales(config.optimizer.scale, split.tail)
    name = _name_of(config, network, start_digest, runtime)
    engine = GradientEngine(split.tail, training_loss(config, network.skeleton), precision=runtime.precision, scales=scales, name=name)
    reading = PoseReading.of(config.model, config.evaluation, data.validation.skeleton)
    rows = None if handout.people is None else rows_of(data.validation, handout.people)
    validation = builder.scored(data.validation, reading)
    validation = validation if rows is None else tuple(SomeInputs(inputs, rows) for inputs in validation)
    example = validation[0].take(np.zeros(1, dtype=np.int64), None)
    probe = probe_of(engine, example, joints=data.validation.keypoints.shape[1], pairs=needs_pairs(config))
    size = settled_batch_size(runtime, handout.folder, probe)
    runtime = runtime.model_copy(update={"physical_batch_size": size})
    terms = step_terms(config, handout.plan)
    if config.adds_noise:
        require_right_rows(engine, public_batch(builder, data.public, EXAMPLES), precision=runtime.precision)
    sources = sources_of(terms.config, data=data, builder=builder) if end_of(config) else Sources()
    basis = None
    if needs_fitted_basis(config):
        basis = start_basis(config, engine, sources=sources, data=data, builder=builder, runtime=runtime)
    return PreparedTrial(
        config=config,
        runtime=runtime,
        physical_batch_size=size,
        handout=handout,
        data=data,
        network=network,
        start_digest=start_digest,
        engine=engine,
        sources=sources,
        basis=basis,
        validation=validation,
        scored_rows=rows,
        reading=reading,
        plan=handout.plan if config.spends_privacy else None,
        terms=terms,
    )


def steps_of(prepared: PreparedTrial, streams: PrivateStreams | None) -> PrivateSteps:
    """The private steps of a prepared trial alone: nothing is reported and nothing is kept."""
    return _Trial(prepared, streams, None).private_steps()


def _name_of(config: TrialConfig, network: PoseNetwork, start_digest: str, runtime: RuntimeFlags) -> str:
    """Names what a trial takes gradients of: trials of a sweep that begin at one public start have one name."""
    document = {
        "model": identity_of(config.model),
        "code": dict(network.code),
        "joints": network.skeleton.joints,
        "start": start_digest,
        "loss": [config.loss, config.pck_mass.model_dump(mode="json")],
        "scale": config.optimizer.scale,
        "runtime": [runtime.device, runtime.precision, runtime.threads],
    }
    return digest_of(document)


def _repeated(store: TrialFolder, step: int, *, reserved: PrivacyPlan | None) -> Iterator[Report]:
    """The recorded reports of at most `step` steps. A line of dpsweep 0.1.0 does not say what was spent: its two metrics do, and
    the folder's identity holds that it ran this very config."""
    for report in store.reports_until(step):
        if report.spent is None and reserved is not None:
            said = reserved.spent(report.step, report.metrics[EPSILON_SPENT])
            report = replace(report, spent=replace(said, noise_multiplier=report.metrics[NOISE_MULTIPLIER]))
        yield report


class _Trial:
    """The run itself, between an opened folder and a closed one."""

    def __init__(self, prepared: PreparedTrial, streams: PrivateStreams | None, store: TrialFolder | None) -> None:
        self._prepared = prepared
        self._config = prepared.config
        self._engine = prepared.engine
        self._streams = streams
        self._store = store
        self._began = time.monotonic()

    def reports(self) -> Iterator[Report]:
        """All reports; those before the checkpoint come from the folder. Where the plan ends on a rung, that of its last step is the
        last one, with a checkpoint behind it: the trial goes on only under a further plan."""
        steps, plan = end_of(self._config), self._prepared.handout.plan
        rung = None if plan is None else plan.until
        progress = Progress.start(self._engine.flat_weights(), averages=self._config.ema_decay is not None)
        if steps == 0:
            yield self._finished(self._report(progress, None, done=True))
            return
        private = self.private_steps()
        checkpoint = None if self._store is None else self._store.load_checkpoint()
        if checkpoint is not None and self._store is not None:
            yield from _repeated(self._store, checkpoint.step, reserved=self._prepared.plan)
            progress = private.resume(checkpoint)
        runtime = self._prepared.runtime
        while progress.step < (rung or steps):
            progress = self._advanced(private, progress)
            if progress.step == steps:
                private.verify(self._prepared.plan)
                yield self._finished(self._report(progress, private, done=True))
                return
            report = None
            if progress.step % runtime.report_every_steps == 0 or progress.step == rung:
                report = self._report(progress, private, done=False)
                self._record(report)
            # Before the report leaves: a new attempt from this checkpoint then takes no step again that has told something.
            if self._store is not None and (progress.step % runtime.checkpoint_every_steps == 0 or progress.step == rung):
                self._store.save_checkpoint(private.checkpoint(progress))
            if report is not None:
                yield report

    def private_steps(self) -> PrivateSteps:
        """The steps, none of them taken yet."""
        return PrivateSteps(self._prepared.terms.config, self._engine, self._mechanism())

    def _advanced(self, private: PrivateSteps, progress: Progress) -> Progress:
        """The progress after one step more.

        Raises:
            OutOfMemory: the step did not fit. The steps before it are in a checkpoint then: a new attempt takes none of them again.
        """
        try:
            return private.advance(progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self._store is not None and progress.step > newest_checkpoint_step(self._store.folder):
                self._store.save_checkpoint(private.checkpoint(progress))
            raise out_of_memory(f"step {progress.step + 1}", self._prepared.physical_batch_size) from error

    def _mechanism(self) -> Mechanism:
        prepared, config = self._prepared, self._prepared.terms.config
        private = None if config.is_control else self._streams
        return Mechanism(
            config,
            self._engine,
            sources=replace(prepared.sources, start_basis=None if prepared.basis is None else prepared.basis.basis),
            randomness=Randomness(private=private, public=PublicStreams(config.seed)),
            noise_multiplier=prepared.terms.noise_multiplier,
            physical_batch_size=prepared.physical_batch_size,
        )

    def _report(self, progress: Progress, private: PrivateSteps | None, *, done: bool) -> Report:
        """Scores the evaluated weights (the EMA's where set); leaves the training weights in the engine. Of a sealed run not even
        that it diverged is told: its weights hold no noise.

        Raises:
            Diverged: the weights are not finite. PCKh would count their keypoints as misses and hide it.
        """
        prepared = self._prepared
        if not prepared.handout.sealed and not bool(torch.isfinite(progress.evaluated).all()):
            raise Diverged(
                f"the weights diverged: after {progress.step} steps they hold numbers that are not finite; try a smaller learning rate"
            )
        self._engine.set_flat_weights(progress.evaluated)
        metrics = self._scores(done=done)
        digest = weights_digest({"tail": progress.evaluated})
        if not done:
            self._engine.set_flat_weights(progress.weights)
        spent = None if private is None else self._spent(private)
        if spent is not None:
            metrics |= {EPSILON_SPENT: spent.epsilon, NOISE_MULTIPLIER: spent.noise_multiplier}
        if private is not None and not prepared.data.protected:
            metrics |= private.observed()
        return Report(step=progress.step, done=done, metrics=metrics, weights_digest=digest, spent=spent)

    def _spent(self, private: PrivateSteps) -> Spent | None:
        """What the mechanism did so far under the plan; None where nothing was reserved."""
        plan, executed = self._prepared.plan, private.executed
        if plan is None or executed is None:
            return None
        return Spent(
            sampling_prob=executed.sampling_prob,
            noise_multiplier=executed.noise_multiplier,
            steps=executed.steps,
            planned_steps=self._config.stages.private.steps,
            delta=plan.delta,
            epsilon=epsilon_spent(plan, executed.steps, self._prepared.handout.places.cache_dir),
            relation=executed.relation,
        )

    def _scores(self, *, done: bool) -> dict[str, float]:
        """Scores of the weights in the engine. On PRIVATE validation data one noised score, of the final weights alone: a
        score more, of a joint or another step, would be another release."""
        data, release, rows = self._prepared.data.validation, self._prepared.handout.validation, self._prepared.scored_rows
        if release is None:
            return metrics_of(self._predictions(), dataset=data, per_joint=done, metric=self._prepared.handout.metric, rows=rows)
        if not done or self._streams is None:
            return {}
        units, metric = unit_ids(data, self._config.privacy_unit), self._prepared.handout.metric
        scores = unit_scores(self._predictions(), dataset=data, units=units if rows is None else units[rows], metric=metric, rows=rows)
        return {f"val/{metric}": release.noised(scores, self._streams.stream("validation", end_of(self._config)))}

    def _predictions(self) -> tuple[Tensor, Tensor]:
        """Keypoints of the validation people by the weights in the engine, under the evaluation of the config, and confidences."""
        return predict(self._engine.module, self._prepared.validation, self._prepared.reading)

    def _record(self, report: Report) -> None:
        if self._store is not None:
            self._store.record(report)

    def _finished(self, report: Report) -> Report:
        """Closes the books: last line, model, result. The evaluated weights are in the network now."""
        self._engine.close()
        self._record(report)
        if self._store is None:
            return report
        result = self._result(report)
        target = self._store.folder / MODEL_FOLDER
        if not target.exists():
            private, network = self._prepared.data.private, self._prepared.network
            margin, detector = private.manifest.box_scale, UprightDetector.of(self._config.data, self._prepared.handout.places)
            save_model(
                target,
                network,
                config=self._config,
                meta=result,
                skeleton=private.skeleton,
                box_scale=margin,
                detector=detector,
            )
        self._store.finish(result)
        return report

    def _result(self, report: Report) -> dict[str, Any]:
        config, plan = self._config, self._prepared.plan
        return {
            "trial_id": self._prepared.handout.trial_id,
            "method": config.method,
            "fingerprint": config.fingerprint(),
            "runtime": self._prepared.runtime.model_dump(mode="json"),
            "epsilon_target": config.epsilon if config.spends_privacy else None,
            "epsilon_spent": report.metrics.get("privacy/epsilon_spent"),
            "delta": config.delta if config.spends_privacy else None,
            "noise_multiplier": None if plan is None else plan.noise_multiplier,
            "pckh_50": report.metrics.get("val/pckh_50"),
            "pckh_10": report.metrics.get("val/pckh_10"),
            "metric": self._prepared.handout.metric,
            "score": report.metrics.get(f"val/{self._prepared.handout.metric}"),
            "steps": report.step,
            "seconds": None if self._prepared.data.protected else round(time.monotonic() - self._began, 3),
            "parameters": {"trained": self._engine.parameter_count, "all": sum(p.numel() for p in self._prepared.network.parameters())},
            "weights_digest": report.weights_digest,
            "metrics": dict(report.metrics),
            **({} if self._prepared.handout.people is None else {"people": self._prepared.handout.people.model_dump(mode="json")}),
        }
