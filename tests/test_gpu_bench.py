"""The measurements for a GPU run on a machine without one, so that they are ready when one is at hand."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_measurement_for_a_gpu_runs_on_a_cpu_and_is_written_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("gpu_bench", ROOT / "benchmarks/gpu.py")
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_bench", bench)
    spec.loader.exec_module(bench)
    bench.main(["--device", "cpu", "--quick", "--out", str(tmp_path / "gpu.json")])
    found = json.loads((tmp_path / "gpu.json").read_text())
    (network,) = found["steps"].values()
    assert set(network) == {"fp32", "bf16"}
    assert {"plain_ms", "dpsgd", "pair", "dpsgd_host_syncs", "pair_host_syncs"} <= set(network["fp32"])
    assert found["data"]["resident_ms"] > 0
    assert found["noise"]["device_ms"] > 0
    assert found["trial"]["steps"] == 2
