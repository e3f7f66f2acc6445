"""Writes the lines that a person sees while a sweep runs."""

from __future__ import annotations

from dpcore.config.metrics import PCKH_50
from sweeps.pricing.halving import waits
from sweeps.records.results import TrialRecord, title_of


def progress_line(record: TrialRecord, *, finished: int, planned: int) -> str:
    """The line for the end of a trial (id, method, score, spent ε, seconds, progress) or for a retry (reason and cost)."""
    parts = [f"[{finished}/{planned}]", f"{record.trial_id:<16}", f"{record.config.method:<17}"]
    if record.state == "done" and record.score is not None:
        parts += [_score(record), f"ε {_spent(record)}"]
        parts += [f"{record.seconds:.1f} s"] if record.seconds else []  # protected data have no durations
    elif record.state == "done":
        parts.append("sealed: a ceiling without privacy was run; its result is not shown")
    elif record.state == "pruned":
        score = _score(record)
        on_rung = record.plan is not None and record.plan.until is not None
        full = ", charged up to there" if on_rung else ", charged in full"
        charged = full if record.config.spends_privacy else ""
        parts.append(f"{score}  stopped early at step {record.steps} of {record.config.stages.private.steps}{charged}")
    elif record.state == "failed":
        parts.append(f"failed: {record.error}")
    elif waits(record):
        parts.append(f"waits for the others at step {record.steps} of {record.config.stages.private.steps}")
    elif record.attempt:
        batch = "" if record.physical_batch_size is None else f", {record.physical_batch_size} examples at once"
        parts.append(
            f"attempt {record.attempt} continues from step {record.from_step} with fresh noise{batch}, charged again: {record.error}"
        )
    else:
        parts.append(f"continues from its checkpoint: {record.error}")
    return "  ".join(parts)


def _score(record: TrialRecord) -> str:
    title = "PCKh" if record.metric == PCKH_50 else title_of(record.metric)
    return "no score" if record.score is None else f"{title} {100 * record.score:5.1f} %"


def _spent(record: TrialRecord) -> str:
    if record.config.traits.is_unbounded:
        return "∞"
    return "0" if not record.epsilon_spent else f"{record.epsilon_spent:.3f}"
