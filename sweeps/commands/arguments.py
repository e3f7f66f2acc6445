"""Types of command-line values, so that argparse accepts only valid numbers, names and lists.

Each type raises `argparse.ArgumentTypeError`. The parser turns it into one line and exit 2, before anything else happens.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from dpcore.config import Places
from sweeps.records.spec import DEFAULT_STORAGE, NAME_PATTERN


def finite_number(text: str) -> float:
    """Any number except NaN and the infinities."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, given {text!r}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, given {text!r}")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = finite_number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, given {text!r}")
    return value


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    value = finite_number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, given {text!r}")
    return value


def probability(text: str) -> float:
    """A sampling probability: above 0, at most 1."""
    value = positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a probability in (0, 1], given {text!r}")
    return value


def delta(text: str) -> float:
    """δ of (ε, δ): above 0 and below 1."""
    value = positive_number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a δ in (0, 1), given {text!r}")
    return value


def shape(text: str) -> float:
    """The shape of the law of the number of trials: above -1; `inf` is the Poisson law."""
    if text.strip().lower() in {"inf", "infinity"}:
        return math.inf
    value = finite_number(text)
    if value <= -1:
        raise argparse.ArgumentTypeError(f"expected a shape above -1 (0 logarithmic, 1 geometric, inf Poisson), given {text!r}")
    return value


def whole_number(minimum: int) -> Callable[[str], int]:
    """A type for whole numbers from `minimum` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, given {text!r}") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {minimum}, given {text!r}")
        return value

    return parse


def epsilon_list(text: str) -> tuple[float, ...]:
    """`0.2,0.8`: one or more different numbers above 0."""
    values = tuple(positive_number(part) for part in text.split(","))
    if len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f"expected each ε once, given {text!r}")
    return values


def sweep_name(text: str) -> str:
    """A name that is a folder, an MLflow experiment and a study on every system."""
    if not NAME_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected letters, digits, '.', '_' and '-' (100 at most, a letter or digit first), given {text!r}"
        )
    return text


def assignment(text: str) -> str:
    """`path=value` of `--set`."""
    path, equals, _ = text.partition("=")
    if not equals or not path.strip():
        raise argparse.ArgumentTypeError(f"expected path=value, as in clip_norm=0.1, given {text!r}")
    return text


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Adds `--storage`, the place of the sweeps, to a command that takes a NAME."""
    text = f"folder of the sweeps, or URI of a bucket (default: ./{DEFAULT_STORAGE})"
    parser.add_argument("--storage", metavar="DIR|URI", default=DEFAULT_STORAGE, help=text)


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where `models:/...` is looked up, to a command that takes a MODEL."""
    add_storage(parser)
    parser.add_argument(
        "--tracking-uri", metavar="URI", default=None, help="MLflow that has models:/... (default: MLFLOW_TRACKING_URI, else the storage's)"
    )


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Adds NAME, and the options that say where this sweep is."""
    parser.add_argument("name", metavar="NAME")
    add_storage(parser)
    parser.add_argument(
        "--state", metavar="DIR", type=Path, default=None, help="folder of study, key and spool (default: as when the sweep began)"
    )


def add_notify(parser: argparse.ArgumentParser) -> None:
    """`--notify`: who hears of the end."""
    text = "tell this address of apprise's how it ended (default: DPSWEEP_NOTIFY; needs the extra notify)"
    parser.add_argument("--notify", metavar="URL", action="append", default=[], help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: one JSON document on stdout and nothing else there."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Adds `--data-dir`, the folder of the datasets, and `--cache-dir`, the folder of everything that can be rebuilt."""
    parser.add_argument(
        "--data-dir", metavar="DIR", type=Path, default=None, help="folder of the datasets (default: DPSWEEP_DATA_DIR, else ./data)"
    )
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        type=Path,
        default=None,
        help="folder of caches, which can be rebuilt (default: DPSWEEP_CACHE_DIR, else DATA_DIR/cache)",
    )


def places_of(args: argparse.Namespace) -> Places:
    """The data and cache directories that the command line names."""
    return Places.of(args.data_dir, args.cache_dir)
