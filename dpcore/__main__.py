"""One trial without Ray: the debugging door.

    python -m dpcore trial.yaml --data-dir data --cache-dir cache --out runs/one

The file is a TrialConfig, or {config: ..., runtime: ...} as `dpsweep best` writes it. Every call without `--key` is a
fresh private run under a key that is thrown away. Nothing is charged to a ledger, so protected data are refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.errors import BadInput, DpsweepError, Refused


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trial of a file and prints each report as a line of JSON; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        config, runtime = read_trial(options.config)
        return _run(config, runtime, options)
    except DpsweepError as error:
        print(f"dpcore: {error}", file=sys.stderr)
        return error.exit_code


def read_trial(path: Path) -> tuple[TrialConfig, RuntimeFlags]:
    """The config and the runtime in a YAML 1.2 file.

    Raises:
        BadInput: no such file, not YAML (duplicate keys and tags included), or not a trial.
    """
    document = _read_yaml(path)
    if not isinstance(document, dict):
        raise BadInput(f"{path}: expected a mapping with the fields of a trial, given {type(document).__name__}")
    if "config" not in document:
        return parse_config(TrialConfig, document), RuntimeFlags()
    return (
        parse_config(TrialConfig, document["config"], where="config"),
        parse_config(RuntimeFlags, document.get("runtime") or {}, where="runtime"),
    )


def _read_yaml(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the YAML of one trial")
    try:
        return YAML(typ="safe", pure=True).load(path)
    except YAMLError as error:
        raise BadInput(f"{path}: {error}") from error


def _run(config: TrialConfig, runtime: RuntimeFlags, options: argparse.Namespace) -> int:
    from dpcore.data.catalog import open_dataset
    from dpcore.privacy.accounting import plan_privacy
    from dpcore.privacy.randomness import SweepKey
    from dpcore.train.handout import Handout
    from dpcore.train.trainer import run_trial

    key = SweepKey.fresh() if options.key is None else SweepKey.load(options.key)
    places = Places(data_dir=options.data_dir.resolve(), cache_dir=options.cache_dir.resolve())
    if config.spends_privacy and open_dataset(config.data.private, places).manifest.protected:
        raise Refused(f"{config.data.private} is protected, and no ledger is charged here; use `dpsweep train`, which charges one")
    plan = plan_privacy(config.without_proxy(), places.cache_dir)
    handout = Handout(places=places, trial_id=options.trial_id, key=key, folder=options.out, plan=plan)
    for report in run_trial(config, runtime, handout):
        print(json.dumps(report.document(), sort_keys=True), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dpcore", description="Runs one trial without Ray.")
    parser.add_argument("config", type=Path, help="YAML of a trial")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where datasets and public networks lie")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), help="what can be rebuilt: views, features, stages")
    parser.add_argument("--out", type=Path, default=None, help="trial folder: checkpoints, digests, model; an existing one resumes")
    parser.add_argument("--trial-id", default="debug", help="names the secret streams together with the key")
    parser.add_argument("--key", type=Path, default=None, help="sweep key (mode 0600); without it a fresh one, which no resume can repeat")
    return parser


if __name__ == "__main__":
    sys.exit(main())
