"""The way into dpsweep from Python: what the command line does, as functions with types.

    import dpsweep

    print(dpsweep.epsilon(sampling_prob=0.01, steps=1000, delta=1e-5, noise_multiplier=5.0))
    results = dpsweep.run("quick", epsilons=[0.8, 2.0], trials=4, name="first")
    results.best(0.8)

`import dpsweep` costs milliseconds: each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpcore.errors import (
        BadInput,
        Corrupt,
        DiskFull,
        Diverged,
        DpsweepError,
        NotReplayable,
        OutOfMemory,
        Refused,
        Unavailable,
    )
    from search_spaces.loader import load_space
    from sweeps.api.calculators import epsilon, score
    from sweeps.api.changing import delete, extend, pause, retry
    from sweeps.api.ledgers import LedgerReading, read_ledger
    from sweeps.api.looking import compare, export_tables, list_sweeps, logs
    from sweeps.api.models import Exported, export, predict
    from sweeps.api.results import Results, WrittenReport, best, read_results, report
    from sweeps.api.specs import SweepOptions, new_spec
    from sweeps.api.starting import Begun, init
    from sweeps.api.sweep import Advice, Plan, advise, cancel, plan, resume, run, status
    from sweeps.api.trials import Trained, claim, evaluate, pretrain, train
    from sweeps.api.weights import import_movenet, import_onnx, list_weights
    from sweeps.ledger.ledger import Ledger
    from sweeps.models.claims import ModelClaim
    from sweeps.models.keypoints.people import PredictedPeople, PredictedPerson
    from sweeps.pricing.budget import Budget
    from sweeps.records.results import TrialRecord
    from sweeps.records.spec import SweepSpec
    from sweeps.remote.notifying import notified
    from sweeps.report.overview.listing import SweepLine
    from sweeps.report.overview.side_by_side import SideBySide

_ERRORS = ("BadInput", "Corrupt", "DiskFull", "Diverged", "DpsweepError", "NotReplayable", "OutOfMemory", "Refused", "Unavailable")
_NAMES_IN = {
    "dpcore.errors": _ERRORS,
    "search_spaces.loader": ("load_space",),
    "sweeps.api.calculators": ("epsilon", "score"),
    "sweeps.api.changing": ("delete", "extend", "pause", "retry"),
    "sweeps.api.ledgers": ("LedgerReading", "read_ledger"),
    "sweeps.api.looking": ("compare", "export_tables", "list_sweeps", "logs"),
    "sweeps.api.models": ("Exported", "export", "predict"),
    "sweeps.remote.notifying": ("notified",),
    "sweeps.api.results": ("Results", "WrittenReport", "best", "read_results", "report"),
    "sweeps.api.specs": ("SweepOptions", "new_spec"),
    "sweeps.api.starting": ("Begun", "init"),
    "sweeps.api.sweep": ("Advice", "Plan", "advise", "cancel", "plan", "resume", "run", "status"),
    "sweeps.api.trials": ("Trained", "claim", "evaluate", "pretrain", "train"),
    "sweeps.api.weights": ("import_movenet", "import_onnx", "list_weights"),
    "sweeps.models.claims": ("ModelClaim",),
    "sweeps.models.keypoints.people": ("PredictedPeople", "PredictedPerson"),
    "sweeps.ledger.ledger": ("Ledger",),
    "sweeps.pricing.budget": ("Budget",),
    "sweeps.records.results": ("TrialRecord",),
    "sweeps.records.spec": ("SweepSpec",),
    "sweeps.report.overview.listing": ("SweepLine",),
    "sweeps.report.overview.side_by_side": ("SideBySide",),
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}

__all__ = [
    "Advice",
    "BadInput",
    "Begun",
    "Budget",
    "Corrupt",
    "DiskFull",
    "Diverged",
    "DpsweepError",
    "Exported",
    "Ledger",
    "LedgerReading",
    "ModelClaim",
    "NotReplayable",
    "OutOfMemory",
    "Plan",
    "PredictedPeople",
    "PredictedPerson",
    "Refused",
    "Results",
    "SideBySide",
    "SweepLine",
    "SweepOptions",
    "SweepSpec",
    "Trained",
    "TrialRecord",
    "Unavailable",
    "WrittenReport",
    "advise",
    "best",
    "cancel",
    "claim",
    "compare",
    "delete",
    "epsilon",
    "evaluate",
    "export",
    "export_tables",
    "extend",
    "import_movenet",
    "import_onnx",
    "init",
    "list_sweeps",
    "list_weights",
    "load_space",
    "logs",
    "new_spec",
    "notified",
    "pause",
    "plan",
    "predict",
    "pretrain",
    "read_ledger",
    "read_results",
    "report",
    "resume",
    "retry",
    "run",
    "score",
    "status",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used.

    Raises:
        AttributeError: there is no such name. ForeignPackage: a package of dpsweep's was replaced.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("dpsweep")
    if name not in _MODULE_OF:
        raise AttributeError(f"module dpsweep has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    from dpsweep.neighbours import check_neighbours

    check_neighbours()
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
