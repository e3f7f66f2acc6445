"""Commands on one trial: `best`, `train`, `evaluate`, `pretrain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpcore.config import Places
from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.report.text import number, percent, print_json

RESULT_KEYS = ("epsilon_target", "epsilon_spent", "delta", "method", "pckh_50", "pckh_10", "trial_id", "fingerprint")


def add_parsers(commands: Any) -> None:
    """Declares `best`, `train`, `evaluate` and `pretrain`."""
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

    evaluate = commands.add_parser("evaluate", help="compute PCKh of a trained model on a dataset")
    evaluate.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="folder of a finished trial or of its model; in a bucket the trial's URI"
    )
    evaluate.add_argument("--data", metavar="D", required=True, help="a dataset's name or folder")
    arguments.add_places(evaluate)
    arguments.add_json(evaluate)
    evaluate.set_defaults(execute=evaluate_command)

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
    from sweeps.records.export import best_trial, export_trial, write_exported
    from sweeps.records.publication import results_at_hand
    from sweeps.records.results import read_results

    spec = arguments.spec_of(args, state=False)
    with results_at_hand(spec) as folder:
        record = best_trial(read_results(folder), args.epsilon)
    if args.out is not None:
        write_exported(export_trial(record, spec), args.out)
    document = {
        "epsilon_target": record.epsilon,
        "epsilon_spent": record.epsilon_spent,
        "delta": record.delta if record.delta is not None else record.config.delta,
        "method": record.config.method,
        "pckh_50": record.pckh_50,
        "pckh_10": record.pckh_10,
        "trial_id": record.trial_id,
        "fingerprint": record.fingerprint,
    }
    _print_result(document, as_json=args.json)
    if args.out is not None and not args.json:
        print(f"written: {args.out}; `dpsweep train {args.out}` trains it with fresh noise, charged to the ledger")
    return 0


def train_command(args: argparse.Namespace) -> int:
    """Trains from best.yaml. This is a new private run with fresh noise, and the ledger of the config's sweep is charged."""
    from sweeps.models.retrain import TrainRequest, origin_spec, train_fresh, train_replay, train_resumed
    from sweeps.records.export import read_exported

    if args.new_attempt and not args.resume:
        raise BadInput("--new-attempt goes with --resume: it continues a training that cannot be replayed")
    exported = read_exported(args.config)
    spec = origin_spec(exported, needed=args.replay or (args.ledger is None and exported.config.spends_privacy))
    request = TrainRequest(
        exported=exported,
        spec=spec,
        places=_places_of_request(args, spec.places if spec is not None else None),
        out=args.out if args.out is not None else Path(f"{args.config.stem}-model"),
        ledger_url=args.ledger,
    )
    if args.replay:
        document = train_replay(request, keep=args.out is not None)
    else:
        document = train_resumed(request, new_attempt=args.new_attempt) if args.resume else train_fresh(request)
    _print_result(document, as_json=args.json)
    if not args.json and (not args.replay or args.out is not None):
        print(f"model: {request.out}")
    return 0


def _places_of_request(args: argparse.Namespace, of_sweep: Places | None) -> Places:
    data = args.data_dir.absolute() if args.data_dir is not None else of_sweep.data_dir if of_sweep is not None else Path("data").absolute()
    cache = args.cache_dir.absolute() if args.cache_dir is not None else of_sweep.cache_dir if of_sweep is not None else data / "cache"
    return Places(data_dir=data, cache_dir=cache)


def evaluate_command(args: argparse.Namespace) -> int:
    """Scores a trained model."""
    from sweeps.models.evaluation import score_model
    from sweeps.records.publication import checkpoint_at_hand

    with checkpoint_at_hand(args.checkpoint) as folder:
        scored = score_model(folder, args.data, arguments.places_of(args))
    document = {key: scored.meta.get(key) for key in RESULT_KEYS} | {"pckh_50": scored.state.mean(0.5), "pckh_10": scored.state.mean(0.1)}
    _print_result(document, as_json=args.json)
    return 0


def pretrain_command(args: argparse.Namespace) -> int:
    """Runs the public stage of a config, which reads only PUBLIC data and costs no budget. Stores it in the cache for later
    trials, and scores it on the validation data: the score from which a private run starts."""
    from sweeps.models.evaluation import pretrain_public

    if args.out is not None and args.out.exists():
        raise BadInput(f"{args.out} already exists and is not overwritten; give --out a new folder")
    config, state = pretrain_public(_config_of(args.config), arguments.places_of(args), out=args.out)
    document = dict.fromkeys(RESULT_KEYS) | {
        "epsilon_spent": 0.0,
        "method": config.method,
        "pckh_50": state.mean(0.5),
        "pckh_10": state.mean(0.1),
        "fingerprint": config.fingerprint(),
    }
    _print_result(document, as_json=args.json)
    return 0


def _config_of(name_or_path: str) -> dict[str, Any]:
    """The values of `trial` in a space, or of `config` in a best.yaml."""
    from search_spaces.loader import load_space
    from search_spaces.presets import preset_names
    from sweeps.records.export import read_exported

    path = Path(name_or_path)
    if name_or_path not in preset_names() and path.is_file() and any(line.startswith("config:") for line in path.read_text().splitlines()):
        return read_exported(path).config.model_dump(mode="json")
    return load_space(name_or_path).trial


def _print_result(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    print(f"method       {document['method']}")
    if document["trial_id"] is not None:
        print(f"trial        {document['trial_id']}  ({document['fingerprint']})")
    print(f"PCKh@0.5     {percent(document['pckh_50'], 2)} %")
    print(f"PCKh@0.1     {percent(document['pckh_10'], 2)} %")
    if document["epsilon_target"] is not None:
        print(f"ε            {number(document['epsilon_spent'], 4)} spent of {document['epsilon_target']:g} at δ = {document['delta']:.3g}")
