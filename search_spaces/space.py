"""What may be tried: the typed schema of a space file and the draws that it admits.

A space is a partial `TrialConfig` (`trial`) and the dotted paths that are searched (`search`), which may differ per ε
(`search_at`). `constraints` are conditions on a whole trial that every draw must keep. A parameter with `when` is active
where all its keys match; an inactive one is absent from a draw, and its
field keeps TrialConfig's None. TrialConfig and the constraints judge combinations: a draw may still be refused by them.

Torch-free and Optuna-free. A sampler goes through `parameters_at` in order and asks `is_active`.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from dpcore.config import METHODS, AttackSettings, Method, Part, SplitConfig, TrialConfig, parse_config
from dpcore.config.metrics import METRICS, PCKH_50
from dpcore.config.scored_people import ScoredPeople
from search_spaces.constraints import Constraint, check_all
from search_spaces.regimes import REGIMES, Regime
from search_spaces.samplers import SAMPLERS, Sampler
from search_spaces.searchable import COMPARED_ALIKE, GEOMETRY, leaf_paths, why_not_searchable

Scalar = bool | int | float | str | None
Draw = dict[str, Scalar]
"""Dotted TrialConfig path → value, for the active parameters alone."""

HORIZON_PATH = "stages.private.steps"
STRATEGY_PATH = "model.freeze"
MOST_ALIKE = 32
"""Combinations of searched evaluations and sizes."""
SPENDING_PATHS = (HORIZON_PATH, "stages.private.expected_batch_size")
"""What of a draw decides, together with ε, how much a trial spends: q, the steps, and by them the noise."""


class _Parameter(Part):
    """What all parameters share: the condition under which they are active (all keys must match)."""

    model_config = ConfigDict(populate_by_name=True)

    when: dict[str, tuple[Scalar, ...]] = Field(
        default_factory=dict, description="searched only where all of these match: dotted path of a setting → value, or list of values"
    )

    @field_validator("when", mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            return when
        return {key: tuple(values) if isinstance(values, (list, tuple)) else (values,) for key, values in when.items()}


class Choice(_Parameter):
    """One of a finite list of values."""

    choice: tuple[Scalar, ...] = Field(min_length=1, description="the values, each once")

    @field_validator("choice")
    @classmethod
    def _distinct(cls, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if len({(type(value), value) for value in values}) != len(values):
            raise ValueError(f"values must differ, given {list(values)}")
        return values

    def value_at(self, fraction: float) -> Scalar:
        """The value at `fraction` ∈ [0, 1) of the list."""
        return self.choice[int(fraction * len(self.choice))]

    def contains(self, value: Scalar) -> bool:
        """Whether `value` is one of the list, type included (True is not 1)."""
        return any(type(value) is type(known) and value == known for known in self.choice)


class _Range(_Parameter):
    log: bool = Field(default=False, description="draw evenly on a logarithmic scale")

    def _check(self, low: float, high: float, least_log: float) -> None:
        if low > high:
            raise ValueError(f"bounds are reversed: give the smaller first, given [{low}, {high}]")
        if self.log and low < least_log:
            raise ValueError(f"log: true needs a lower bound of at least {least_log:g}, given {low}")


class IntRange(_Range):
    """Whole numbers between two bounds, both included."""

    bounds: tuple[int, int] = Field(alias="int", description="the smallest and the largest value, both included")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        self._check(*self.bounds, least_log=1)
        return self

    def value_at(self, fraction: float) -> Scalar:
        """The value at `fraction` ∈ [0, 1) of the range, on a log scale where `log`."""
        low, high = self.bounds
        if self.log:
            return min(high, max(low, int(math.exp(math.log(low) + fraction * (math.log(high + 1) - math.log(low))))))
        return low + int(fraction * (high - low + 1))

    def contains(self, value: Scalar) -> bool:
        """Whether `value` is a whole number within the bounds."""
        return isinstance(value, int) and not isinstance(value, bool) and self.bounds[0] <= value <= self.bounds[1]


class FloatRange(_Range):
    """Real numbers between two bounds, both included."""

    bounds: tuple[float, float] = Field(alias="float", description="the smallest and the largest value, both included")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        self._check(*self.bounds, least_log=math.ulp(0.0))
        return self

    def value_at(self, fraction: float) -> Scalar:
        """The value at `fraction` ∈ [0, 1) of the range, on a log scale where `log`."""
        low, high = self.bounds
        value = math.exp(math.log(low) + fraction * (math.log(high) - math.log(low))) if self.log else low + fraction * (high - low)
        return min(max(value, low), high)

    def contains(self, value: Scalar) -> bool:
        """Whether `value` is a number within the bounds."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.bounds[0] <= value <= self.bounds[1]


Parameter = Choice | IntRange | FloatRange
PARAMETER_KINDS: dict[str, type[Choice] | type[IntRange] | type[FloatRange]] = {"choice": Choice, "int": IntRange, "float": FloatRange}


MOST_MEAN_TRIALS = 500
"""Of a private selection: laws have long tails, and every draw is a trial that must run."""


class SelectionLaw(Part):
    """The law of the secret number of trials per ε under `private_selection` (Papernot and Steinke 2022): a truncated negative
    binomial of `shape` (1 geometric, 0 logarithmic), or Poisson (`inf`).

    `accountant`: what prices the selection. `rdp` is Papernot and Steinke's bound, `profile` that of Koskela, Redberg and Wang (2024),
    which is a quarter to a third lower for the first two laws."""

    mean_trials: float = Field(ge=1, le=MOST_MEAN_TRIALS, description="how many trials run at each ε on average")
    shape: Annotated[float, Field(ge=0)] | Literal["inf"] = Field(
        default=1.0, description="1 geometric, 0 logarithmic, inf Poisson; a larger shape varies less and costs more"
    )
    accountant: Literal["rdp", "profile"] = Field(default="rdp", description="what prices the selection: Rényi DP, or the privacy profile")

    @property
    def shape_number(self) -> float:
        """`shape`, with infinity as a number."""
        return math.inf if self.shape == "inf" else float(self.shape)

    def text(self) -> str:
        """For a person."""
        names = {0.0: "logarithmic", 1.0: "geometric", math.inf: "Poisson"}
        law = names.get(self.shape_number, f"truncated negative binomial of shape {self.shape_number:g}")
        return f"{law} law with mean {self.mean_trials:g}"


class StoppingSettings(Part):
    """Settings of a stopper; None: what suits it and the horizon."""

    grace_steps: int | None = Field(
        default=None,
        ge=1,
        description="private steps before the first decision; the first rung of asha, the least of halving. None: a tenth of the horizon",
    )
    reduction_factor: int | None = Field(
        default=None, ge=2, description="asha, halving: η; the best 1/η at a rung go on, to one η times as far. None: 3"
    )
    min_others: int | None = Field(default=None, ge=1, description="median: how many others must have come as far. None: 3")


class SweepSettings(Part):
    """How the search goes, for every ε. `accounting` has no default: what a sweep costs is somebody's decision."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"validation_search_frac", "method_shares", "total_epsilon"})

    epsilons: tuple[float, ...] = Field(
        min_length=1, description="ε that single trials spend; each has a search of its own. May be left out beside total_epsilon"
    )
    delta: float | None = Field(default=None, gt=0, lt=1, description="None: 1 / (10 data.nominal_examples)")
    trials_per_epsilon: int | None = Field(
        default=None, ge=1, description="None: the whole grid, for sampler grid; or drawn by `selection`"
    )
    sampler: Annotated[str, AfterValidator(SAMPLERS.checked)] = Field(
        default="tpe", description=f"what chooses the settings of trials: {', '.join(SAMPLERS.own)}"
    )
    method_shares: Literal["free", "equal"] = Field(
        default="free", description="equal: each method gets as many trials at an ε as any other, up to one; free: the sampler decides"
    )
    stopper: Literal["none", "asha", "median", "halving"] = Field(
        default="none", description="ends weak trials early; only halving saves privacy as well as time"
    )
    stopping: StoppingSettings | None = Field(default=None, description="None: the stopper's defaults")
    accounting: Annotated[str, AfterValidator(REGIMES.checked)] = Field(
        description=f"how the sweep pays for its search: {', '.join(REGIMES.own)}"
    )
    selection: SelectionLaw | None = Field(default=None, description="private_selection: the law of the number of trials")
    epsilon_total: float | None = Field(default=None, gt=0, description="cap on the ε of the whole sweep. None: no cap of its own")
    total_epsilon: float | None = Field(
        default=None,
        gt=0,
        description="one budget for choosing and training: the plan finds the largest ε of a trial that keeps the sweep within it",
    )
    metric: Annotated[str, AfterValidator(METRICS.checked)] = Field(
        default=PCKH_50, description=f"what the search maximises: {', '.join(METRICS.own)}"
    )
    validation: Literal["public", "private"] = Field(
        default="public", description="public: nothing is promised to the people who are scored on; private: scores are noised and charged"
    )
    validation_epsilon: float | None = Field(default=None, gt=0, description="private validation: of all its scores together")
    validation_units: int | None = Field(default=None, ge=1, description="private validation: nominal number of people, the divisor")
    validation_search_frac: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="about this share of the validation people scores the search; the others score references and fresh seeds. "
        "They are divided by their pictures' names, the same in every sweep. None: all people serve both",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_trial_spends_all_until_planned(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("epsilons") is not None or not isinstance(values.get("total_epsilon"), (int, float)):
            return values
        return {**values, "epsilons": [values["total_epsilon"]]}

    @field_validator("epsilons")
    @classmethod
    def _positive_and_distinct(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        for epsilon in epsilons:
            if epsilon <= 0:
                raise ValueError(f"every epsilon must be greater than 0, given {epsilon:g}")
        if len(set(epsilons)) != len(epsilons):
            raise ValueError(f"epsilons must differ, given {list(epsilons)}")
        return epsilons

    @model_validator(mode="after")
    def _stopper_sees_public_scores_and_fits(self) -> Self:
        settings = self.stopping or StoppingSettings()
        if self.stopper == "none":
            if self.stopping is not None:
                raise ValueError("stopping: these are a stopper's settings; leave them out, or set stopper asha, median or halving")
            return self
        if self.regime.is_selection:
            raise ValueError(
                f"stopper: {self.accounting} is priced for trials that do not depend on each other, and a stopper compares them; use none"
            )
        if self.validation == "private":
            raise ValueError(
                "stopper: with validation private one noised score of a run leaves, at its end; each score on the way would be a further "
                "release; use none, or declare the validation data public"
            )
        foreign = {"asha": "min_others", "halving": "min_others", "median": "reduction_factor"}[self.stopper]
        if getattr(settings, foreign) is not None:
            raise ValueError(f"stopping.{foreign}: stopper {self.stopper} does not have it; leave it out")
        return self

    @model_validator(mode="after")
    def _private_validation_is_paid_for(self) -> Self:
        settings = (self.validation_epsilon, self.validation_units)
        if self.validation == "private" and None in settings:
            raise ValueError("validation private needs validation_epsilon (of all scores together) and validation_units (nominal people)")
        if self.validation == "public" and settings != (None, None):
            raise ValueError("validation_epsilon and validation_units are for validation private: public scores cost nothing")
        if self.validation == "private" and METRICS.get(self.metric).people is None:
            raise ValueError(
                f"metric: {self.metric} is no mean over people, so one of them could move it by any amount; with "
                "validation private use a PCK, or declare the validation data public"
            )
        if self.validation == "private" and self.regime.public_scores is not None:
            raise ValueError(f"validation: {self.accounting} {self.regime.public_scores}; declare the validation data public")
        return self

    @model_validator(mode="after")
    def _number_of_trials(self) -> Self:
        if not self.regime.is_selection:
            if self.selection is not None:
                raise ValueError("selection: it is the law of private_selection; leave it out, or set accounting private_selection")
            if self.trials_per_epsilon is None and not self.sampler_traits.is_listed:
                raise ValueError(f"trials_per_epsilon: sampler {self.sampler} has no end of its own; give a number")
            return self
        if self.selection is None:
            raise ValueError(
                f"selection: {self.accounting} draws the number of trials; give its law, such as {{mean_trials: 10, shape: 1}}"
            )
        if self.trials_per_epsilon is not None:
            raise ValueError(f"trials_per_epsilon: {self.accounting} draws the number of trials from selection; set it to null")
        if self.sampler_traits.draws != "independent":
            raise ValueError(
                f"sampler: {self.accounting} is priced for independent draws, and {self.sampler} chooses draws by what came before or "
                "runs a fixed list; use random"
            )
        return self

    @model_validator(mode="after")
    def _shares_where_a_draw_can_be_steered(self) -> Self:
        if self.method_shares == "free":
            return self
        if self.regime.is_selection:
            raise ValueError(f"method_shares equal: {self.accounting} is priced for independent draws; leave it out")
        if self.sampler_traits.is_listed:
            raise ValueError(f"method_shares equal: sampler {self.sampler} has each point of its list once; leave it out")
        return self

    @model_validator(mode="after")
    def _budget_of_a_promise(self) -> Self:
        if self.total_epsilon is not None and not self.regime.is_promise:
            raise ValueError(f"total_epsilon: {self.accounting} promises nothing for the whole sweep; give composed, or another regime")
        return self

    @property
    def is_to_be_divided(self) -> bool:
        """Whether the ε of a trial is still to be found: it is left out, or is the whole budget."""
        return self.total_epsilon is not None and self.epsilons == (self.total_epsilon,)

    @property
    def sampler_traits(self) -> Sampler:
        """What `sampler` names."""
        return SAMPLERS.get(self.sampler)

    @property
    def regime(self) -> Regime:
        """What `accounting` names."""
        return REGIMES.get(self.accounting)

    @property
    def search_people(self) -> ScoredPeople | None:
        """Of whom scores of the search are counted; None: of all validation people."""
        return None if self.validation_search_frac is None else ScoredPeople(search_frac=self.validation_search_frac, part="search")

    @property
    def verdict_people(self) -> ScoredPeople | None:
        """Of whom scores of references and fresh seeds are counted; None: of all validation people."""
        return None if self.validation_search_frac is None else ScoredPeople(search_frac=self.validation_search_frac, part="verdict")


class References(Part):
    """Runs outside `trials_per_epsilon`: what a private result is compared with."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"seeds_of"})

    floor: bool = Field(default=True, description="train on PUBLIC people and public views alone: what costs no privacy")
    ceiling: bool | Literal["non_private"] | dict[str, Any] = Field(
        default=True,
        description="or the TrialConfig paths that the ceiling sets for itself; non_private: run on protected data, and sealed",
    )
    control: bool = Field(default=True, description="repeat the best feature run of each ε with its private part off")
    winner_seeds: int = Field(default=3, ge=0, description="reruns of each winner with fresh noise, charged like trials")
    seeds_of: Literal["winner", "each_method"] = Field(
        default="winner",
        description="each_method: the best trial of each private method has fresh seeds too, so that methods can be compared",
    )
    disclosure: bool | AttackSettings = Field(default=True, description="attack the public views of each split, on PUBLIC people")


def _is_a_condition(text: str) -> str:
    Constraint.parse(text)
    return text


class SpaceFile(Part):
    """A whole, checked space file. `search_spaces.loader.load_space` makes one; it also round-trips through JSON."""

    name: str = Field(description="the file's name without .yaml; a sweep is called so unless --name says otherwise")
    sweep: SweepSettings = Field(description="how the search goes and what it costs")
    references: References = Field(default=References(), description="what private results are compared with")
    splits: dict[str, SplitConfig] = Field(
        default_factory=dict, description="name → what of each picture counts as public: a decision of the data's owner"
    )
    trial: dict[str, Any] = Field(description="what is not searched: the keys of a trial")
    search: dict[str, Parameter] = Field(default_factory=dict, description="dotted path of a setting of `trial` → choice, int or float")
    search_at: dict[float, dict[str, Parameter]] = Field(
        default_factory=dict, description="ε → parameters that replace those of `search` there"
    )
    constraints: tuple[Annotated[str, AfterValidator(_is_a_condition)], ...] = Field(
        default=(), description="conditions on the settings of a trial that every draw must keep, such as clip_norm < 1 or method == dpsgd"
    )

    @model_validator(mode="after")
    def _draws_choose_nobodys_data(self) -> Self:
        """However the space came about: from a file, from Python, or from the spec of an earlier sweep."""
        for where, why in self.undeclared_paths():
            raise ValueError(f"{where}: {why}")
        return self

    @model_validator(mode="after")
    def _one_winner_of_a_selection(self) -> Self:
        if self.references.seeds_of == "each_method" and self.sweep.regime.is_selection:
            raise ValueError(f"references.seeds_of each_method: {self.sweep.accounting} releases one winner per ε; give winner")
        return self

    def undeclared_paths(self) -> Iterator[tuple[str, str]]:
        """What is searched, or set for the ceiling alone, and may not be: its place and why."""
        places: list[tuple[str, Iterable[str]]] = [("search", self.search)]
        places += [(f"search_at.{e:g}", parameters) for e, parameters in self.search_at.items()]
        if isinstance(self.references.ceiling, dict):
            places.append(("references.ceiling", leaf_paths(self.references.ceiling)))
        for where, paths in places:
            for path in paths:
                why = why_not_searchable(path)
                if why is None and where == "references.ceiling" and path in COMPARED_ALIKE:
                    why = "a ceiling is scored as the runs that it is compared with: fix or search it for all"
                if why is not None:
                    yield f"{where}.{path}", why

    @model_validator(mode="after")
    def _what_is_compared_can_be_compared(self) -> Self:
        """Searched evaluations and sizes are few, since each has floors and a ceiling of its own, and no public view depends on them."""
        for where, parameters in [("search", self.search), *((f"search_at.{e:g}", one) for e, one in self.search_at.items())]:
            for path in sorted(parameters.keys() & COMPARED_ALIKE):
                self._check_alike(f"{where}.{path}", path, parameters[path])
        count = len(self.alike)
        if count > MOST_ALIKE:
            raise ValueError(
                f"search: {count} combinations of evaluation and input, each with floors and a ceiling of its own; {MOST_ALIKE} at most"
            )
        return self

    def _check_alike(self, where: str, path: str, parameter: Parameter) -> None:
        if not isinstance(parameter, Choice):
            raise ValueError(f"{where}: each value has floors and a ceiling of its own, so give a choice, not a range")
        if parameter.when:
            raise ValueError(f"{where}: leave `when` out: all runs have it, floors and ceiling too")
        if path in GEOMETRY and self.splits_in_use:
            raise ValueError(
                f"{where}: a split's strength is in px of what the network reads, so each size would publish another view of each record; "
                "fix it in trial"
            )
        if path in GEOMETRY - {"model.crop_zoom"} and None in self._choices("model.crop_zoom"):
            raise ValueError(f"{where}: give model.crop_zoom (1 shows whole crops), so that crops are resized to each size")

    @property
    def delta(self) -> float:
        """δ of the sweep and of all its numbers."""
        if self.sweep.delta is not None:
            return self.sweep.delta
        return 1 / (10 * int(value_at(self.trial, "data.nominal_examples")))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that a draw can have at some ε."""
        return tuple(map(str, self._possible("method")))

    def methods_at(self, epsilon: float) -> tuple[str, ...]:
        """The methods that a draw can have at one ε."""
        parameter = self.parameters_at(epsilon).get("method")
        found = parameter.choice if isinstance(parameter, Choice) else (value_at(self.trial, "method"),)
        return tuple(str(method) for method in found if method is not None)

    def shares_at(self, epsilon: float, trials: int) -> dict[str, int]:
        """Method → its number of `trials` at an ε; the first ones of the space get what is left over. Empty where the sampler decides."""
        methods = self.methods_at(epsilon)
        if self.sweep.method_shares == "free" or len(methods) < 2:
            return {}
        each, left = divmod(trials, len(methods))
        return {method: each + (place < left) for place, method in enumerate(methods)}

    def reruns_at(self, epsilon: float) -> int:
        """How many fresh seeds are planned at an ε."""
        private = [method for method in self.methods_at(epsilon) if method in self.private_methods]
        return self.references.winner_seeds * (len(private) if self.references.seeds_of == "each_method" and private else 1)

    @property
    def splits_in_use(self) -> tuple[SplitConfig, ...]:
        """The splits that a draw can have at some ε: each has a floor of its own."""
        return tuple(self.splits[str(name)] for name in self._possible("split"))

    @property
    def strategies(self) -> tuple[str, ...]:
        """What of the network a draw may train (`model.freeze`), where a search moves it: each has a floor and a ceiling of its own."""
        is_searched = any(STRATEGY_PATH in self.parameters_at(epsilon) for epsilon in self.sweep.epsilons)
        return tuple(map(str, self._possible(STRATEGY_PATH))) if is_searched else ()

    @property
    def alike(self) -> tuple[Draw, ...]:
        """Every combination of searched evaluations and sizes (`COMPARED_ALIKE`); one empty one where none is searched."""
        searched = {path for epsilon in self.sweep.epsilons for path in self.parameters_at(epsilon)}
        choices = {path: self._choices(path) for path in sorted(searched & COMPARED_ALIKE)}
        return tuple(dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))

    @property
    def has_feature_methods(self) -> bool:
        """Whether a control can exist: only a feature method has a private part to switch off."""
        return any(method.uses_views for method in self._known_methods)

    @property
    def private_methods(self) -> tuple[str, ...]:
        """Those of `methods` that spend a finite ε."""
        return tuple(method.name for method in self._known_methods if method.is_private)

    @property
    def unbounded_methods(self) -> tuple[str, ...]:
        """Those of `methods` that release gradients as they are."""
        return tuple(method.name for method in self._known_methods if method.is_unbounded)

    @property
    def _known_methods(self) -> list[Method]:
        return [method for method in map(METHODS.find, self.methods) if method is not None]

    @property
    def stopping_grace_steps(self) -> int:
        """Private steps before which a stopper leaves every trial alone."""
        given = (self.sweep.stopping or StoppingSettings()).grace_steps
        return math.ceil(int(value_at(self.trial, HORIZON_PATH)) / 10) if given is None else given

    @property
    def searches_spending(self) -> bool:
        """Whether q or the steps are searched at some ε: then an RDP filter prices the sweep, as PLD needs them fixed."""
        return any(path in self.parameters_at(epsilon) for epsilon in self.sweep.epsilons for path in SPENDING_PATHS)

    @property
    def largest_rank(self) -> int | None:
        """The largest number that `subspace.rank` has in a draw at some ε; None where it has none."""
        ranges = [self.parameters_at(epsilon).get("subspace.rank") for epsilon in self.sweep.epsilons]
        ends = [parameter.bounds[1] for parameter in ranges if isinstance(parameter, IntRange)]
        return max([*ends, *(rank for rank in self._possible("subspace.rank") if type(rank) is int)], default=None)

    def _choices(self, path: str) -> tuple[Scalar, ...]:
        """The values that draws have at a path of choices; where it is not searched, the fixed one."""
        parameters = [self.parameters_at(epsilon).get(path) for epsilon in self.sweep.epsilons]
        values = [one.choice if isinstance(one, Choice) else (value_at(self.trial, path),) for one in parameters]
        return tuple(dict.fromkeys(itertools.chain.from_iterable(values)))

    def _possible(self, path: str) -> tuple[Scalar, ...]:
        parameters = [self.parameters_at(epsilon).get(path) for epsilon in self.sweep.epsilons]
        drawn = itertools.chain.from_iterable(p.choice for p in parameters if isinstance(p, Choice))
        return tuple(v for v in dict.fromkeys([*drawn, value_at(self.trial, path)]) if v is not None)

    def parameters_at(self, epsilon: float) -> dict[str, Parameter]:
        """The searched parameters at `epsilon`, each after those that its condition reads."""
        parameters = {**self.search, **self.search_at.get(epsilon, {})}
        ordered: dict[str, Parameter] = {}
        while len(ordered) < len(parameters):
            ready = [p for p in parameters if p not in ordered and not (parameters[p].when.keys() & parameters.keys()) - ordered.keys()]
            if not ready:
                raise ValueError(f"conditions form a cycle: {', '.join(sorted(parameters.keys() - ordered.keys()))}")
            ordered.update({path: parameters[path] for path in ready})
        return ordered

    def is_active(self, parameter: Parameter, draw: Mapping[str, Scalar]) -> bool:
        """Whether `parameter` has a value, given the values drawn before it and those fixed in `trial`."""
        for key, allowed in parameter.when.items():
            if key in self.search and key not in draw:
                return False  # its own parent is inactive
            value = draw[key] if key in draw else value_at(self.trial, key)
            if not any(type(value) is type(known) and value == known for known in allowed):
                return False
        return True

    def contains(self, epsilon: float, draw: Mapping[str, Scalar]) -> bool:
        """Whether `draw` has exactly the active parameters at `epsilon`, each within its bounds."""
        active = {path: p for path, p in self.parameters_at(epsilon).items() if self.is_active(p, draw)}
        return active.keys() == draw.keys() and all(p.contains(draw[path]) for path, p in active.items())

    def draw(self, epsilon: float, generator: random.Random, *, forced: Mapping[str, Scalar] | None = None) -> Draw:
        """An independent, uniform draw; `forced` values replace the drawn ones where their parameter is active."""
        draw: Draw = {}
        for path, parameter in self.parameters_at(epsilon).items():
            if self.is_active(parameter, draw):
                fraction = generator.random()
                draw[path] = forced[path] if forced and path in forced else parameter.value_at(fraction)
        return draw

    def grid(self, epsilon: float) -> Iterator[Draw]:
        """Every distinct draw of a space of choices.

        Raises:
            ValueError: a parameter is a range.
        """
        partial: list[Draw] = [{}]
        for path, parameter in self.parameters_at(epsilon).items():
            if not isinstance(parameter, Choice):
                raise ValueError(f"search.{path}: a grid needs choices, given a range")
            grown = ([{**d, path: v} for v in parameter.choice] if self.is_active(parameter, d) else [d] for d in partial)
            partial = list(itertools.chain.from_iterable(grown))
        return iter(partial)

    def trial_config(self, epsilon: float | None, draw: Mapping[str, Scalar], *, overrides: Mapping[str, Any] | None = None) -> TrialConfig:
        """The whole config of one trial: `trial`, then `draw`, then `overrides`; split names become SplitConfigs.

        Raises:
            BadInput: TrialConfig refuses the combination, or it breaks a constraint (`ConstraintBroken`); the message is the rule.
        """
        config = parse_config(TrialConfig, self.trial_values(epsilon, draw, overrides=overrides))
        check_all(self.constraints, config)
        return config

    @property
    def unconstrained(self) -> SpaceFile:
        """The space without its constraints. It admits every draw that this one admits, so what bounds its draws bounds those of
        this space; a few random draws of it show every method, however rare a constraint makes it."""
        return self.model_copy(update={"constraints": ()})

    def trial_values(
        self, epsilon: float | None, draw: Mapping[str, Scalar], *, overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The unchecked values behind `trial_config`."""
        values = copy.deepcopy(self.trial)
        for path, value in {**draw, **(overrides or {})}.items():
            set_value(values, path, value)
        method = METHODS.find(values.get("method"))
        if epsilon is not None and method is not None and method.is_private:
            values.update(epsilon=epsilon, delta=self.delta)
        if isinstance(values.get("split"), str) and values["split"] in self.splits:
            values["split"] = self.splits[values["split"]].model_dump(mode="json")
        return values

    def document(self) -> dict[str, Any]:
        """As plain JSON values; `SpaceFile.model_validate` is the way back. What came after version 0.1.0 is left out at its default, so
        that what is hashed of an earlier space stays what it was."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude=None if self.constraints else {"constraints"})
        for name, part in (("sweep", self.sweep), ("references", self.references)):
            for field in part.ADDED:
                if getattr(part, field) == type(part).model_fields[field].get_default(call_default_factory=True):
                    del found[name][field]
        return found


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    node: Any = values
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def set_value(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets a dotted path in place, making the dicts on the way."""
    *parents, leaf = path.split(".")
    node = values
    for parent in parents:
        below = node.get(parent)
        if not isinstance(below, dict):
            below = node[parent] = {}
        node = below
    node[leaf] = value
