"""`dpsweep score` and `dpsweep epsilon`: answers from files and numbers, without training or a sweep."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.report.text import number, print_json, render_table
from sweeps.terminal.working import working

RDP_NOTE = "both numbers are RDP; --accountant profile prices the selection by its privacy profile, and the run by PLD"
PROFILE_NOTE = "the run is priced by PLD, the selection by its privacy profile"


def add_parsers(commands: Any) -> None:
    """Declares `score` and `epsilon`."""
    score = commands.add_parser("score", help="compute PCKh of predictions from any program", description=score_command.__doc__)
    score.add_argument(
        "predictions",
        metavar="PREDICTIONS.npz",
        type=Path,
        help="arrays predictions, keypoints (N,16,2) px; visible (N,16); head_boxes (N,2,2) px",
    )
    arguments.add_json(score)
    score.set_defaults(execute=score_command)

    epsilon = commands.add_parser("epsilon", help="a budget calculator", description=epsilon_command.__doc__)
    epsilon.add_argument("--sampling-prob", metavar="Q", type=arguments.probability, required=True, help="Poisson sampling probability")
    epsilon.add_argument("--steps", metavar="T", type=arguments.whole_number(1), required=True)
    epsilon.add_argument("--delta", metavar="D", type=arguments.delta, required=True)
    one = epsilon.add_mutually_exclusive_group(required=True)
    one.add_argument("--noise-multiplier", metavar="S", type=arguments.positive_number, help="noise standard deviation over clipping norm")
    one.add_argument("--target-epsilon", metavar="E", type=arguments.positive_number, help="find the smallest noise that stays within E")
    epsilon.add_argument(
        "--accountant",
        choices=("pld", "rdp", "profile"),
        default="pld",
        help="default pld; a private selection is priced by RDP, or by its privacy profile with `profile`",
    )
    epsilon.add_argument(
        "--relation",
        choices=("add_remove", "replace"),
        default="add_remove",
        help="relation of neighbouring datasets (default add_remove); replace needs pld",
    )
    many = epsilon.add_mutually_exclusive_group()
    many.add_argument("--selection", choices=("private",), help="also price the release of only the best of a random number of runs")
    many.add_argument("--composed", metavar="N", type=arguments.whole_number(1), help="also price the release of N such runs")
    epsilon.add_argument(
        "--mean-trials", metavar="M", type=arguments.positive_number, help="mean number of runs, above 1 (with --selection)"
    )
    epsilon.add_argument("--shape", metavar="H", type=arguments.shape, help="0 logarithmic, 1 geometric, inf Poisson (with --selection)")
    arguments.add_json(epsilon)
    epsilon.set_defaults(execute=epsilon_command)


def score_command(args: argparse.Namespace) -> int:
    """PCKh@0.5 and @0.1 in percent, as MPII counts it: mean without pelvis and thorax, per joint and per group."""
    from sweeps.api.calculators import score

    document = score(args.predictions)
    if args.json:
        print_json(document)
        return 0
    rows = [[name, "", _percent(value)] for name, value in document["groups"].items()]
    rows += [["mean", "", _percent(document["mean"])], ["mean@0.1", "", _percent(document["mean_at_01"])]]
    print(render_table(["group", "", "PCKh@0.5 %"], rows))
    print()
    print(render_table(["joint", "", "PCKh@0.5 %"], [[name, "", _percent(value)] for name, value in document["per_joint"].items()]))
    return 0


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def epsilon_command(args: argparse.Namespace) -> int:
    """ε of T Poisson-subsampled Gaussian steps, or the noise that a target ε needs; and the price of many such runs."""
    from sweeps.api.calculators import epsilon

    _check_selection(args)
    with working("pricing"):
        budget = epsilon(
            sampling_prob=args.sampling_prob,
            steps=args.steps,
            delta=args.delta,
            noise_multiplier=args.noise_multiplier,
            target_epsilon=args.target_epsilon,
            accountant=args.accountant,
            composed=args.composed,
            mean_trials=args.mean_trials,
            shape=args.shape,
            relation=args.relation,
        )
    if args.json:
        print_json(budget.document())
        return 0
    by_profile = args.accountant == "profile"
    one_by = "pld" if by_profile else "rdp" if args.selection else args.accountant
    print(f"epsilon           {number(budget.epsilon, 5)}   (one run, {one_by})")
    print(f"delta             {budget.delta:g}")
    print(f"noise multiplier  {number(budget.noise_multiplier, 5)}")
    if budget.sweep_epsilon is not None:
        law = f"{args.composed} runs composed" if args.composed else f"best of {args.mean_trials:g} runs on average, shape {args.shape:g}"
        print(f"sweep epsilon     {number(budget.sweep_epsilon, 5)}   ({law})")
    if args.selection:
        print(PROFILE_NOTE if by_profile else RDP_NOTE)
    return 0


def _check_selection(args: argparse.Namespace) -> None:
    """What the law says without its switch, and the switch without its law: in words of the command line."""
    given = [flag for flag, value in (("--mean-trials", args.mean_trials), ("--shape", args.shape)) if value is not None]
    if args.selection is None and given:
        raise BadInput(f"{' and '.join(given)} describe private selection: add --selection private or leave them out")
    if args.selection is not None and len(given) < 2:
        raise BadInput("--selection private needs both --mean-trials M and --shape H: the law of the number of runs")
