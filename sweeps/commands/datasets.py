"""`dpsweep data`: imports pictures of people, generates synthetic people, describes and draws a dataset, removes caches."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpcore.data.formats import IMPORTERS
from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.commands.imports import add_format, add_ledger, announce, bind, check_target, import_parser
from sweeps.report.text import percent, print_json
from sweeps.terminal.lines import counted, show
from sweeps.terminal.working import working


def add_parsers(commands: Any) -> None:
    """Declares `data import FORMAT`, `data synth`, `data info`, `data preview`, `data ledger` and `data purge`."""
    data = commands.add_parser("data", help="import, make, inspect and purge datasets")
    parser_class = import_parser(type(data))
    verbs = data.add_subparsers(title="what to do", metavar="VERB", required=True, parser_class=parser_class)
    imports = verbs.add_parser("import", help="turn annotated images into a dataset")
    imports.formats = imports.add_subparsers(title="formats", metavar="FORMAT", required=True, parser_class=type(data))
    for name in IMPORTERS.own:
        add_format(imports.formats, IMPORTERS.get(name))
    _add_synth(verbs)
    info = verbs.add_parser("info", help="verify a dataset and describe it")
    info.add_argument("dataset", metavar="D", help="a dataset's name below the data directory, a folder, or synthetic/...")
    info.add_argument("--sheet", metavar="FILE.png", type=Path, default=None, help="where the first crops are drawn (default: the cache)")
    info.add_argument("--show-private", action="store_true", help="draw protected people too, into --sheet, mode 0600")
    arguments.add_places(info)
    arguments.add_json(info)
    info.set_defaults(execute=info_command)
    _add_preview(verbs)
    ledger = verbs.add_parser("ledger", help="name the ledger of a dataset's people, and their cap for all time")
    ledger.add_argument("dataset", metavar="D", help="a PRIVATE dataset's name below the data directory, or its folder")
    add_ledger(ledger)
    ledger.add_argument("--earlier-unit", choices=("person", "image", "video"), default="", help="unit of the lines that 0.1.0 wrote there")
    arguments.add_places(ledger)
    ledger.set_defaults(execute=ledger_command)
    purge = verbs.add_parser("purge", help="remove the caches of a dataset: public views, features, stages")
    purge.add_argument("dataset", metavar="D", nargs="?", default=None, help="a dataset's name or folder")
    purge.add_argument("--all", action="store_true", help="remove every cache, also synthetic data and calibrated noise")
    arguments.add_places(purge)
    purge.set_defaults(execute=purge_command)


def _add_preview(verbs: Any) -> None:
    preview = verbs.add_parser("preview", help="draw the first crops: with their labels, and what is public of them under splits")
    preview.add_argument("dataset", metavar="D", help="a dataset's name below the data directory, a folder, or synthetic/...")
    preview.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the pictures; must not exist")
    preview.add_argument("--space", metavar="SPACE", default=None, help="show the splits of this space (default: five common ones)")
    preview.add_argument("--show-private", action="store_true", help="draw protected people too; only you can read the pictures")
    arguments.add_places(preview)
    preview.set_defaults(execute=preview_command)


def _add_synth(verbs: Any) -> None:
    synth = verbs.add_parser("synth", help="make a dataset of synthetic people")
    synth.add_argument("--domain", choices=("public", "private"), required=True, help="two visually different worlds")
    synth.add_argument("--count", metavar="N", type=arguments.whole_number(1), required=True)
    synth.add_argument("--seed", metavar="S", type=arguments.whole_number(0), default=0)
    synth.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new dataset; must not exist")
    synth.add_argument("--role", choices=("PUBLIC", "PRIVATE"), required=True)
    arguments.add_json(synth)
    synth.set_defaults(execute=synth_command)


def ledger_command(args: argparse.Namespace) -> int:
    """Names the ledger of a dataset's people, or where it lies now, and sets their cap."""
    from dpcore.data.catalog import dataset_folder
    from dpcore.data.manifest import load_manifest

    folder = dataset_folder(args.dataset, arguments.places_of(args))
    print(f"{folder}: cohort {load_manifest(folder).cohort}")
    bind(folder, args)
    return 0


def synth_command(args: argparse.Namespace) -> int:
    """Makes synthetic people, deterministic from the seed."""
    from dpcore.data.synthetic import synth

    check_target(args.out)
    with working(f"drawing {counted(args.count, 'person', 'people')}"):
        manifest = synth(args.out, args.domain, count=args.count, seed=args.seed, role=args.role)
    return announce(manifest, args)


def info_command(args: argparse.Namespace) -> int:
    """Opens a dataset, verifies its files, says what it is, and draws its first crops with their joints."""
    from dpcore.data.caches import describe_dataset
    from sweeps.api.datasets import draw_crops

    with working("verifying files and drawing crops"):
        info = describe_dataset(args.dataset, arguments.places_of(args))
        drawn = draw_crops(args.dataset, arguments.places_of(args), sheet=args.sheet, show_private=args.show_private)
    document = info.document() | {"sheet": None if drawn is None else str(drawn)}
    if args.json:
        print_json(document)
        return 0
    for key, value in document.items():
        if key == "shared":
            value = ", ".join(f"{count} photographs with {other}, another cohort" for other, count in value.items()) or "none"
        if key == "labelled":
            value = ", ".join(f"{joint} {percent(share, 0)} %" for joint, share in value.items())
        if key == "sheet":
            value = value or "not drawn: these people are protected (--show-private --sheet FILE.png)"
        print(f"{key:<20}{', '.join(value) if isinstance(value, list) else value}")
    return 0


def preview_command(args: argparse.Namespace) -> int:
    """Draws a dataset's first crops with their labels, and under splits."""
    from search_spaces.loader import load_space
    from sweeps.api.datasets import PREVIEWED, preview_dataset

    splits = PREVIEWED if args.space is None else tuple(load_space(args.space).splits.values())
    places = arguments.places_of(args)
    with working("drawing crops"):
        drawn, impossible = preview_dataset(args.dataset, places, args.out, splits=splits, show_private=args.show_private)
    for what, path in drawn.items():
        print(f"{what:<20}{path}")
    for what, why in impossible.items():
        print(f"{what:<20}not drawn: {why}")
    return 0


def purge_command(args: argparse.Namespace) -> int:
    """Removes caches that derive from a dataset, or all caches. They are built again when needed."""
    from dpcore.data.caches import purge_caches

    if args.all == (args.dataset is not None):
        raise BadInput("data purge takes either a dataset's name or --all")
    removed = purge_caches(args.dataset, arguments.places_of(args))
    for folder in removed:
        print(folder)
    show(f"{counted(len(removed), 'cache folder')} removed")
    return 0
