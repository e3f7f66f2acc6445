"""The sealed ceiling: training without privacy on protected data. Only the fact that it ran is shown.

`references.ceiling: non_private` requests it by name. Its folder lies below the sweep's state, in a folder of mode 0700. At the end only
a file of mode 0600 with the score remains. The worker reports only its end, so Ray, Optuna, MLflow, tables, figures and terminal have
nothing to show. The ledger records it as a run without noise. Showing the score is a release without privacy: the ledger records that
first, and from then on the sweep's ε is ∞.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import TrialConfig
from dpcore.config.metrics import METRICS
from dpcore.durable import OWNER_ONLY, append_lines, replace_file
from dpcore.errors import BadInput, Refused, Unavailable
from sweeps.ledger.ledger import Reservation
from sweeps.records.charged import open_ledger
from sweeps.records.results import CurvePoint, SweepResults

if TYPE_CHECKING:
    from sweeps.records.spec import SweepSpec

ERRORS_FILE = "errors.txt"
SEALED_SCORES = tuple(f"val/{name}" for name in METRICS.own)


def make_sealed_folder(folder: Path) -> None:
    """Creates the folder of a sealed trial with mode 0700, like its parent.

    Raises:
        Refused: the sweep's state is not on this machine, so nobody would find the sealed score.
    """
    if not folder.parent.parent.is_dir():
        raise Refused(
            f"a sealed run writes below {folder.parent.parent}, which does not exist on this worker; give --state a folder that all "
            "workers share, or set references.ceiling=false"
        )
    for made in (folder.parent, folder):
        made.mkdir(mode=0o700, exist_ok=True)
        made.chmod(0o700)


def keep_error(folder: Path, trial_id: str, error: str) -> None:
    """Appends the full text of a failure to a file of mode 0600 below `folder`. It may quote a record, but a person needs it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    append_lines(folder / ERRORS_FILE, [f"{trial_id}: {error}"], mode=OWNER_ONLY)


def score_file(folder: Path) -> Path:
    """The file that holds the score of the sealed trial in `folder`."""
    return folder.with_name(f"{folder.name}.json")


def seal(folder: Path, metrics: Mapping[str, float]) -> None:
    """Writes a finished trial's scores to a file of mode 0600 and removes everything else, also the weights."""
    scores = {name: metrics[name] for name in SEALED_SCORES if name in metrics}
    replace_file(score_file(folder), json.dumps(scores).encode(), mode=OWNER_ONLY)
    shutil.rmtree(folder)


def sealed_reservation(config: TrialConfig, *, sweep: str, trial_id: str, attempt: int, cohort: str, key_id: str) -> Reservation:
    """The reservation of a run without privacy: gradients without noise, infinite ε. Its δ is only a placeholder."""
    return Reservation(
        sweep=sweep,
        trial_id=trial_id,
        attempt=attempt,
        dataset=config.data.private,
        cohort=cohort,
        event="non_private",
        sampling_prob=config.sampling_prob,
        noise_multiplier=0.0,
        steps=config.stages.private.steps,
        epsilon=None,
        delta=1 / (10 * config.data.nominal_examples),
        fingerprint=config.fingerprint(),
        key_id=key_id,
        unit=config.privacy_unit,
        examples_per_unit=config.examples_per_unit,
        views="[]",
        labels="private",
    )


def was_unsealed(spec: SweepSpec) -> bool:
    """Whether the sweep's ceiling was ever shown."""
    ledger = open_ledger(spec, read_only=True)
    ledger.require_whole()
    return any(line.kind == "unseal" for line in ledger.lines(sweep=spec.name))


def unseal_ceiling(results: SweepResults, spec: SweepSpec) -> SweepResults:
    """The results with the ceiling's score. The ledger records first that it is shown.

    Raises:
        BadInput: no ceiling was sealed.
        Unavailable: its file is not on this machine.
        Refused: a cap is set.
    """
    done = [record for record in results.of_role("sealed_ceiling") if record.state == "done"]
    if not done:
        raise BadInput(f"sweep {spec.name} has no finished sealed ceiling: there is nothing to show")
    record = done[-1]
    path = score_file(spec.sealed_dir / record.trial_id)
    if not path.is_file():
        raise Unavailable(f"{path} is not there: the score was sealed on another machine, or removed")
    ledger = open_ledger(spec, must_exist=True)
    (line,) = (one for one in ledger.lines(sweep=spec.name) if one.run == (spec.name, *record.run) and one.kind == "reserve")
    ledger.unseal(line, cap=spec.space.sweep.epsilon_total)
    scores = json.loads(path.read_text(encoding="utf-8"))
    shown = replace(record, role="ceiling", pckh_50=scores.get("val/pckh_50"), pckh_10=scores.get("val/pckh_10"))
    if shown.score is None:
        shown = replace(shown, curve=(*shown.curve, CurvePoint(shown.steps, scores)))
    return replace(results, records=tuple(shown if one is record else one for one in results.records))
