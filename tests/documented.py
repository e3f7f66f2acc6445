"""The commands that README and docs print, in order, and why some of them are not run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "cluster" / "README.md", ROOT / "CONTRIBUTING.md"]
PROGRAMS = (
    "dpsweep", "make", "pip", "npm", "python3?", "optuna-dashboard", "ray", "docker", "kubectl", "sbatch", "export", "source", "sh", "bash",
)  # fmt: skip
PROGRAM = re.compile(rf"^ {{4}}((?:\(umask|(?:\.venv/bin/)?(?:{'|'.join(PROGRAMS)}))(?: .*)?)$")
BENCHMARK = "needs the pictures of a benchmark, which has terms of use"

NOT_RUN = {
    r"make (sweep|install)": "sets up a machine: benchmarks/first_walk.py runs it from a fresh clone",
    r"make (test|check|docs)|make test-slow|make mutants|bash \.ci/run": "it is what runs this test, or stands beside it in .ci/run",
    r"source \.venv/bin/activate": "changes the shell; the commands below it are run as they are printed",
    r"pip install": "changes the environment that runs this test; tests/cluster/test_pins.py holds the extras",
    r"npm pack": "fetches from a registry",
    r"dpsweep (data import|pretrain|run|report) .*(lspet|mpii|coco/|paper_grid)|python benchmarks/advice_order": BENCHMARK,
    r"dpsweep weights (import|list)": "needs the files of another project; tests/weights runs it on some that it makes",
    r"dpsweep (pretrain|run) own\.yaml": "tests/e2e/test_networks_e2e.py runs it",
    r"dpsweep export .*--onnx": "tests/sweeps/models runs it; a registered model is exported like a folder",
    r"dpsweep audit": "takes minutes: tests/audit runs it",
    r"dpsweep ui|optuna-dashboard": "serves until Ctrl-C: tests/e2e/test_pages_e2e.py looks at its pages",
    r"dpsweep run quick --tracking-uri": "needs a server: tests/cluster/test_mlflow_server.py runs it",
    r"dpsweep (submit|doctor)|ray |docker |kubectl |sbatch |\(umask": "needs a cluster: tests/cluster runs what a machine allows",
    r"export ": "holds a password or a token that is made up",
}
"""Pattern of a command's beginning → why no test runs it."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a page."""

    page: str
    text: str

    @property
    def excuse(self) -> str | None:
        """Why it is not run; None: it is."""
        return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, self.text)), None)


def commands_of(page: Path) -> list[Command]:
    """The commands of a page's code blocks, without their comments; a line that ends in a backslash goes on."""
    text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
    name = page.relative_to(ROOT).as_posix()
    found = (PROGRAM.match(line) for line in text.splitlines())
    return [Command(page=name, text=re.sub(r"\s+# .*$", "", one[1]).strip()) for one in found if one is not None]


def all_commands() -> list[Command]:
    """Every command of every page."""
    return [command for page in PAGES for command in commands_of(page)]


def python_blocks(page: Path) -> list[str]:
    """The fenced blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
