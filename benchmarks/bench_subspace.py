"""What fitting the public subspace costs: seconds, peak memory, and how near it comes to an exact decomposition.

    python benchmarks/bench_subspace.py [--parameters 5000000] [--svd 500000] [--out benchmarks/results/subspace.json]

`fit` writes k = 128 directions over m = 256 float32 rows. `svd` is `torch.linalg.svd` of the rows as a whole; it needs three times their
memory and minutes, so both are compared at fewer columns (`--svd`; the cost of each is proportional to them). Each runs in a process of
its own, on one thread, with rows of three spectra. Seconds are CPU seconds of that process. Memory is what its peak grew by, beyond the
rows. The exact directions are those of an SVD in float64 of fewer columns (`--exact`). Captured energy is ‖rows · V‖² / ‖rows‖². The
cosine is that of the largest principal angle between the first 16 directions and the exact ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcore.privacy.subspace import SubspaceBasis, fit_basis, fit_basis_in_place, room_for_rows

ROWS, RANK, SEPARATED = 256, 128, 16
SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": torch.ones_like,
    "as gradients (1/i)": lambda number: 1.0 / (number + 1.0),
    "decaying (0.9^i, to 2e-12)": lambda number: 0.9**number,
}
"""Standard deviations of the rows along 256 random directions, by number."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=5_000_000)
    parser.add_argument("--svd", type=int, default=500_000, help="columns of the comparison with torch.linalg.svd")
    parser.add_argument("--exact", type=int, default=50_000, help="columns of the comparison with an SVD in float64")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "subspace.json")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name in SPECTRA:
        found[name] = {
            "fit": _apart(_fit_cost, name, arguments.parameters),
            "fit_of_fewer": _apart(_fit_cost, name, arguments.svd),
            "svd_of_fewer": _apart(_svd_cost, name, arguments.svd),
            "exact": _apart(_nearness, name, arguments.exact),
        }
        found[name]["times_faster"] = round(found[name]["svd_of_fewer"]["cpu_s"] / found[name]["fit_of_fewer"]["cpu_s"], 1)
        print(name, json.dumps(found[name]), flush=True)
    setting = {"rows": ROWS, "rank": RANK, "parameters": arguments.parameters, "fewer": arguments.svd, "exact_columns": arguments.exact}
    machine = {"processor": platform.machine(), "cpu": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__, "threads": 1}
    arguments.out.write_text(json.dumps({"setting": setting, "machine": machine, "spectra": found}, indent=1) + "\n")


def _apart(measure: Callable[[str, int], dict[str, float]], *given: Any) -> dict[str, float]:
    """The result of `measure` in a process of its own, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, given)


def _filled(rows: list[Tensor], spectrum: str) -> None:
    """Rows with this spectrum, a block of columns at a time."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    mixed = torch.linalg.qr(torch.randn(ROWS, ROWS, generator=generator, dtype=torch.float64))[0]
    mixed = (mixed * SPECTRA[spectrum](torch.arange(ROWS, dtype=torch.float64))).float()
    for columns in torch.split(torch.arange(rows[0].shape[1]), 65_536):
        block = mixed @ torch.randn(ROWS, len(columns), generator=generator)
        for part, some in zip(rows, torch.split(block, [len(part) for part in rows]), strict=True):
            part[:, columns[0] : columns[-1] + 1] = some


def _measured(work: Callable[[], object]) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak of this process is what it holds now
    before, began = _memory_bytes("VmRSS"), time.process_time()
    kept = work()
    seconds, peak = time.process_time() - began, _memory_bytes("VmHWM")
    del kept
    return {"cpu_s": round(seconds, 2), "growth_mb": round((peak - before) / 1e6)}


def _memory_bytes(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _fit_cost(spectrum: str, parameters: int) -> dict[str, float]:
    rows = room_for_rows(ROWS, parameters, RANK, device=torch.device("cpu"))
    _filled(rows, spectrum)
    return _measured(lambda: fit_basis_in_place(rows, RANK))


def _svd_cost(spectrum: str, parameters: int) -> dict[str, float]:
    rows = torch.empty(ROWS, parameters)
    _filled([rows], spectrum)
    return _measured(lambda: torch.linalg.svd(rows, full_matrices=False))


def _nearness(spectrum: str, columns: int) -> dict[str, float]:
    rows = torch.empty(ROWS, columns)
    _filled([rows], spectrum)
    exact = torch.linalg.svd(rows.double(), full_matrices=False)[2][:RANK]
    basis = fit_basis(rows, RANK)
    directions = _directions(basis)
    cosines = torch.linalg.svdvals(exact[:SEPARATED] @ directions[:SEPARATED].T)
    return {
        "energy": _energy(rows, directions),
        "exact_energy": _energy(rows, exact),
        "one_minus_smallest_cosine": float(1 - cosines.min()),
        "orthonormality_error": float(torch.linalg.matrix_norm(directions @ directions.T - torch.eye(RANK, dtype=torch.float64))),
    }


def _directions(basis: SubspaceBasis) -> Tensor:
    if basis.directions is None:
        raise ValueError("a fitted basis has directions")
    return basis.directions.double()


def _energy(rows: Tensor, directions: Tensor) -> float:
    return float((rows.double() @ directions.T).square().sum() / rows.double().square().sum())


if __name__ == "__main__":
    main()
