"""`dpsweep data`: bring people's pictures in, make synthetic ones, look at a dataset, throw caches away."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.errors import BadInput, Refused
from sweeps.commands import arguments
from sweeps.report.text import percent, print_json

if TYPE_CHECKING:
    from dpcore.data.label_checks import ImportTally
    from dpcore.data.manifest import Manifest


def add_parsers(commands: Any) -> None:
    """Declares `data import hrnet|coco`, `data synth`, `data info` and `data purge`."""
    data = commands.add_parser("data", help="import, make, inspect and purge datasets")
    verbs = data.add_subparsers(title="what to do", metavar="VERB", required=True)
    formats = verbs.add_parser("import", help="turn annotated images into a dataset").add_subparsers(
        title="formats", metavar="FORMAT", required=True
    )
    _add_hrnet(formats)
    _add_coco(formats)
    _add_synth(verbs)
    info = verbs.add_parser("info", help="what a dataset is, after checking every byte")
    info.add_argument("dataset", metavar="D", help="a dataset's name below the data directory, a folder, or synthetic/...")
    arguments.add_places(info)
    arguments.add_json(info)
    info.set_defaults(execute=info_command)
    purge = verbs.add_parser("purge", help="remove what the caches hold of a dataset: public views, features, stages")
    purge.add_argument("dataset", metavar="D", nargs="?", default=None, help="a dataset's name or folder")
    purge.add_argument("--all", action="store_true", help="every cache, also synthetic data and calibrated noise")
    arguments.add_places(purge)
    purge.set_defaults(execute=purge_command)


def _add_target(parser: argparse.ArgumentParser, *, protected: bool) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the new dataset; must not exist")
    parser.add_argument("--role", choices=("PUBLIC", "PRIVATE"), required=True, help="PRIVATE: its images are hidden by the mechanism")
    parser.add_argument("--height", metavar="PX", type=arguments.whole_number(16), default=192, help="crop height (default 192)")
    parser.add_argument("--width", metavar="PX", type=arguments.whole_number(16), default=192, help="crop width (default 192)")
    if protected:
        parser.add_argument(
            "--cohort",
            metavar="NAME",
            type=arguments.sweep_name,
            default=None,
            help="the people, as a ledger charges them: give it where they come again under another name or crop size (default: a new one)",
        )
        parser.add_argument("--stand-in", action="store_true", help="not people to protect: a benchmark standing in for private data")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--annotations", metavar="FILE.json", type=Path, required=True)
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of the image files")
    parser.add_argument("--name", metavar="NAME", type=arguments.sweep_name, default=None, help="default: the folder's name")
    parser.add_argument(
        "--box-scale", metavar="X", type=arguments.positive_number, default=1.25, help="crop over person box (default 1.25)"
    )


def _add_hrnet(formats: Any) -> None:
    hrnet = formats.add_parser("hrnet", help="HRNet-style JSON (MPII, LSPET): center, scale, joints, joints_vis")
    _add_source(hrnet)
    _add_target(hrnet, protected=True)
    base = hrnet.add_mutually_exclusive_group(required=True)
    base.add_argument("--one-based", dest="one_based", action="store_true", help="MATLAB coordinates, as in HRNet's MPII files")
    base.add_argument("--zero-based", dest="one_based", action="store_false", help="pixel coordinates from 0, as in LSPET here")
    hrnet.add_argument("--head-boxes", metavar="FILE", type=Path, default=None, help="gt_valid.mat, or .npz with head_box")
    hrnet.add_argument("--mpii-centre-shift", action="store_true", help="centre_y += 15·scale, as MPII's evaluation crops")
    hrnet.add_argument(
        "--crops",
        choices=("labels", "detector"),
        default="labels",
        help="whose center and scale these are: an annotator's (default), or a public detector's, as labels: private needs",
    )
    hrnet.set_defaults(execute=import_hrnet_command)


def _add_coco(formats: Any) -> None:
    coco = formats.add_parser("coco", help="keypoints in COCO's form, mapped by their names to MPII-16")
    _add_source(coco)
    _add_target(coco, protected=True)
    coco.add_argument(
        "--min-keypoints", metavar="N", type=arguments.whole_number(1), default=10, help="fewer labelled: left out (default 10)"
    )
    coco.add_argument("--category", metavar="NAME", default=None, help="the category of the people (default: the one named like people)")
    coco.set_defaults(execute=import_coco_command)


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
    if not args.annotations.is_file():
        raise BadInput(f"{args.annotations}: no such file; --annotations takes the JSON with the keypoints")
    if not args.images.is_dir():
        raise BadInput(f"{args.images}: no such folder; --images takes the folder of the image files")
    _check_target(args.out)


def _check_target(out: Path) -> None:
    if out.exists():
        raise Refused(f"{out}: exists already and is not overwritten; give --out a new folder")


def import_hrnet_command(args: argparse.Namespace) -> int:
    """Imports HRNet-style annotations."""
    from dpcore.data.importers import import_hrnet
    from dpcore.data.label_checks import ImportTally

    _check_source(args)
    manifest = import_hrnet(
        args.annotations,
        args.images,
        args.out,
        **_manifest_fields(args),
        one_based=args.one_based,
        head_boxes=args.head_boxes,
        box_scale=args.box_scale,
        mpii_centre_shift=args.mpii_centre_shift,
        crops=args.crops,
        tally=(tally := ImportTally()),
    )
    return _announce(manifest, args, tally)


def import_coco_command(args: argparse.Namespace) -> int:
    """Imports COCO person keypoints."""
    from dpcore.data.coco import import_coco
    from dpcore.data.label_checks import ImportTally

    _check_source(args)
    manifest = import_coco(
        args.annotations,
        args.images,
        args.out,
        **_manifest_fields(args),
        box_scale=args.box_scale,
        min_keypoints=args.min_keypoints,
        category=args.category,
        tally=(tally := ImportTally()),
    )
    return _announce(manifest, args, tally)


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
    print(f"{args.out}: {manifest.count} people, {manifest.height_px}×{manifest.width_px} px, {manifest.role}{protection}{cohort}")
    for line in [] if tally is None else tally.lines():
        print(f"  {line}")
    return 0


def info_command(args: argparse.Namespace) -> int:
    """Opens a dataset, verifies its files and says what it is."""
    from dpcore.data.caches import describe_dataset

    info = describe_dataset(args.dataset, arguments.places_of(args))
    document = info.document()
    if args.json:
        print_json(document)
        return 0
    for key, value in document.items():
        if key == "shared":
            value = ", ".join(f"{count} photographs with {other}, another cohort" for other, count in value.items()) or "none"
        if key == "labelled":
            value = ", ".join(f"{joint} {percent(share, 0)} %" for joint, share in value.items())
        print(f"{key:<20}{', '.join(value) if isinstance(value, list) else value}")
    return 0


def purge_command(args: argparse.Namespace) -> int:
    """Removes caches that derive from a dataset, or all of them; everything is built again when it is needed."""
    from dpcore.data.caches import purge_caches

    if args.all == (args.dataset is not None):
        raise BadInput("data purge takes either a dataset's name or --all")
    removed = purge_caches(args.dataset, arguments.places_of(args))
    for folder in removed:
        print(folder)
    print(f"{len(removed)} cache folders removed")
    return 0
