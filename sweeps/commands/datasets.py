"""`dpsweep data`: imports pictures of people, generates synthetic people, describes a dataset, removes caches."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config.registry import loaded
from dpcore.data.formats import IMPORTERS, Importer
from dpcore.errors import BadInput, Refused
from sweeps.commands import arguments
from sweeps.commands.progress import shown_progress
from sweeps.report.text import percent, print_json

if TYPE_CHECKING:
    from dpcore.data.manifest import Manifest
    from dpcore.importers.label_checks import ImportTally


def add_parsers(commands: Any) -> None:
    """Declares `data import FORMAT`, `data synth`, `data info` and `data purge`."""
    data = commands.add_parser("data", help="import, make, inspect and purge datasets")
    parser_class = _import_parser(type(data))
    verbs = data.add_subparsers(title="what to do", metavar="VERB", required=True, parser_class=parser_class)
    imports = verbs.add_parser("import", help="turn annotated images into a dataset")
    imports.formats = imports.add_subparsers(title="formats", metavar="FORMAT", required=True, parser_class=type(data))
    for name in IMPORTERS.own:
        _add_format(imports.formats, IMPORTERS.get(name))
    _add_synth(verbs)
    info = verbs.add_parser("info", help="verify a dataset and describe it")
    info.add_argument("dataset", metavar="D", help="a dataset's name below the data directory, a folder, or synthetic/...")
    info.add_argument("--sheet", metavar="FILE.png", type=Path, default=None, help="where the first crops are drawn (default: the cache)")
    info.add_argument("--show-private", action="store_true", help="draw protected people too, into --sheet, mode 0600")
    arguments.add_places(info)
    arguments.add_json(info)
    info.set_defaults(execute=info_command)
    ledger = verbs.add_parser("ledger", help="name the ledger of a dataset's people, and their cap for all time")
    ledger.add_argument("dataset", metavar="D", help="a PRIVATE dataset's name below the data directory, or its folder")
    _add_ledger(ledger)
    ledger.add_argument("--earlier-unit", choices=("person", "image", "video"), default="", help="unit of the lines that 0.1.0 wrote there")
    arguments.add_places(ledger)
    ledger.set_defaults(execute=ledger_command)
    purge = verbs.add_parser("purge", help="remove the caches of a dataset: public views, features, stages")
    purge.add_argument("dataset", metavar="D", nargs="?", default=None, help="a dataset's name or folder")
    purge.add_argument("--all", action="store_true", help="remove every cache, also synthetic data and calibrated noise")
    arguments.add_places(purge)
    purge.set_defaults(execute=purge_command)


def _add_target(parser: argparse.ArgumentParser, *, protected: bool) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new dataset; must not exist")
    parser.add_argument("--role", choices=("PUBLIC", "PRIVATE"), required=True, help="PRIVATE: the mechanism hides its images")
    parser.add_argument("--height", metavar="PX", type=arguments.whole_number(16), default=192, help="crop height (default 192)")
    parser.add_argument("--width", metavar="PX", type=arguments.whole_number(16), default=192, help="crop width (default 192)")
    if protected:
        parser.add_argument(
            "--cohort",
            metavar="NAME",
            type=arguments.sweep_name,
            default=None,
            help="name of the people for the ledger; use the same name for the same people in another dataset (default: a new name)",
        )
        parser.add_argument(
            "--stand-in", action="store_true", help="the data is a benchmark in the place of private data: nobody to protect"
        )
        _add_ledger(parser)


def _add_ledger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ledger", metavar="URL|PATH", default=None, help="which charges these people, in every storage (default: a file beside them)"
    )
    parser.add_argument(
        "--epsilon-total", metavar="E", type=arguments.positive_number, default=None, help="most they are ever charged (default: no cap)"
    )
    parser.add_argument("--delta", metavar="D", type=arguments.delta, default=None, help="of that cap (default: 1 / (10 photographs))")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--annotations", metavar="FILE", type=Path, required=True)
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the image files")
    parser.add_argument("--name", metavar="NAME", type=arguments.sweep_name, default=None, help="default: the folder's name")
    parser.add_argument(
        "--box-scale",
        metavar="X",
        type=arguments.positive_number,
        default=1.25,
        help="size of the crop relative to the person's box (default 1.25)",
    )


def _add_format(formats: Any, importer: Importer) -> None:
    parser = formats.add_parser(importer.name, help=importer.help)
    _add_source(parser)
    _add_target(parser, protected=True)
    if importer.reader is not None:
        _add_reading(parser)
    importer.add_options(parser)
    parser.set_defaults(execute=import_command, importer=importer)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skeleton", metavar="NAME", default=None, help="map joints by name to this skeleton (default: the file's own)")
    parser.add_argument("--order", metavar="NAME", default=None, help="the skeleton in whose order a file has joints that it does not name")
    parser.add_argument("--skip-broken", action="store_true", help="leave out pictures and people that are wrong, and count them")
    parser.add_argument(
        "--processes", metavar="N", type=arguments.whole_number(1), default=None, help="at most so many at once (default: the CPU's cores)"
    )


def _import_parser(base: type[argparse.ArgumentParser]) -> type[argparse.ArgumentParser]:
    """The parser of `data import`. Other packages' formats are looked up when it is used, so that no other command waits for them."""

    class ImportParser(base):  # type: ignore[misc, valid-type]
        formats: Any = None

        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            if self.formats is not None and not set(self.formats.choices).intersection(args or ()):
                try:
                    for name in IMPORTERS.names():
                        if name not in self.formats.choices:
                            _add_format(self.formats, IMPORTERS.get(name))
                except BadInput as error:
                    self.error(str(error))
            return super().parse_known_args(args, namespace)

    return ImportParser


def _add_synth(verbs: Any) -> None:
    synth = verbs.add_parser("synth", help="make a dataset of synthetic people")
    synth.add_argument("--domain", choices=("public", "private"), required=True, help="two visually different worlds")
    synth.add_argument("--count", metavar="N", type=arguments.whole_number(1), required=True)
    synth.add_argument("--seed", metavar="S", type=arguments.whole_number(0), default=0)
    synth.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new dataset; must not exist")
    synth.add_argument("--role", choices=("PUBLIC", "PRIVATE"), required=True)
    arguments.add_json(synth)
    synth.set_defaults(execute=synth_command)


def _check_source(args: argparse.Namespace) -> None:
    if not (args.annotations.is_file() or (args.importer.folder and args.annotations.is_dir())):
        what = "the file or folder" if args.importer.folder else "the file"
        raise BadInput(f"{args.annotations}: no such file; --annotations takes {what} with the keypoints")
    if not args.images.is_dir():
        raise BadInput(f"{args.images}: no such folder; --images takes the folder of the image files")
    _check_target(args.out)


def _check_target(out: Path) -> None:
    if out.exists():
        raise Refused(f"{out}: exists already and is not overwritten; give --out a new folder")


def import_command(args: argparse.Namespace) -> int:
    """Imports annotations in the format that was named."""
    from dpcore.importers.label_checks import ImportTally

    _check_source(args)
    importer: Importer = args.importer
    own = {option: getattr(args, option) for option in importer.options}
    tally = ImportTally()
    if importer.reader is not None:
        return _announce(_read_and_import(args, own, tally), args, tally)
    run = loaded(importer.builder, what=f"importer {importer.name}")
    manifest = run(args.annotations, args.images, args.out, **_manifest_fields(args), box_scale=args.box_scale, tally=tally, **own)
    return _announce(manifest, args, tally)


def _read_and_import(args: argparse.Namespace, own: dict[str, Any], tally: ImportTally) -> Manifest:
    from dpcore.importers.importing import ImportOptions, import_people
    from dpcore.importers.people import LabelSource
    from dpcore.pose.skeleton import SKELETONS

    read = loaded(args.importer.reader, what=f"importer {args.importer.name}")
    skeleton, order = (None if name is None else SKELETONS.get(name) for name in (args.skeleton, args.order))
    source = LabelSource(annotations=args.annotations, images=args.images, order=order, skip_broken=args.skip_broken, tally=tally)
    with shown_progress("people") as progress:
        options = ImportOptions(
            box_scale=args.box_scale, skeleton=skeleton, processes=args.processes or os.cpu_count() or 1, progress=progress
        )
        return import_people(lambda source: read(source, **own), source, args.out, fields=_manifest_fields(args), options=options)


def _manifest_fields(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": args.name or args.out.name,
        "role": args.role,
        # Real people are protected unless someone says that this is a benchmark.
        "protected": args.role == "PRIVATE" and not args.stand_in,
        "cohort": args.cohort,
        "height_px": args.height,
        "width_px": args.width,
    }


def _bind(out: Path, args: argparse.Namespace) -> None:
    """Opens the account of protected people; of a stand-in where a ledger or a cap is asked for."""
    from dpcore.data.shards import open_shards
    from sweeps.records.cohort_ledger import bind_ledger

    dataset = open_shards(out)
    if dataset.manifest.protected or args.ledger is not None or args.epsilon_total is not None:
        unit = getattr(args, "earlier_unit", "")
        opened = bind_ledger(dataset, ledger=args.ledger, epsilon_total=args.epsilon_total, delta=args.delta, earlier_unit=unit)
        cap = "no cap" if opened.epsilon is None else f"at most ε = {opened.epsilon:g} at δ = {opened.delta:.3g} for all time"
        print(f"  charged to {open_shards(out, verify=False).manifest.ledger}, {cap}")


def ledger_command(args: argparse.Namespace) -> int:
    """Names the ledger of a dataset's people, or where it lies now, and sets their cap."""
    from dpcore.data.catalog import dataset_folder
    from dpcore.data.manifest import load_manifest

    folder = dataset_folder(args.dataset, arguments.places_of(args))
    print(f"{folder}: cohort {load_manifest(folder).cohort}")
    _bind(folder, args)
    return 0


def synth_command(args: argparse.Namespace) -> int:
    """Makes synthetic people, deterministic from the seed."""
    from dpcore.data.synthetic import synth

    _check_target(args.out)
    return _announce(synth(args.out, args.domain, count=args.count, seed=args.seed, role=args.role), args)


def _announce(manifest: Manifest, args: argparse.Namespace, tally: ImportTally | None = None) -> int:
    if getattr(args, "json", False):
        print_json(manifest.model_dump(mode="json"))  # synthetic people: nobody to protect
        return 0
    protection = " protected" if manifest.protected else ""
    cohort = f", cohort {manifest.cohort}" if manifest.cohort is not None else ""
    if manifest.role == "PRIVATE" and hasattr(args, "epsilon_total"):
        _bind(args.out, args)
    print(f"{args.out}: {manifest.count} people, {manifest.height_px}×{manifest.width_px} px, {manifest.role}{protection}{cohort}")
    if tally is not None and tally.labels:
        print(f"  {tally.labels} labels of {manifest.skeleton.count} joints ({manifest.skeleton.name})")
    for line in [] if tally is None else tally.lines():
        print(f"  {line}")
    return 0


def info_command(args: argparse.Namespace) -> int:
    """Opens a dataset, verifies its files, says what it is, and draws its first crops with their joints."""
    from dpcore.data.caches import describe_dataset
    from sweeps.api.datasets import draw_crops

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


def purge_command(args: argparse.Namespace) -> int:
    """Removes caches that derive from a dataset, or all caches. They are built again when needed."""
    from dpcore.data.caches import purge_caches

    if args.all == (args.dataset is not None):
        raise BadInput("data purge takes either a dataset's name or --all")
    removed = purge_caches(args.dataset, arguments.places_of(args))
    for folder in removed:
        print(folder)
    print(f"{len(removed)} cache folders removed")
    return 0
