"""What optuna-dashboard shows of a study beside its trials: the name of its metric, and where the sweep can be looked at."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from optuna.exceptions import ExperimentalWarning

if TYPE_CHECKING:
    from optuna.study import Study

    from sweeps.records.spec import SweepSpec

REPORT, RUNS, SWEEP = "report", "MLflow", "sweep"
"""Attributes of a study, under which the dashboard lists them."""


def describe_study(study: Study, spec: SweepSpec) -> None:
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
