"""Every command by name: its group in `dpsweep --help`, one line on it, and the module that declares it.

`dpsweep COMMAND` imports that one module, and `dpsweep --help` none: each costs a tenth of a second, and typed words should not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command. `module` lies below `sweeps.commands` and has `add_parsers`."""

    name: str
    group: str
    help: str
    module: str


BEGIN, RUN, LOOK, MODEL, COMPUTE, CLUSTER = (
    "begin",
    "run a sweep",
    "look at sweeps",
    "take a model out",
    "compute without a sweep",
    "machines and shell",
)

_TABLE = (
    ("init", BEGIN, "write a commented space that fits your data", "starting.init_command"),
    ("data", BEGIN, "import, make, inspect, draw and purge datasets", "datasets"),
    ("weights", BEGIN, "make and list folded networks with public weights", "weights_command"),
    ("advise", BEGIN, "which methods can pay at which ε, from PUBLIC data alone", "starting.advise_command"),
    ("run", RUN, "sweep a search space; --dry-run shows plan and price", "sweep_commands"),
    ("resume", RUN, "go on with a sweep that was interrupted or paused", "sweep_commands"),
    ("extend", RUN, "go on with a finished sweep: more trials, more ε, priced anew", "lifecycle.changing"),
    ("retry", RUN, "run trials again that failed, charged again", "lifecycle.changing"),
    ("pause", RUN, "let the running trials end, and start no other", "lifecycle.changing"),
    ("cancel", RUN, "end a running sweep, or one trial of it", "sweep_commands"),
    ("list", LOOK, "all sweeps of a storage: state, best, price, age", "lifecycle.looking"),
    ("status", LOOK, "how far a sweep is; --watch follows it", "sweep_commands"),
    ("logs", LOOK, "what a sweep or a trial said", "lifecycle.looking"),
    ("report", LOOK, "write a page with answers, figures and the price of a sweep", "sweep_commands"),
    ("compare", LOOK, "two sweeps side by side: settings, scores, prices", "lifecycle.looking"),
    ("ledger", LOOK, "what was promised to the private dataset", "sweep_commands"),
    ("ui", LOOK, "serve MLflow's pages on this machine", "cluster_commands"),
    ("delete", LOOK, "remove a sweep's files; its ledger lines stay", "lifecycle.changing"),
    ("best", MODEL, "write the winner's settings at an ε to a file", "trial_commands"),
    ("train", MODEL, "train these settings with fresh noise; the ledger is charged", "trial_commands"),
    ("evaluate", MODEL, "score a model on a dataset", "trial_commands"),
    ("predict", MODEL, "keypoints on your pictures", "model_commands"),
    ("export", MODEL, "a model as a folder or ONNX; a sweep's tables as CSV", "model_commands"),
    ("claim", MODEL, "what a model promises, and what choosing it cost", "trial_commands"),
    ("pretrain", MODEL, "run only the public stage and score it", "trial_commands"),
    ("epsilon", COMPUTE, "a budget calculator", "calculators"),
    ("score", COMPUTE, "PCKh of predictions from any program", "calculators"),
    ("audit", COMPUTE, "attack a claim with synthetic canaries", "audit_command"),
    ("submit", CLUSTER, "send a sweep to a Ray cluster", "cluster_commands"),
    ("doctor", CLUSTER, "check what would end a sweep hours later", "cluster_commands"),
    ("completion", CLUSTER, "completion of commands and options for bash, zsh or tcsh", "parsing"),
)

CATALOG: dict[str, Command] = {
    name: Command(name=name, group=group, help=text, module=f"sweeps.commands.{module}") for name, group, text, module in _TABLE
}

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(command.group for command in CATALOG.values()))

EXAMPLES: dict[str, str] = {
    "run quick": "a first sweep on synthetic people, minutes on two cores",
    "init --data ours/train --out ours.yaml": "a space that fits your data",
    "run ours.yaml --dry-run": "what it would run, and what it would cost",
    "status ours --watch": "how far it is",
    "best ours --epsilon 0.8 --out best.yaml": "the winner's settings, which `train` takes",
}
