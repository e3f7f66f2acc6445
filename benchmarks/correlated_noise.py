"""Whether correlated noise would pay: banded matrix factorisation beside DP-SGD, at the same batch, steps, ε and δ.

    python benchmarks/correlated_noise.py [--out benchmarks/results/correlated_noise.json]

A mechanism adds C⁻¹ z, C banded and lower triangular with columns of norm 1, in place of independent noise z. With b bands an example
may take part in every b-th step only. So the people are dealt into b parts, step t draws from part t mod b, with probability b·q, and the
price is that of T / b Poisson-subsampled Gaussians (Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", NeurIPS 2023,
arXiv:2306.08153, theorem 4). dp-accounting prices both. More bands cancel more noise, and are amplified less.

Three errors, each as root mean square over steps, relative to DP-SGD: of all prefix sums, of all models under a cosine learning rate, and
of the last of these models. C is optimised for each, so a figure above 1 says that no C with these bands pays. Nothing private is read.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dpcore.durable import write_json
from dpcore.privacy.accounting import calibrate

EXAMPLES, BATCH, STEPS, DELTA = 8500, 1024, 80, 1e-5
"""Of the preset `lspet`."""
EPSILONS = (0.05, 0.2, 0.8, 3.0, 8.0)
BANDS = (2, 4, 8)
_ROUNDS = 300


def workloads(steps: int) -> dict[str, Tensor]:
    """What is made of the noisy gradients, a row per released model: (models, steps)."""
    rates = 0.5 * (1 + torch.cos(torch.pi * torch.arange(steps, dtype=torch.float64) / steps))
    sums = torch.ones(steps, steps, dtype=torch.float64).tril()
    return {"prefix sums": sums, "models, cosine rate": sums * rates, "last model, cosine rate": rates[None]}


def least_error(workload: Tensor, bands: int) -> float:
    """The smallest Frobenius norm of A C⁻¹ over C with these bands, columns of norm 1, as L-BFGS finds it."""
    steps = workload.shape[1]
    first = [1.0]
    for band in range(1, bands):  # the square root of the prefix sums
        first.append(first[-1] * (2 * band - 1) / (2 * band))
    weights = torch.tensor(first, dtype=torch.float64).repeat(steps, 1).requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def log_error() -> Tensor:
        optimizer.zero_grad()
        shaped = torch.zeros(steps, steps, dtype=torch.float64)
        for band in range(bands):
            column = torch.arange(steps - band)
            shaped = shaped.index_put((column + band, column), weights[: steps - band, band])
        shaped = shaped / shaped.norm(dim=0, keepdim=True)
        error = torch.linalg.solve_triangular(shaped.T, workload.T, upper=True).norm().log()
        torch.autograd.backward(error)
        return error

    optimizer.step(log_error)  # type: ignore[no-untyped-call]
    return math.exp(float(log_error().detach()))


def relative_errors() -> list[dict[str, object]]:
    """Per workload and ε: the noise multiplier of DP-SGD, and per number of bands the error relative to it."""
    found: list[dict[str, object]] = []
    noise = {
        (epsilon, bands): calibrate(min(1.0, bands * BATCH / EXAMPLES), math.ceil(STEPS / bands), delta=DELTA, epsilon=epsilon)
        for epsilon in EPSILONS
        for bands in (1, *BANDS)
    }
    for name, workload in workloads(STEPS).items():
        errors = {bands: least_error(workload, bands) / float(workload.norm()) for bands in BANDS}
        for epsilon in EPSILONS:
            alone = noise[epsilon, 1]
            ratios = {str(bands): round(noise[epsilon, bands] / alone * errors[bands], 3) for bands in BANDS}
            found.append({"workload": name, "epsilon": epsilon, "noise_multiplier": round(alone, 3), "error_by_bands": ratios})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the ratios, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = relative_errors()
    for row in rows:
        print(json.dumps(row))
    if arguments.out is not None:
        about = {"examples": EXAMPLES, "expected_batch_size": BATCH, "steps": STEPS, "delta": DELTA}
        write_json(arguments.out, {"about": about, "relative_error": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
