"""The memory of a search: one Optuna study per ε and one of the references, in a journal file of the sweep or a database.

Every trial that is handed out is a trial of a study, with its record's plan as user attributes, so that a resume needs
no other source. Told once: COMPLETE with its score, FAIL, or PRUNED: a trial that was stopped early, with its intermediate values, or
a draw that TrialConfig or a constraint of the space refused (without a record: never scheduled, never counted).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dpcore.durable import summed
from dpcore.errors import BadInput, Refused
from search_spaces.admission import admissible_grid, is_admissible
from search_spaces.constraints import ConstraintBroken
from search_spaces.space import Choice, Draw, FloatRange, Parameter, Scalar, value_at
from sweeps.pricing.plan import trials_at
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SELECTED, SweepSpec
from sweeps.records.trial_id import TrialId, epsilon_name, study_of
from sweeps.search.remembered import END, RECORD, REPLACED, is_replaced, record_of
from sweeps.search.samplers import Request, build_sampler
from sweeps.search.storage import open_storage
from sweeps.search.tpe import STARTUP

REDRAWS = 50
REFERENCES = "references"
FIRST_DRAWS = "first_draws"
"""Attribute of a study whose first draws are enqueued."""
NEIGHBOUR, NEIGHBOURS_BEST = "neighbour", 2
"""Attribute of a study that has been given so many of its neighbour's best settings: the neighbour's ε."""
RETRY_OF = "retry_of"
"""Attribute of a trial that tries the settings of a failed one again: whose."""
FIXED_PARAMS = "fixed_params"
"""Where Optuna keeps the draw that an enqueued trial is to try."""
SEALED_VALUE = 0.0
"""What a study holds of a sealed run: Optuna has no COMPLETE without a value."""
REPORT, RUNS, SWEEP = "report", "MLflow", "sweep"
"""Attributes of a study, under which optuna-dashboard lists where the sweep can be looked at."""


Planned = Callable[[TrialRecord], TrialRecord]


@dataclass(frozen=True)
class _Place:
    """Where a record lies: its study, its number there, and the storage's id of it."""

    study: Study
    number: int
    storage_id: int


class Studies:
    """All studies of a sweep. One process at a time: the driver that holds the sweep's lock. `timed`: whether they may say when a
    trial began and ended. `planned`: gives a drawn record its plan, which is remembered with it."""

    def __init__(
        self, spec: SweepSpec, *, timed: bool = True, planned: Callable[[TrialRecord], TrialRecord] = lambda record: record
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._planned = planned
        self._storage, self._together = open_storage(spec, timed=timed)
        self._studies: dict[float, Study] = {}
        with self._together():
            for epsilon in spec.space.sweep.epsilons:
                self._studies[epsilon] = self._open(epsilon)
            self._references = self._open(None)
            self._enqueue_again()
        self._places = {
            record_of(trial, where=self._spec.studies_at).trial_id: self._place(study, trial.number)
            for study in (*self._studies.values(), self._references)
            for trial in study.get_trials(deepcopy=False)
            if RECORD in trial.user_attrs
        }

    def ask(self, epsilon: float, number: int, *, room: Mapping[str, int] | None = None) -> TrialRecord:
        """A new draw at `epsilon` as a planned record.

        Args:
            epsilon: of the study.
            number: of the trial.
            room: how many trials more each method gets, the next one's first; None: the sampler chooses the method. Settings that wait, of
                a neighbour or an earlier sweep, go first; those of a method without room are left out.

        Raises:
            BadInput: 50 draws in a row were refused by TrialConfig or the constraints; the message is the last rule.
        """
        study, rule = self._studies[epsilon], ""
        for _ in range(REDRAWS):
            with self._together():
                self._ask_the_neighbour(epsilon)
                if room is not None and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                    study.enqueue_trial({"method": next(method for method, left in room.items() if left > 0)})
                trial = study.ask()
                draw = self._suggest(trial, epsilon)
                if room is not None and room.get(str(draw.get("method")), 0) <= 0:
                    rule = f"method {draw.get('method')} has had its share of the trials"
                    trial.set_user_attr("refused", rule)
                    study.tell(trial, state=TrialState.PRUNED)
                    continue
                try:
                    config = self._spec.space.trial_config(epsilon, draw, overrides=self._seed())
                except BadInput as refusal:
                    trial.set_constraint("constraints" if isinstance(refusal, ConstraintBroken) else "trial_config", 1.0)
                    trial.set_user_attr("refused", str(refusal))
                    study.tell(trial, state=TrialState.PRUNED)
                    rule = str(refusal)
                    continue
                trial_id = str(TrialId.search(epsilon, number))
                record = self._planned(
                    TrialRecord(trial_id=trial_id, role="search", number=number, epsilon=epsilon, config=config, metric=self._spec.metric)
                )
                self._remember(study, trial.number, record)
                return record
        raise BadInput(f"search at epsilon {epsilon:g}: {REDRAWS} draws in a row were refused, the last because: {rule}")

    def scores(self, trial_id: str) -> dict[int, float]:
        """The score of a trial by step, as it was reported, of the latest attempt that came to that step."""
        return dict(self._storage.get_trial(self._places[trial_id].storage_id).intermediate_values)

    def final_score(self, trial_id: str) -> float | None:
        """The score that a trial was told to have ended with; None where it was told none."""
        value = self._storage.get_trial(self._places[trial_id].storage_id).value
        return None if value is None else float(value)

    def add_reference(self, record: TrialRecord) -> None:
        """Remembers a run outside the search."""
        study = self._references
        with self._together():
            self._remember(study, study.ask().number, record)

    def select(self, epsilon: float, winner: TrialRecord | None) -> None:
        """Remembers that the private selection of an ε is over, and its winner; again after a crash it changes nothing."""
        study = self._studies[epsilon]
        with self._together():
            if winner is not None and winner.trial_id not in self._places:
                self._remember(study, study.ask().number, winner)
            if winner is not None and self._storage.get_trial(self._places[winner.trial_id].storage_id).state == TrialState.RUNNING:
                self.tell(winner)
            study.set_user_attr(SELECTED, True)

    def is_selected(self, epsilon: float) -> bool:
        """Whether the private selection of an ε is over."""
        return bool(self._studies[epsilon].user_attrs.get(SELECTED))

    def report(self, record: TrialRecord) -> None:
        """The last point of the record's curve as an intermediate value; a score that is no number is left out."""
        if record.score is not None:
            self._storage.set_trial_intermediate_value(self._places[record.trial_id].storage_id, record.steps, record.score)

    def new_attempt(self, record: TrialRecord) -> None:
        """Remembers from where the record goes on with other randomness."""
        attempt: dict[str, Any] = {name: getattr(record, name) for name in ("attempt", "from_step", "physical_batch_size")}
        attempt["plan"] = None if record.plan is None else asdict(record.plan)
        self._storage.set_trial_user_attr(self._places[record.trial_id].storage_id, "attempt", summed(attempt))

    def tell(self, record: TrialRecord, *, replaced: bool = False) -> None:
        """The end of a record: COMPLETE with its score, PRUNED or FAIL. `replaced`: it no longer counts, another takes its place."""
        place = self._places[record.trial_id]
        end = {"seconds": record.seconds, "error": record.error, REPLACED: replaced, **({} if record.fulfilled else {"fulfilled": False})}
        with self._together():
            self._storage.set_trial_user_attr(place.storage_id, END, summed(end))
            if record.state == "done":
                place.study.tell(place.number, SEALED_VALUE if record.is_sealed else record.score)
            else:
                place.study.tell(place.number, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)

    def records(self) -> Iterator[tuple[TrialRecord, bool]]:
        """What the studies remember, in the order of hand-out within a study, each with whether it was replaced.

        Curves are not here. A trial that was asked but never became a record (a crash in between) is told FAIL; a draw that it was
        to try is enqueued again.
        """
        for study in (*self._studies.values(), self._references):
            for trial in study.get_trials(deepcopy=False):
                if RECORD in trial.user_attrs:
                    yield record_of(trial, where=self._spec.studies_at), is_replaced(trial)
                elif trial.state == TrialState.RUNNING:
                    study.tell(trial.number, state=TrialState.FAIL)
                    if (planned := trial.system_attrs.get(FIXED_PARAMS)) is not None:
                        study.enqueue_trial(planned)

    def _open(self, epsilon: float | None) -> Study:
        name = f"{self._spec.name}/{REFERENCES if epsilon is None else study_of(epsilon)}"
        known = {study.study_name for study in self._storage.get_all_studies()}
        there = name in known
        if epsilon is not None and not there:
            self._refuse_rounded_name(epsilon, known)
        if not there:
            optuna.create_study(study_name=name, storage=self._storage, direction=StudyDirection.MAXIMIZE)
        study = optuna.load_study(study_name=name, storage=self._storage, sampler=RandomSampler())
        _describe(study, self._spec)
        study.sampler = self._sampler(study, epsilon)
        if epsilon is not None and FIRST_DRAWS not in study.user_attrs:
            for draw in self._first_draws(epsilon):
                study.enqueue_trial(dict(draw), skip_if_exists=there)
            study.set_user_attr(FIRST_DRAWS, True)
        return study

    def _enqueue_again(self) -> None:
        """The settings of each failed search trial that was set aside, to be tried again; once, however often a driver begins."""
        for study in self._studies.values() if self._spec.set_aside else ():
            trials = study.get_trials(deepcopy=False)
            known = {trial.user_attrs.get(RETRY_OF) for trial in trials}
            for trial in trials:
                name = record_of(trial, where=self._spec.studies_at).trial_id if RECORD in trial.user_attrs else None
                if name in self._spec.set_aside and name not in known:
                    study.enqueue_trial(dict(trial.params), user_attrs={RETRY_OF: name})

    def _refuse_rounded_name(self, epsilon: float, known: Collection[str]) -> None:
        """Stops a resume that would search an ε again whose trials lie under a rounded name.

        Raises:
            Refused: dpsweep 0.1.0 began the sweep, and wrote the ε with six digits.
        """
        rounded = f"epsilon-{epsilon:g}"
        if f"{self._spec.name}/{rounded}" in known and rounded not in map(study_of, self._spec.space.sweep.epsilons):
            raise Refused(
                f"sweep {self._spec.name} was begun by dpsweep 0.1.0, which named ε = {epsilon_name(epsilon)} by six digits ({rounded}); "
                "finish it with that version, or start a sweep of another --name"
            )

    def _first_draws(self, epsilon: float) -> list[Draw]:
        """What a new study tries first: the whole grid, or for an adaptive sampler what an earlier sweep found and then each searched
        method once, the rest of the draw open.

        Random draws stay independent and identically distributed.
        """
        sampler, earlier = self._spec.space.sweep.sampler_traits, self._spec.warm_start
        if not sampler.is_adaptive:
            return self._grid(epsilon) if sampler.is_listed else []
        found = [] if earlier is None else list(earlier.draws.get(epsilon, ()))
        method = self._spec.space.parameters_at(epsilon).get("method")
        return [*found, *({"method": value} for value in method.choice)] if isinstance(method, Choice) else found

    def _sampler(self, study: Study, epsilon: float | None) -> BaseSampler:
        """Seeded by study and by how many trials it has, so that a resumed search does not draw its first draws again."""
        count = len(study.get_trials(deepcopy=False))
        digest = hashlib.sha256(f"{self._spec.seed}|{study.study_name}|{count}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if epsilon is None:
            return RandomSampler(seed=seed)
        distributions = {path: distribution_of(parameter) for path, parameter in self._spec.space.parameters_at(epsilon).items()}
        request = Request(epsilon=epsilon, distributions=distributions, studies=self._studies, seed=seed)
        return build_sampler(self._spec.space.sweep.sampler_traits, request)

    def _ask_the_neighbour(self, epsilon: float) -> None:
        """Enqueues, once, the best settings of the nearest ε, when both studies are past their start-up.

        Adaptive samplers alone: other draws are independent. The flag is set last and a draw that is there is not enqueued again, so
        that a kill in between neither loses nor doubles one.
        """
        study = self._studies[epsilon]
        others = [other for other in self._studies if other != epsilon]
        if not self._spec.space.sweep.sampler_traits.is_adaptive or not others or NEIGHBOUR in study.user_attrs:
            return
        nearest = min(others, key=lambda other: abs(math.log(other / epsilon)))
        if any(_scored(self._studies[one]) < STARTUP for one in (epsilon, nearest)):
            return
        for draw in itertools.islice(self._good_draws(nearest, epsilon), NEIGHBOURS_BEST):
            study.enqueue_trial(dict(draw), user_attrs={"from": self._studies[nearest].study_name}, skip_if_exists=True)
        study.set_user_attr(NEIGHBOUR, nearest)

    def _good_draws(self, source: float, epsilon: float) -> Iterator[Draw]:
        """The draws of `source` that are admissible at `epsilon`, the best first, each once."""
        found: list[Draw] = []
        for trial in sorted(_completed(self._studies[source]), key=lambda one: one.value or 0.0, reverse=True):
            draw: Draw = dict(trial.params)
            if draw not in found and is_admissible(self._spec.space, epsilon, draw):
                found.append(draw)
                yield draw

    def _grid(self, epsilon: float) -> list[Draw]:
        points = admissible_grid(self._spec.space, epsilon)
        random.Random(self._spec.seed).shuffle(points)
        return points[: trials_at(self._spec.space, epsilon)]

    def _suggest(self, trial: optuna.Trial, epsilon: float) -> Draw:
        space, draw = self._spec.space, Draw()
        for path, parameter in space.parameters_at(epsilon).items():
            if space.is_active(parameter, draw):
                draw[path] = suggest(trial, path, parameter)
        return draw

    def _seed(self) -> dict[str, int]:
        return {} if value_at(self._spec.space.trial, "seed") is not None else {"seed": self._spec.seed}

    def _remember(self, study: Study, number: int, record: TrialRecord) -> None:
        plan = {
            "trial_id": record.trial_id,
            "role": record.role,
            "number": record.number,
            "epsilon": record.epsilon,
            "config": record.config.model_dump(mode="json"),
            "plan": None if record.plan is None else asdict(record.plan),
        }
        place = self._places[record.trial_id] = self._place(study, number)
        self._storage.set_trial_user_attr(place.storage_id, RECORD, json.dumps(summed(plan)))

    def _place(self, study: Study, number: int) -> _Place:
        study_id = self._storage.get_study_id_from_name(study.study_name)
        return _Place(study, number, self._storage.get_trial_id_from_study_id_trial_number(study_id, number))


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """A parameter as Optuna's distribution, the very one that `suggest` gives."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.choice)
    if isinstance(parameter, FloatRange):
        return FloatDistribution(*parameter.bounds, log=parameter.log)
    return IntDistribution(*parameter.bounds, log=parameter.log)


def suggest(trial: optuna.Trial, path: str, parameter: Parameter) -> Scalar:
    """A parameter's value from Optuna."""
    if isinstance(parameter, Choice):
        chosen: Scalar = trial.suggest_categorical(path, parameter.choice)
        return chosen
    if isinstance(parameter, FloatRange):
        return trial.suggest_float(path, *parameter.bounds, log=parameter.log)
    return trial.suggest_int(path, *parameter.bounds, log=parameter.log)


def _scored(study: Study) -> int:
    """How many trials have ended with a score, those that were stopped early included: TPE fits on all of them."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sum(trial.value is not None for trial in ended)


def _completed(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _describe(study: Study, spec: SweepSpec) -> None:
    """Names the objective, and says where report and runs are; once per study.

    Nothing of it tells of a person: it is said before the first trial.
    """
    if study.metric_names is not None:
        return
    study.set_user_attr(SWEEP, spec.name)
    study.set_user_attr(REPORT, f"dpsweep report {spec.name} --storage {spec.storage}")
    study.set_user_attr(RUNS, spec.tracking_uri or f"dpsweep ui --storage {spec.storage}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # experimental since optuna 3.2
        study.set_metric_names([spec.metric])
