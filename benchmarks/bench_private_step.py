"""What a clipped gradient sum costs beside a plain gradient: ratios and peak memory, side by side in one run.

    python benchmarks/bench_private_step.py [--rounds 9] [--only TEXT] [--out benchmarks/results/private_step.json]

One round times every contender once, in turn, so that a busy machine slows them all. A figure is the median over rounds of the ratio
to `plain` of the same round, in seconds of this process: `plain` is one forward and one backward for the mean gradient. Memory is the
growth of a forked process at its peak, in a run of two steps, over that of `plain`. All contenders give the same clipped sum (P,);
that is checked before they are timed, in float64 against single examples: in float32 a ReLU of a number that is zero but for rounding may
fall on either side, in each contender in its own way.

`floor` is the forward pass and the backward pass to the outputs of layers, which every contender needs. Its operations and bytes are
counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from step_networks import PROBLEMS, Missing, Problem
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dpcore.gradients.functional import VectorisedRows
from dpcore.gradients.tape import Consumer, Tape
from dpcore.gradients.way import TrainedModule
from dpcore.privacy.clipping import clip_rows, clipped_sum
from dpcore.privacy.per_example import GradientEngine

CLIP_NORM = 1e-2
PUBLIC_WEIGHT = 0.5
Step = Callable[[], Tensor]
LOOP, FLOOR = "loop of single examples", "floor"
CHECKED = 3
"""Examples of which all contenders must give the same sum."""


def contenders(problem: Problem) -> dict[str, Callable[[], Step]]:
    """How each contender is made; a step gives a clipped sum (P,). The first is plain: a sum without any clip."""
    tail, loss, batch = problem.tail, problem.loss, problem.batch

    def plain() -> Step:
        engine = GradientEngine(copy.deepcopy(tail), loss)
        return lambda: engine.sum_gradient(batch)

    def floor() -> Step:
        tape = Tape(TrainedModule(copy.deepcopy(tail), loss, "fp32"), copies=True, inherited=True)
        return lambda: tape.run([batch], (1.0,), lambda layer, calls: None)

    def ours(*, pairs: bool) -> Step:
        engine = GradientEngine(copy.deepcopy(tail), loss)
        views = problem.views if pairs else None
        return lambda: engine.clipped_sum(batch, views, PUBLIC_WEIGHT, clip_norm=CLIP_NORM)[0].value

    def our_rows() -> Step:
        engine = GradientEngine(copy.deepcopy(tail), loss)
        return lambda: clip_rows(engine.rows(batch), CLIP_NORM).sum().value

    def vmap() -> Step:
        way = VectorisedRows(TrainedModule(copy.deepcopy(tail), loss, "fp32"))
        return lambda: clipped_sum(lambda factors_of: way.summed([batch], (1.0,), factors_of).total, CLIP_NORM).value

    def loop() -> Step:
        engine = GradientEngine(copy.deepcopy(tail), loss)
        return lambda: torch.stack([clip_rows(engine.sum_gradient(one)[None], CLIP_NORM).sum().value for one in batch.chunks(1)]).sum(0)

    return {
        "plain": plain,
        FLOOR: floor,
        "ours, dpsgd": lambda: ours(pairs=False),
        "ours, feature pair": lambda: ours(pairs=True),
        "ours, rows": our_rows,
        "Opacus hooks": lambda: opacus_rows(problem, functorch=False),
        "Opacus functorch": lambda: opacus_rows(problem, functorch=True),
        "Opacus ghost": lambda: opacus_ghost(problem),
        "torch.func vmap": vmap,
        LOOP: loop,
    }


NOT_POSSIBLE = (AttributeError, RuntimeError, NotImplementedError)
"""What a contender raises on a network that it does not cover."""


def opacus_rows(problem: Problem, *, functorch: bool) -> Step:
    """Per-example gradients of Opacus, clipped and added up."""
    from opacus.grad_sample import GradSampleModule

    module = GradSampleModule(copy.deepcopy(problem.tail), loss_reduction="sum", strict=False, force_functorch=functorch)

    def step() -> Tensor:
        problem.loss(module, problem.batch).sum().backward()
        rows = torch.cat([p.grad_sample.flatten(1) for p in module.parameters() if p.requires_grad], dim=1)
        module.zero_grad()
        return clip_rows(rows, CLIP_NORM).sum().value

    return step


def opacus_ghost(problem: Problem) -> Step:
    """Ghost clipping of Opacus: norms in one backward pass, the weighted sum in a second."""
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

    tail = copy.deepcopy(problem.tail)
    module = GradSampleModuleFastGradientClipping(tail, loss_reduction="sum", strict=False, max_grad_norm=CLIP_NORM)

    def step() -> Tensor:
        losses = problem.loss(module, problem.batch)
        losses.sum().backward(retain_graph=True)
        module.zero_grad()
        factors = module.get_clipping_coef()
        module.disable_hooks()
        (factors * losses).sum().backward()
        module.enable_hooks()
        total = torch.cat([p.grad.flatten() for p in tail.parameters() if p.requires_grad]).double()
        module.zero_grad()
        return total

    return step


def growth_bytes(make: Callable[[], Step]) -> int | None:
    """How far a forked process grows at its peak in its third step; None where the contender fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
        step = make()
        step()
        step()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        step()
        peak = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").split("\n") if line.startswith("VmHWM"))
        grown = int(peak.split()[1]) * 1024 - before
        os.write(writer, str(grown).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 32)
    return int(said) if said else None


def memory(name: str) -> dict[str, int | None]:
    """Peaks by contender. Called in a fresh process, whose heap has no holes that a child could fill unseen."""
    import opacus.grad_sample  # noqa: F401  # not within a child's growth

    return {contender: growth_bytes(make) for contender, make in contenders(PROBLEMS[name]()).items() if contender != LOOP}


def errors(name: str) -> dict[str, float]:
    """Relative errors of the clipped sums of few examples in float64, against single examples."""
    problem = PROBLEMS[name]().of_few_in_float64(CHECKED)
    makers = contenders(problem)
    expected, found = makers[LOOP]()(), {}
    for contender in makers.keys() - {"plain", FLOOR, "ours, feature pair", LOOP}:
        try:
            found[contender] = float((makers[contender]()() - expected).norm() / expected.norm())
        except NOT_POSSIBLE:
            continue
        if found[contender] > 1e-5:
            print(f"{name:40} {contender:24} WRONG by {found[contender]:.1e}", flush=True)
    return found


def counted(problem: Problem) -> dict[str, float]:
    """Operations and bytes that no contender avoids, and those of all rows."""
    tape = Tape(TrainedModule(copy.deepcopy(problem.tail), problem.loss, "fp32"), copies=True, inherited=True)
    count, everything = len(problem.batch), slice(0, len(problem.batch))

    def operations(consume: Consumer) -> int:
        with FlopCounterMode(display=False) as counter:
            tape.run([problem.batch], (1.0,), consume)
        return counter.get_total_flops()

    alone = operations(lambda layer, calls: None)
    with_rows = operations(lambda layer, calls: layer.rows(calls, everything) and None)
    trained = sum(layer.size for layer in tape.layers)
    return {
        "gflop_forward_and_activation_backward": round(alone / 1e9, 2),
        "gflop_rows": round((with_rows - alone) / 1e9, 2),
        "inputs_and_outputs_of_layers_mb": round(4 * tape.held / 1e6, 1),
        "weights_mb": round(4 * sum(p.numel() for p in problem.tail.parameters()) / 1e6, 1),
        "all_rows_mb": round(4 * count * trained / 1e6, 1),
    }


def measure(name: str, *, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and ratios of each contender that can, after a check that all give one sum."""
    steps = {}
    for contender, make in contenders(PROBLEMS[name]()).items():
        try:
            steps[contender] = make()
            steps[contender]()
        except NOT_POSSIBLE as error:
            steps.pop(contender, None)
            print(f"{name:40} {contender:24} not possible: {type(error).__name__} {str(error)[:80]}")
    seconds: dict[str, list[float]] = {contender: [] for contender in steps}
    for round_number in range(rounds):
        for contender, step in steps.items():
            if contender == LOOP and round_number >= 3:
                continue
            began = time.process_time()
            step()
            seconds[contender].append(time.process_time() - began)
    return {
        contender: {
            "median_s": round(statistics.median(own), 4),
            "ratio_to_plain": round(statistics.median(map(lambda a, b: a / b, own, seconds["plain"])), 3),
        }
        for contender, own in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="networks whose name holds this text")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "private_step.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.memory:
        print("memory", json.dumps(memory(args.memory)))
        return
    results: dict[str, object] = {}
    loads = [os.getloadavg()[0]]
    for name in (name for name in PROBLEMS if args.only in name):
        try:
            wrong = errors(name)
            rows: dict[str, dict[str, float]] = measure(name, rounds=args.rounds)
        except Missing as reason:
            results[name] = f"not measured: {reason}"
            print(f"{name}: {results[name]}")
            continue
        done = subprocess.run([sys.executable, __file__, "--memory", name], capture_output=True, text=True, check=True)
        peaks = json.loads(done.stdout.rpartition("memory ")[2])
        for contender, row in rows.items():
            if peaks.get(contender):
                row["peak_mb"], row["peak_to_plain"] = round(peaks[contender] / 1e6, 1), round(peaks[contender] / peaks["plain"], 2)
            print(f"{name:40} {contender:24} " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        for contender, error in wrong.items():
            if contender in rows:
                rows[contender]["error"] = float(f"{error:.1e}")
        results[name] = {"counted": counted(PROBLEMS[name]()), **rows}
        loads.append(os.getloadavg()[0])
    document = {
        "rounds": args.rounds,
        "threads": 1,
        "device": "cpu",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": {"least": round(min(loads), 1), "most": round(max(loads), 1)},
        "torch": version("torch"),
        "opacus": version("opacus"),
        "timm": version("timm") if find_spec("timm") else None,
        "results": results,
    }
    args.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
