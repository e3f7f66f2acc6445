"""From a search space and options to the spec of a sweep: the same whether a command or a program gives them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from dpcore.config import Places, RuntimeFlags, did_you_mean, parse_config
from dpcore.errors import BadInput
from search_spaces.loader import load_space
from search_spaces.space import SpaceFile
from sweeps.records.spec import DEFAULT_STORAGE, SweepSpec


class SweepOptions(TypedDict, total=False):
    """What may be said of a sweep beside its space. Named like the flags of `dpsweep run`; None is the default, as if not given.

    Attributes:
        name: of the sweep; default: the space's.
        epsilons, trials: instead of `sweep.epsilons` and `sweep.trials_per_epsilon` (per ε).
        set: paths of the space to fix, as `{"clip_norm": 0.1}` or `["clip_norm=0.1"]`.
        seed: of what is public: initialisation, public batches, the search.
        address: of a running Ray (`auto`, HOST:PORT); default: one of its own.
        max_concurrent: trials at a time. max_failures: retries of a trial whose worker died.
        trial_timeout: seconds; a trial that reports nothing for so long is ended, and retried as if its worker had died. Default: measured.
        cpus_per_trial, gpus_per_trial: what each trial holds of Ray; threads and device follow from them.
        storage: folder of the sweeps or a bucket's URI; default: ./sweep_results. state: folder of study, key and spool.
        tracking_uri: an MLflow server or database; credentials in it go to MLflow's environment variables and are not stored.
        study_storage: URL of a database for Optuna's studies. ledger: SQLAlchemy URL of the ledger.
        warm_start: an earlier sweep of the storage, whose best settings come first.
        data_dir, cache_dir: as for `Places.of`.
        runtime: how trials are executed, instead of what follows from CPUs, GPUs and stopper (Python alone).
        trial_function: what runs instead of a training: a function of a module that workers can import, or `module:function`
            (Python alone).
    """

    name: str | None
    epsilons: Sequence[float] | None
    trials: int | None
    set: Sequence[str] | Mapping[str, Any] | None
    seed: int | None
    address: str | None
    max_concurrent: int | None
    cpus_per_trial: float | None
    gpus_per_trial: float | None
    max_failures: int | None
    trial_timeout: float | None
    storage: str | Path | None
    state: str | Path | None
    tracking_uri: str | None
    study_storage: str | None
    ledger: str | None
    warm_start: str | None
    data_dir: str | Path | None
    cache_dir: str | Path | None
    runtime: RuntimeFlags | None
    trial_function: str | Callable[..., Iterator[Any]] | None


OF_THE_SPACE = ("epsilons", "trials", "set")
FIELD_OF = {"study_storage": "study_url", "ledger": "ledger_url", "trial_timeout": "trial_timeout_s"}
"""Options whose field of the spec has another name."""
COPIED = ("name", "seed", "address", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "max_failures", "storage", "state", "runtime")


def new_spec(space: str | Path | SpaceFile, **options: Unpack[SweepOptions]) -> SweepSpec:
    """The spec of a new sweep. Writes nothing; a warm start reads the earlier sweep.

    Args:
        space: a preset's name, the path of a space file, or what `load_space` gave.
        **options: see `SweepOptions`.

    Raises:
        BadInput: a mistake in the space or an option, one line each.

    >>> spec = new_spec("quick", epsilons=[0.8], trials=4, gpus_per_trial=1)
    >>> spec.name, spec.space.sweep.epsilons, spec.runtime.device
    ('quick', (0.8,), 'cuda')
    """
    given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - SweepOptions.__annotations__.keys():
        raise BadInput(f"{option}: unknown option{did_you_mean(option, list(SweepOptions.__annotations__))}")
    places = Places.of(given.get("data_dir"), given.get("cache_dir"))
    loaded = _with_its_epsilon(_space(space, given), places)
    values: dict[str, Any] = {"name": loaded.name, "storage": DEFAULT_STORAGE, "space": loaded}
    values |= {option: given[option] for option in COPIED if option in given}
    values |= {field: given[option] for option, field in FIELD_OF.items() if option in given}
    values["places"] = places
    if "tracking_uri" in given:
        from sweeps.tracking.mlflow_connection import take_credentials

        values["tracking_uri"] = take_credentials(given["tracking_uri"])
    if "trial_function" in given:
        values["trial_function"] = name_of_function(given["trial_function"])
    spec = parse_config(SweepSpec, values)
    if "warm_start" not in given:
        return spec
    from sweeps.search.warm_start import with_warm_start

    return with_warm_start(spec, given["warm_start"], say=lambda line: print(line, file=sys.stderr))


def spec_of(space: str | Path | SpaceFile | SweepSpec, options: SweepOptions) -> SweepSpec:
    """`space` itself where it is a spec already, else the spec of it and the options.

    Raises:
        BadInput: as `new_spec`, or a spec was given with options.
    """
    if not isinstance(space, SweepSpec):
        return new_spec(space, **options)
    if options:
        raise BadInput(f"{', '.join(sorted(options))}: a spec has its options already; give them to new_spec")
    return space


def name_of_function(function: str | Callable[..., Iterator[Any]]) -> str:
    """`module:function`, as a worker imports it. A function of the running script has the script's own name as module.

    Raises:
        BadInput: a worker could not import it: it stands in another function or a class, or in no file.
    """
    if isinstance(function, str):
        return function
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = "" if file is None else Path(file).stem
    if not module or not name.isidentifier():
        raise BadInput(f"trial_function {name or function!r}: workers import it, so it must be a function of a module (a .py file)")
    return f"{module}:{name}"


def _with_its_epsilon(space: SpaceFile, places: Places) -> SpaceFile:
    """The space with the ε of its trials, where one budget for choosing and training decides it."""
    if space.sweep.total_epsilon is None:
        return space
    from sweeps.pricing.one_budget import divided
    from sweeps.pricing.plan import dp_accountant

    return divided(space, dp_accountant(places.cache_dir), places.cache_dir)


def _space(space: str | Path | SpaceFile, given: Mapping[str, Any]) -> SpaceFile:
    if not isinstance(space, SpaceFile):
        return load_space(space, assignments=given.get("set", ()), epsilons=given.get("epsilons"), trials=given.get("trials"))
    late = [option for option in OF_THE_SPACE if option in given]
    if late:
        raise BadInput(f"{', '.join(late)}: the space is loaded already; give them to load_space (set is its assignments)")
    return space
