"""`dpsweep data import`: the options of each format, the import, and its summary."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config.registry import loaded
from dpcore.data.formats import IMPORTERS, Importer
from dpcore.errors import BadInput, Refused
from sweeps.commands import arguments
from sweeps.report.text import print_json
from sweeps.terminal.progress import shown_progress

if TYPE_CHECKING:
    from dpcore.data.manifest import Manifest
    from dpcore.importers.label_checks import ImportTally


def add_target(parser: argparse.ArgumentParser, *, protected: bool) -> None:
    """Options of the dataset that is made."""
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
        add_ledger(parser)


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """Options of the ledger that charges its people."""
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


def add_format(formats: Any, importer: Importer) -> None:
    """Declares `data import FORMAT`."""
    parser = formats.add_parser(importer.name, help=importer.help)
    _add_source(parser)
    add_target(parser, protected=True)
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


def import_parser(base: type[argparse.ArgumentParser]) -> type[argparse.ArgumentParser]:
    """The parser of `data import`. Other packages' formats are looked up when it is used, so that no other command waits for them."""

    class ImportParser(base):  # type: ignore[misc, valid-type]
        formats: Any = None

        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            if self.formats is not None and not set(self.formats.choices).intersection(args or ()):
                try:
                    for name in IMPORTERS.names():
                        if name not in self.formats.choices:
                            add_format(self.formats, IMPORTERS.get(name))
                except BadInput as error:
                    self.error(str(error))
            return super().parse_known_args(args, namespace)

    return ImportParser


def _check_source(args: argparse.Namespace) -> None:
    if not (args.annotations.is_file() or (args.importer.folder and args.annotations.is_dir())):
        what = "the file or folder" if args.importer.folder else "the file"
        raise BadInput(f"{args.annotations}: no such file; --annotations takes {what} with the keypoints")
    if not args.images.is_dir():
        raise BadInput(f"{args.images}: no such folder; --images takes the folder of the image files")
    check_target(args.out)


def check_target(out: Path) -> None:
    """Refuses a folder that exists."""
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
        return announce(_read_and_import(args, own, tally), args, tally)
    run = loaded(importer.builder, what=f"importer {importer.name}")
    manifest = run(args.annotations, args.images, args.out, **_manifest_fields(args), box_scale=args.box_scale, tally=tally, **own)
    return announce(manifest, args, tally)


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


def bind(out: Path, args: argparse.Namespace) -> None:
    """Opens the account of protected people; of a stand-in where a ledger or a cap is asked for."""
    from dpcore.data.shards import open_shards
    from sweeps.records.cohort_ledger import bind_ledger

    dataset = open_shards(out)
    if dataset.manifest.protected or args.ledger is not None or args.epsilon_total is not None:
        unit = getattr(args, "earlier_unit", "")
        opened = bind_ledger(dataset, ledger=args.ledger, epsilon_total=args.epsilon_total, delta=args.delta, earlier_unit=unit)
        cap = "no cap" if opened.epsilon is None else f"at most ε = {opened.epsilon:g} at δ = {opened.delta:.3g} for all time"
        print(f"  charged to {open_shards(out, verify=False).manifest.ledger}, {cap}")


def announce(manifest: Manifest, args: argparse.Namespace, tally: ImportTally | None = None) -> int:
    """Says what was made, what was counted, and who charges its people."""
    if getattr(args, "json", False):
        print_json(manifest.model_dump(mode="json"))  # synthetic people: nobody to protect
        return 0
    protection = " protected" if manifest.protected else ""
    cohort = f", cohort {manifest.cohort}" if manifest.cohort is not None else ""
    if manifest.role == "PRIVATE" and hasattr(args, "epsilon_total"):
        bind(args.out, args)
    print(f"{args.out}: {manifest.count} people, {manifest.height_px}×{manifest.width_px} px, {manifest.role}{protection}{cohort}")
    if tally is not None and tally.labels:
        print(f"  {tally.labels} labels of {manifest.skeleton.count} joints ({manifest.skeleton.name})")
    for line in [] if tally is None else tally.lines():
        print(f"  {line}")
    return 0
