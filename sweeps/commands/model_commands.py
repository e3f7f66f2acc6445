"""Commands that take a trained model out into the world: `predict` and `export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpcore.errors import BadInput
from sweeps.commands import arguments
from sweeps.commands.parsing import described
from sweeps.terminal.lines import counted, show, warn
from sweeps.terminal.progress import shown_progress
from sweeps.terminal.working import working

MODEL_HELP = "folder of a model, a training, a finished trial or an export; in a bucket a trial's URI; models:/NAME/VERSION or @ALIAS"


def add_parsers(commands: Any) -> None:
    """Declares `predict` and `export`."""
    predict = commands.add_parser("predict", help="read keypoints off pictures with a trained model", description=predict_command.__doc__)
    predict.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    predict.add_argument("pictures", metavar="PICTURE", nargs="+", help="a file, a folder, or a pattern such as 'photos/*.jpg'")
    predict.add_argument(
        "--boxes",
        metavar="FILE",
        type=Path,
        default=None,
        help="people's boxes: COCO's form, a list of detections [{image, bbox}], or CSV with image,x,y,w,h (default: the whole picture)",
    )
    predict.add_argument("--out", metavar="FILE", type=Path, default=None, help="keypoints.json or keypoints.csv (default: JSON on stdout)")
    predict.add_argument(
        "--draw", metavar="DIR", type=Path, default=None, help="also draw the skeletons on the pictures, into a new folder"
    )
    predict.add_argument("--batch", metavar="N", type=arguments.whole_number(1), default=32, help="people at once (default: 32)")
    predict.add_argument(
        "--box-scale", metavar="S", type=arguments.positive_number, default=None, help="margin around a box (default: the training's)"
    )
    predict.add_argument("--skip-broken", action="store_true", help="leave out pictures that cannot be read, with a count")
    predict.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    arguments.add_registry(predict)
    predict.set_defaults(execute=predict_command)

    export = commands.add_parser("export", **described("export") | {"description": export_command.__doc__})
    export.add_argument("model", metavar="MODEL", help=f"{MODEL_HELP}; with --csv the NAME of a sweep")
    export.add_argument("--out", metavar="DIR", type=Path, default=None, help="new folder: weights, document, claim and model card")
    export.add_argument("--onnx", metavar="FILE", type=Path, default=None, help="new ONNX file, checked against torch (extra: onnx)")
    export.add_argument("--csv", metavar="DIR", type=Path, default=None, help="new folder: trials.csv and curves.csv of the sweep NAME")
    arguments.add_registry(export)
    export.set_defaults(execute=export_command)


def predict_command(args: argparse.Namespace) -> int:
    """Reads keypoints off pictures, in px of each picture as a viewer shows it. Without boxes the whole picture is the crop, so give
    pictures that show one person, whole."""
    from sweeps.api.models import predict

    if args.boxes is None:
        warn("dpsweep: no --boxes: each whole picture is the crop of one person")
    with shown_progress("pictures") as progress:
        found = predict(
            args.model,
            args.pictures,
            boxes=args.boxes,
            out=args.out,
            draw=args.draw,
            skip_broken=args.skip_broken,
            batch=args.batch,
            box_scale=args.box_scale,
            device=args.device,
            on_progress=progress,
            storage=args.storage,
            tracking_uri=args.tracking_uri,
        )
    if found.warning is not None:
        warn(f"dpsweep: {found.warning}")
    if args.out is None:
        print(found.to_json(), end="")
    left_out = "".join(f"; left out: {count} {reason}" for reason, count in found.left_out.items())
    written = "".join(f"; written: {place}" for place in (args.out, args.draw) if place is not None)
    people, pictures = counted(len(found.people), "person", "people"), counted(found.pictures, "picture")
    warn(f"dpsweep: {people} on {pictures}{left_out}{written}")
    return 0


def export_command(args: argparse.Namespace) -> int:
    """Writes a model with its claim, price and scores, and nothing of its data: a folder of safetensors, JSON and a model card, or an ONNX
    file whose keypoints were held against torch's."""
    from sweeps.api.looking import export_tables
    from sweeps.api.models import export

    if args.csv is not None:
        if args.out is not None or args.onnx is not None:
            raise BadInput("--csv writes the tables of a sweep, --out and --onnx a model: give one of the two kinds")
        trials, curves = export_tables(args.model, args.csv, storage=args.storage)
        show(f"written: {trials}, {curves.name}")
        return 0
    with working("writing and checking the model"):
        found = export(args.model, out=args.out, onnx=args.onnx, storage=args.storage, tracking_uri=args.tracking_uri)
    show(found.made.text())
    if found.check is not None:
        show(f"written: {found.onnx} ({found.check.text()})")
    if found.folder is not None:
        show(f"written: {found.folder}; `dpsweep predict {found.folder} PICTURE...` uses it")
    return 0
