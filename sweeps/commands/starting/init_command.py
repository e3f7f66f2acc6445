"""`dpsweep init`: asks for what a first space must know, or takes it as options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.terminal.lines import show
from sweeps.terminal.working import working

T = TypeVar("T")
_PLACES: tuple[Literal["public"], Literal["validation"]] = ("public", "validation")


def add_parsers(commands: Any) -> None:
    """Declares `init`."""
    init = commands.add_parser("init", **described("init") | {"description": init_command.__doc__})
    init.add_argument("--data", metavar="D", default=None, help="the PRIVATE dataset: a name below the data directory, or a folder")
    init.add_argument("--public", metavar="D", default=None, help="a PUBLIC dataset to start from (default: the one that fits)")
    init.add_argument("--validation", metavar="D", default=None, help="a PUBLIC dataset to score on (default: the one that fits)")
    init.add_argument("--proxy", metavar="D", default=None, help="a third PUBLIC dataset: the search runs on it and costs nothing")
    init.add_argument(
        "--nominal-examples",
        metavar="N",
        type=arguments.whole_number(1),
        default=None,
        help="about how many images there are, as everybody may know (default: the count to two digits)",
    )
    init.add_argument(
        "--epsilons",
        metavar="E,E",
        type=arguments.epsilon_list,
        default=None,
        help="of the trials (default: 2 for protected people, else 2,8)",
    )
    init.add_argument(
        "--trials", metavar="N", type=arguments.whole_number(1), default=None, help="per ε (default: 8 for protected people, else 12)"
    )
    init.add_argument("--labels", choices=("public", "private"), default="public", help="whether keypoints may be known (default public)")
    init.add_argument("--unit", choices=("person", "image", "video"), default="image", help="what is protected (default image)")
    init.add_argument("--out", metavar="FILE.yaml", type=Path, default=None, help="the new space file (default: space.yaml)")
    arguments.add_storage(init)
    arguments.add_places(init)
    arguments.add_json(init)
    init.set_defaults(execute=init_command)


def init_command(args: argparse.Namespace) -> int:
    """Writes a commented space that fits your data, and shows its plan. On a terminal it asks for what was not given. The file is
    written only if `dpsweep run` would accept it."""
    from sweeps.api.starting import init

    given = _asked(args)
    with working("planning: calibrating the noise of each ε"):
        begun = init(
            given["data"],
            out=given["out"],
            public=given["public"],
            validation=given["validation"],
            proxy=args.proxy,
            nominal_examples=given["nominal_examples"],
            epsilons=given["epsilons"],
            trials=args.trials,
            labels=args.labels,
            unit=args.unit,
            data_dir=args.data_dir,
            cache_dir=args.cache_dir,
            storage=args.storage,
        )
    if args.json:
        from sweeps.report.text import print_json

        print_json({"path": str(begun.path), "plan": begun.plan.document()})
        return 0
    show(f"{begun.plan}\n\nwritten: {begun.path}. Read it: every line says what it is for. Then:")
    show(f"    dpsweep data preview {begun.facts.private} --space {begun.path} --out preview\n    dpsweep run {begun.path}")
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, and on a terminal what a person answers.

    Raises:
        BadInput: no data was named, and nobody can be asked.
    """
    from sweeps.api.starting import USUAL, candidates, chosen, rounded

    places, is_asking = arguments.places_of(args), sys.stdin.isatty() and not args.json
    data = args.data or (_ask("private dataset", _private_ones(places), str) if is_asking else None)
    if data is None:
        there = ", ".join(_private_ones(places)) or "none is there; `dpsweep data import` makes one"
        raise BadInput(f"--data: name the PRIVATE dataset; in {places.data_dir}: {there}")
    found = {name: getattr(args, name) for name in ("public", "validation", "nominal_examples", "epsilons")} | {"data": data}
    found["out"] = args.out or Path("space.yaml")
    if is_asking:
        from dpcore.data.catalog import open_dataset, unit_ids

        private = open_dataset(data, places)
        names = candidates(private.manifest, places, data)
        for place in _PLACES:
            taken = found["public"] if place == "validation" else found["validation"]
            found[place] = found[place] or _ask(f"{place} dataset", _proposed(partial(chosen, place, names, taken), names), str)
        if found["nominal_examples"] is None:
            count = rounded(len(set(unit_ids(private, args.unit).tolist())))
            found["nominal_examples"] = _ask(f"about how many {args.unit}s, as everybody may know", [str(count)], arguments.whole_number(1))
        if found["epsilons"] is None:
            usual = USUAL[private.manifest.protected].epsilons
            found["epsilons"] = _ask("ε of the trials", [",".join(f"{one:g}" for one in usual)], arguments.epsilon_list)
        if args.out is None:
            found["out"] = _ask("space file", ["space.yaml"], Path)
    return found


def _private_ones(places: Any) -> list[str]:
    from sweeps.api.starting import datasets_below

    return [one.name for one in datasets_below(places.data_dir) if one.manifest.role == "PRIVATE"]


def _proposed(choose: Callable[[], str], names: tuple[str, ...]) -> list[str]:
    """The names with the likely one first."""
    try:
        first = choose()
    except BadInput:
        return list(names)
    return [first, *(name for name in names if name != first)]


def _ask(what: str, known: list[str], read: Callable[[str], T]) -> T:
    """An answer from the terminal; an empty one is the first of what is known. Asks again where it does not read."""
    others = f" (or {', '.join(known[1:])})" if known[1:] else ""
    default = f" [{known[0]}]{others}" if known else ""
    while True:
        answer = input(f"{what}{default}: ").strip() or (known[0] if known else "")
        try:
            if answer:
                return read(answer)
        except argparse.ArgumentTypeError as error:
            show(str(error))
