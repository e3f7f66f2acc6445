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
    from sweeps.ledger.ledger import Ledger
    from sweeps.records.spec import SweepSpec

_ERRORS = ("BadInput", "Corrupt", "DiskFull", "Diverged", "DpsweepError", "NotReplayable", "OutOfMemory", "Refused", "Unavailable")
_MODULE_OF = {
    **dict.fromkeys(_ERRORS, "dpcore.errors"),
    "load_space": "search_spaces.loader",
    "Ledger": "sweeps.ledger.ledger",
    "SweepSpec": "sweeps.records.spec",
}

__all__ = [
    "BadInput",
    "Corrupt",
    "DiskFull",
    "Diverged",
    "DpsweepError",
    "Ledger",
    "NotReplayable",
    "OutOfMemory",
    "Refused",
    "SweepSpec",
    "Unavailable",
    "load_space",
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
