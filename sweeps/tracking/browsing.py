"""What a person who browses MLflow reads: names and descriptions of runs, their columns, the note of the experiment, and links.

Nothing here decides what may leave: numbers pass `allow_list` first, and texts are those of the report and of the claims.

| where | what stands there |
|---|---|
| name of a run | ε, score, method and trial: `ε 0.8 · 61.9 % · dpsgd · e0.8-003`. MLflow cuts long names off, so the score comes first |
| description of a run, of a version | its claim |
| params | what the space searches; the rest of the config is the artifact config.yaml |
| note of the experiment | verdict, price and the winners' claims, with links to the report and to the winners |
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.space import value_at
from sweeps.records.export import render_yaml
from sweeps.records.trial_id import epsilon_name

if TYPE_CHECKING:
    from dpcore.config import TrialConfig
    from search_spaces.space import SpaceFile
    from sweeps.records.results import SweepResults
    from sweeps.report.comparison import Comparison
    from sweeps.report.contact_sheet import ContactSheet

SWEEP_ID_TAG = "sweep_id"
"""Of an experiment: which sweep of its name it is."""
NOTE_TAG = "mlflow.note.content"
NOTE_LENGTH = 5000
"""Characters that MLflow keeps of a tag of an experiment."""
RUN_LINK = re.compile(r"\(run:(?P<key>[^()/]+)(?:/(?P<artifact>[^()]+))?\)")
"""A link to a run or to one of its artifacts, before it is known what MLflow calls the run."""
TRAINING_PAGES = "workflowType=machine_learning"
"""Without it, MLflow 3 opens an experiment as one of language models, and shows no run."""


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep says at its end.

    Attributes:
        results: priced.
        text: the report as Markdown.
        comparisons: winner, floor, control and ceiling of each ε.
        verdicts: one sentence per ε, in their order.
        price: what the sweep cost, in sentences.
        pages: the report as whole pages (report.html).
        figures: pictures and tables of the report.
        sheets: contact sheets of the winners.
    """

    results: SweepResults
    text: str
    comparisons: Sequence[Comparison] = ()
    verdicts: Sequence[str] = ()
    price: Sequence[str] = ()
    pages: Sequence[Path] = ()
    figures: Sequence[Path] = ()
    sheets: Sequence[ContactSheet] = ()


def epsilon_tag(config: TrialConfig) -> str:
    """ε target as a tag: a number, `inf` without privacy, or `0` if nothing private is read."""
    if config.traits.is_unbounded:
        return "inf"
    return epsilon_name(config.epsilon) if config.spends_privacy and config.epsilon is not None else "0"


def run_name(*, epsilon: str, method: str, trial_id: str, score: float | None = None) -> str:
    """The name of a trial's run.

    Args:
        epsilon: as its tag says it: a number, `0` or `inf`.
        score: a fraction that may leave; None before there is one.

    >>> run_name(epsilon="0.8", method="dpsgd", trial_id="e0.8-003", score=0.6193)
    'ε 0.8 · 61.9 % · dpsgd · e0.8-003'
    >>> run_name(epsilon="inf", method="nonprivate", trial_id="ceiling")
    'ε ∞ · nonprivate · ceiling'
    """
    shown = "∞" if epsilon == "inf" else f"{float(epsilon):.4g}"
    reached = [] if score is None else [f"{100 * score:.1f} %"]
    return " · ".join([f"ε {shown}", *reached, method, trial_id])


def parent_name(comparison: Comparison) -> str:
    """The name of the parent run of an ε once the sweep is over."""
    name = f"ε {epsilon_name(comparison.epsilon)}"
    winner = comparison.winner
    score = comparison.seed_mean if comparison.winner_score is None else comparison.winner_score
    if winner is None or score is None:
        return f"{name} · no winner"
    return f"{name} · {100 * score:.1f} % · {winner.config.method}"


def parent_metrics(comparison: Comparison, *, price: float | None) -> dict[str, float]:
    """What the parent run of an ε shows as metrics; what is not known is left out. Not yet held against the allow-list."""
    winner = comparison.winner
    if winner is None:
        return {}
    scores = {
        "best": comparison.winner_score,
        "seeds": comparison.seed_mean,
        "floor": comparison.floor,
        "control": comparison.control,
        "ceiling": comparison.ceiling,
    }
    named = {f"{what}/{winner.metric}": score for what, score in scores.items()}
    named |= {"best/epsilon_spent": winner.epsilon_spent, "price/epsilon": price}
    return {name: value for name, value in named.items() if value is not None}


def experiment_note(*, verdicts: Sequence[str], price: Sequence[str], claims: Mapping[str, str], pages: Sequence[str] = ()) -> str:
    """The note of an experiment, in Markdown, with links that `linked` completes. Of a folded note MLflow shows the first line: a verdict.

    A claim that MLflow would cut off is left out whole: the link leads to its run, whose description it is.

    Args:
        claims: trial id of each winner → its claim.
        pages: names of the report's pages among the artifacts of `summary`.
    """
    lines = [line for verdict in verdicts for line in (verdict, "")]
    links = ", ".join(f"[{name}](run:summary/{name})" for name in (*pages, "report.md"))
    lines += [f"The report: {links}", "", "**Price**", "", *[f"- {line}" for line in price], ""]
    for trial_id, claim in claims.items():
        heading = f"**Claim of [{trial_id}](run:{trial_id})**"
        written = "\n".join([*lines, heading, "", claim])
        room = NOTE_LENGTH - 300 * (1 + len(pages) + len(claims)) - len(written)
        lines += [heading, "", claim if room > 0 else "It stands in the description of that run.", ""]
    return "\n".join(lines).rstrip() + "\n"


def linked(text: str, *, experiment_id: str, run_of: Callable[[str], str]) -> str:
    """The text with the links of MLflow's pages. `run_of`: key → id of the run.

    >>> linked("[report](run:summary/report.md)", experiment_id="3", run_of=lambda key: "ab12")
    '[report](#/experiments/3/runs/ab12/artifacts/report.md?workflowType=machine_learning)'
    """

    def of(found: re.Match[str]) -> str:
        below = "" if found["artifact"] is None else f"/artifacts/{found['artifact']}"
        return f"(#/experiments/{experiment_id}/runs/{run_of(found['key'])}{below}?{TRAINING_PAGES})"

    return RUN_LINK.sub(of, text)


def experiment_url(server: str, experiment_id: str) -> str:
    """The page of a server that lists the runs of an experiment."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{TRAINING_PAGES}"


def searched_params(space: SpaceFile, config: TrialConfig) -> dict[str, str]:
    """Dotted path → value, as text, of what the space searches at any ε and the trial has. A split goes by its name."""
    values = config.model_dump(mode="json")
    paths = dict.fromkeys([*space.search, *(path for one in space.search_at.values() for path in one)])
    found = {path: value_at(values, path) for path in paths}
    return {path: _as_text(value) for path, value in found.items() if value is not None}


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("name", value)
    return value if isinstance(value, str) else json.dumps(value)


def config_yaml(config: TrialConfig) -> str:
    """The config as YAML text. Sections are cached, because most are equal in all trials of a sweep and rendering is slow."""
    return "".join(_section_yaml(name, json.dumps(value)) for name, value in config.model_dump(mode="json").items())


@functools.lru_cache(maxsize=256)
def _section_yaml(name: str, value: str) -> str:
    return render_yaml({name: json.loads(value)})
