"""Breaks the project on purpose, one patch at a time, and asks a named test to notice.

A mutant is a patch in this folder. Its header says which rule it breaks, where the fault comes from, the kind of its
detector and the tests that must fail under it; the same tests must pass without it. `make mutants` runs all of them and writes
the table under benchmarks/results/mutants.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants"
SOURCES = ("dpcore", "dpsweep", "search_spaces", "sweeps", "cluster", "tests", "benchmarks", "pyproject.toml")
KINDS = ("config refused", "law test", "inclusion counts", "membership read-off", "sensitivity pair", "audit", "direct test")
TIMEOUT_S = 300
AT_ONCE = 2
PRELOADED = (
    "torch",
    "numpy",
    "scipy.stats",
    "pyarrow.parquet",
    "pydantic",
    "optuna",
    "sqlalchemy",
    "dp_accounting.pld.privacy_loss_distribution",
)
"""What the tests import and no patch touches: loaded once, in the process from which each run is forked."""
BROKEN = ("NameError", "ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "UnboundLocalError")
"""What a patch raises that no longer fits the code around it."""
TESTS_FAILED = 1
"""pytest's exit code where tests ran and some failed; any other one is no detection."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One patch.

    Attributes:
        rule: what must hold, and does not under the patch. source: where this fault was seen.
        kind: of the detector. detectors: pytest node ids, each of which must fail.
    """

    name: str
    path: Path
    rule: str
    source: str
    kind: str
    detectors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a mutant: the detectors that failed, the first reason given, and the seconds that it took."""

    mutant: Mutant
    caught_by: tuple[str, ...]
    reason: str
    seconds: float

    @property
    def died(self) -> bool:
        """Whether every named detector failed."""
        return set(self.caught_by) == set(self.mutant.detectors)


@dataclass(eq=False)  # pytest keeps its plugins in sets
class Outcome:
    """What a run of pytest found. `failed`: by node id, why. `said`: what it printed."""

    code: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pytest calls it after each phase of each test."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            words = str(report.longrepr) if crash is None else str(crash.message)
            self.failed.setdefault(report.nodeid, next(iter(words.splitlines()), ""))


def load_mutants(folder: Path = HERE) -> tuple[Mutant, ...]:
    """All mutants, by name.

    Raises:
        ValueError: a header line is missing or its kind is unknown.
    """
    return tuple(_load(path) for path in sorted(folder.glob("*.patch")))


def _load(path: Path) -> Mutant:
    header = path.read_text().partition("\n--- ")[0].splitlines()
    fields: dict[str, list[str]] = {}
    for line in header:
        key, _, value = line.partition(": ")
        fields.setdefault(key, []).append(value.strip())
    missing = [key for key in ("Rule", "Source", "Kind", "Detector") if key not in fields]
    if missing or fields["Kind"][0] not in KINDS:
        raise ValueError(f"{path.name}: expected Rule, Source, Kind (one of {', '.join(KINDS)}) and Detector lines, given {header}")
    return Mutant(
        name=path.stem.replace("_", " "),
        path=path,
        rule=fields["Rule"][0],
        source=fields["Source"][0],
        kind=fields["Kind"][0],
        detectors=tuple(fields["Detector"]),
    )


def applies(mutant: Mutant, *, root: Path = ROOT) -> str:
    """An empty text where the patch fits the sources as they are, else what git says."""
    return _git_apply(mutant, root, "--check")


def run_mutant(mutant: Mutant) -> Verdict:
    """Applies the patch to a copy of the sources and runs its detectors there, in this process: call it in one of its own.

    Raises:
        RuntimeError: the patch does not apply, or the tests could not be run (a mutant must break a rule, not an import).
    """
    began = time.monotonic()
    with _copied_sources() as copy:
        refusal = _git_apply(mutant, copy)
        if refusal:
            raise RuntimeError(f"{mutant.path.name} does not apply: {refusal}")
        outcome = run_tests(mutant.detectors, copy)
    if outcome.code not in (0, TESTS_FAILED):
        raise RuntimeError(f"the detectors {', '.join(mutant.detectors)} could not be run: {outcome.said[-4000:]}")
    # A detector may be one case of a parametrised test, or the test with all its cases.
    caught = tuple(node for node in mutant.detectors if any(one == node or one.startswith(f"{node}[") for one in outcome.failed))
    reason = next(iter(outcome.failed.values()), "")
    if reason.startswith(BROKEN):
        raise RuntimeError(f"{mutant.path.name} breaks the code and no rule ({reason}): make it anew")
    return Verdict(mutant=mutant, caught_by=caught, reason=reason[:160], seconds=time.monotonic() - began)


def run_tests(nodes: Sequence[str], root: Path) -> Outcome:
    """Runs tests on the sources below `root`, in this process.

    Raises:
        RuntimeError: the process has imported some of the sources, so that a patch would change nothing.
    """
    loaded = [name for name in SOURCES if name in sys.modules]
    if loaded:
        raise RuntimeError(f"{', '.join(loaded)} is imported here already: run each mutant in a process of its own")
    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = str(root)
    outcome, said = Outcome(), io.StringIO()
    with redirect_stdout(said):
        outcome.code = int(pytest.main(["-p", "no:cacheprovider", "--timeout", str(TIMEOUT_S), *nodes], plugins=[outcome]))
    outcome.said = said.getvalue()
    return outcome


def survivors_without_a_patch(mutants: Sequence[Mutant]) -> str:
    """Runs all detectors on the sources as they are; an empty text where they pass, else pytest's words."""
    nodes = sorted({node for mutant in mutants for node in mutant.detectors})
    with _processes() as pool:
        outcomes = list(pool.map(run_tests, (nodes[::AT_ONCE], nodes[1::AT_ONCE]), (ROOT, ROOT)))
    return "".join(outcome.said[-4000:] for outcome in outcomes if outcome.code)


def run_all(mutants: Sequence[Mutant]) -> list[Verdict]:
    """Runs mutants, two at once, each in a fresh process, in order."""
    with _processes() as pool:
        return list(pool.map(run_mutant, mutants))


def _processes() -> ProcessPoolExecutor:
    """Forks a process per run from one that has loaded the libraries and nothing of ours: a second instead of six."""
    os.environ.update({"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"})
    os.environ.setdefault("DPSWEEP_SHARED", str(ROOT.parent / "shared"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return ProcessPoolExecutor(AT_ONCE, mp_context=context, max_tasks_per_child=1)


def table(verdicts: Sequence[Verdict]) -> str:
    """The result in Markdown."""
    lines = [
        "# Mutants: what was broken, and what caught it",
        "",
        f"{sum(v.died for v in verdicts)} of {len(verdicts)} died. Made by `make mutants` from the patches in tests/mutants; without its",
        "patch each detector passes.",
        "",
        "| mutant | rule it breaks | seen where | kind of detector | caught by | its words |",
        "|---|---|---|---|---|---|",
    ]
    for v in verdicts:
        caught = "<br>".join(node.removeprefix("tests/") for node in v.caught_by) if v.died else "**survived**"
        words = v.reason.replace("|", "\\|")
        lines.append(f"| {v.mutant.name} | {v.mutant.rule} | {v.mutant.source} | {v.mutant.kind} | {caught} | {words} |")
    return "\n".join(lines) + "\n"


def _git_apply(mutant: Mutant, root: Path, *options: str) -> str:
    """git as a patch tool: the copy lies in no repository."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent)}
    command = ["git", "apply", *options, str(mutant.path)]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False).stderr.strip()


def document(verdicts: Sequence[Verdict]) -> str:
    """The result as JSON."""
    rows = [
        {"mutant": v.mutant.name, "rule": v.mutant.rule, "kind": v.mutant.kind, "caught_by": list(v.caught_by), "died": v.died}
        for v in verdicts
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


@contextmanager
def _copied_sources() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dpsweep-mutant-") as folder:
        copy = Path(folder) / "project"
        copy.mkdir()
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("results", "*.patch"))
            else:
                shutil.copy2(source, copy / name)
        yield copy


def main() -> int:
    """Runs all mutants and writes the table; 1 where one survives."""
    mutants = load_mutants()
    wrong = survivors_without_a_patch(mutants)
    if wrong:
        print(f"detectors fail without any patch:\n{wrong}", file=sys.stderr)
        return 1
    verdicts = run_all(mutants)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "README.md").write_text(table(verdicts))
    (RESULTS / "mutants.json").write_text(document(verdicts))
    for v in verdicts:
        print(f"{'died    ' if v.died else 'SURVIVED'} {v.seconds:6.1f} s  {v.mutant.name}")
    return 0 if all(v.died for v in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
