"""Commands on one trial: `best`, `train`, `evaluate`, `claim`, `pretrain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sweeps.commands import arguments
from sweeps.report.text import number, percent, print_json
from sweeps.terminal.lines import counted, show, warn
from sweeps.terminal.progress import shown_progress
from sweeps.terminal.working import working


def add_parsers(commands: Any) -> None:
    """Declares `best`, `train`, `evaluate`, `claim` and `pretrain`."""
    best = commands.add_parser("best", help="show the best trial at an ε and write its config to a file")
    arguments.add_sweep(best)
    best.add_argument("--epsilon", metavar="E", type=arguments.positive_number, required=True)
    best.add_argument("--out", metavar="best.yaml", type=Path, default=None, help="write the config there")
    arguments.add_json(best)
    best.set_defaults(execute=best_command)

    train = commands.add_parser(
        "train", help="train from best.yaml with fresh noise; the ledger is charged", description=train_command.__doc__
    )
    train.add_argument("config", metavar="CONFIG", type=Path, help="a file that `dpsweep best --out` wrote")
    train.add_argument("--out", metavar="DIR", type=Path, default=None, help="folder of the model (default: CONFIG's name with -model)")
    how = train.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="continue an interrupted training in its folder")
    how.add_argument(
        "--replay", action="store_true", help="repeat exactly the same release at no charge; the model is kept only if --out is given"
    )
    train.add_argument(
        "--new-attempt",
        action="store_true",
        help="with --resume, if the same release cannot be repeated: continue from the checkpoint with fresh noise, which is charged",
    )
    train.add_argument("--ledger", metavar="URL", default=None, help="charge this ledger instead of the sweep's")
    _add_optional_places(train)
    arguments.add_json(train)
    train.set_defaults(execute=train_command)

    evaluate = commands.add_parser("evaluate", help="compute the scores of a trained model on a dataset")
    evaluate.add_argument(
        "checkpoint", metavar="MODEL", help="folder of a finished trial or of its model; in a bucket the trial's URI; models:/NAME/VERSION"
    )
    evaluate.add_argument("--data", metavar="D", required=True, help="a dataset's name or folder")
    evaluate.add_argument("--metric", metavar="NAME", default=None, help="pckh_50, pck_bbox_20, oks_ap, ... (default: its sweep's metric)")
    arguments.add_places(evaluate)
    arguments.add_registry(evaluate)
    arguments.add_json(evaluate)
    evaluate.set_defaults(execute=evaluate_command)

    claim = commands.add_parser("claim", help="show what a model promises, what choosing it cost, and its scores")
    claim.add_argument(
        "path",
        metavar="PATH",
        help="folder of a model, a training or a finished trial; in a bucket its URI; models:/NAME/VERSION or @ALIAS; or a claim.json",
    )
    arguments.add_registry(claim)
    arguments.add_json(claim)
    claim.set_defaults(execute=claim_command)

    pretrain = commands.add_parser("pretrain", help="run only the public stage and score it", description=pretrain_command.__doc__)
    pretrain.add_argument("config", metavar="CONFIG", help="best.yaml, a preset's name or a space file")
    pretrain.add_argument("--out", metavar="DIR", type=Path, default=None, help="also write the public model to this folder")
    arguments.add_places(pretrain)
    arguments.add_json(pretrain)
    pretrain.set_defaults(execute=pretrain_command)


def _add_optional_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", metavar="DIR", type=Path, default=None, help="default: the sweep's")
    parser.add_argument("--cache-dir", metavar="DIR", type=Path, default=None, help="default: the sweep's")


def best_command(args: argparse.Namespace) -> int:
    """Prints the winner at an ε and writes best.yaml."""
    from sweeps.api.results import best_with_price

    found = best_with_price(args.name, args.epsilon, storage=args.storage, state=args.state, out=args.out)
    _print_result(found.document(), as_json=args.json)
    if args.out is not None and not args.json:
        show(f"written: {args.out}; `dpsweep train {args.out}` trains it with fresh noise, charged to the ledger")
    return 0


def train_command(args: argparse.Namespace) -> int:
    """Trains from best.yaml. This is a new private run with fresh noise, and the ledger of the config's sweep is charged."""
    from sweeps.api.trials import how_of, train

    how = how_of(resume=args.resume, replay=args.replay, new_attempt=args.new_attempt)
    with working("training"):
        trained = train(args.config, out=args.out, how=how, ledger=args.ledger, data_dir=args.data_dir, cache_dir=args.cache_dir)
    _print_result(trained.document, as_json=args.json)
    if not args.json and trained.folder is not None:
        show(f"model: {trained.folder}; `dpsweep claim {trained.folder}` says what it promises")
    if not args.json and trained.document.get("model") is not None:
        show(f"registered: {trained.document['model']}")
    if trained.not_registered is not None:
        warn(f"dpsweep: not registered in MLflow: {trained.not_registered}")
    return 0


def evaluate_command(args: argparse.Namespace) -> int:
    """Scores a trained model."""
    from sweeps.api.trials import evaluate

    where = {"storage": args.storage, "tracking_uri": args.tracking_uri}
    places = {"data_dir": args.data_dir, "cache_dir": args.cache_dir}
    with shown_progress("people") as show_progress:
        found = evaluate(args.checkpoint, args.data, metric=args.metric, on_progress=show_progress, **places, **where)
    _print_result(found, as_json=args.json)
    return 0


def claim_command(args: argparse.Namespace) -> int:
    """Prints the claim beside a model's weights; one that was cut off, or speaks of other weights, is an error."""
    from sweeps.api.trials import claim

    found = claim(args.path, storage=args.storage, tracking_uri=args.tracking_uri)
    if args.json:
        print_json(found.document())
    else:
        show(found.text())
    return 0


def pretrain_command(args: argparse.Namespace) -> int:
    """Runs the public stage of a config, which reads only PUBLIC data and costs no budget. Stores it in the cache for later
    trials, and scores it on the validation data: the score from which a private run starts."""
    from sweeps.api.trials import pretrain

    with working("training the public stage"):
        document = pretrain(args.config, out=args.out, data_dir=args.data_dir, cache_dir=args.cache_dir)
    _print_result(document, as_json=args.json)
    return 0


def _print_result(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    if document.get("headline") is not None:
        show(f"{document['headline']}\n")
    print(f"method       {document['method']}")
    if document["trial_id"] is not None:
        print(f"trial        {document['trial_id']}  ({document['fingerprint']})")
    for line in document.get("network", ()):
        print(f"network      {line}")
    for line in _score_lines(document):
        print(line)
    target, spent = document["epsilon_target"], document["epsilon_spent"]
    if target is not None:
        print(f"ε            {_spent(spent, target)} at δ = {document['delta']:.3g}")
    if "price" in document:
        show(f"price        {document['price']['text']}")


def _score_lines(document: dict[str, Any]) -> list[str]:
    """The scores: all that are known, and of the one that was asked for how sure it is."""
    from sweeps.records.results import title_of

    known = {name: document[name] for name in ("pckh_50", "pckh_10") if document[name] is not None} | document.get("scores", {})
    if document.get("metric") is not None:
        known[document["metric"]] = document["score"]
    where = f" (this trial, on {document['scored_on']})" if "scored_on" in document else ""
    lines = [f"{title_of(name):<12} {percent(score, 2)} %{where}" for name, score in known.items()]
    if "n" in document:
        sure = "no interval: it is no mean over people" if document["stderr"] is None else f"± {percent(document['stderr'], 2)} points"
        lines.append(f"{title_of(document['metric'])}: {sure}, {counted(document['n'], 'person', 'people')}")
    return lines


def _spent(spent: float | None, target: float) -> str:
    """What a trial spent, beside its target; more than that is what its whole private selection spent."""
    if spent is None:
        return f"not known (target: {target:g})"
    if spent > target:
        return f"{number(spent, 4)} spent by the selection that it won (target of a single run: {target:g})"
    return f"{number(spent, 4)} spent of {target:g}"
