"""The launcher's YAML files against Ray's own schema, and what they promise."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.internals.ray_internals import check_launcher_config

ROOT = Path(__file__).parents[2]
NAMES = ("local.yaml", "aws.yaml", "gcp.yaml")
CLOUDS = ("aws.yaml", "gcp.yaml")


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster" / name).read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_rays_own_schema_admits_it(name: str) -> None:
    check_launcher_config(load(name))


def test_rays_own_schema_refuses_a_misspelt_key() -> None:
    with pytest.raises(Exception, match="setup_command"):
        check_launcher_config({**load("local.yaml"), "setup_command": []})


@pytest.mark.parametrize("name", NAMES)
def test_a_cluster_has_the_package_the_token_and_no_open_dashboard(name: str) -> None:
    config = load(name)
    assert config["file_mounts"] == load("local.yaml")["file_mounts"]
    sources = {source for source in config["file_mounts"].values() if not source.startswith("~")}
    assert all((ROOT / source).exists() for source in sources)
    assert {"pyproject.toml", "cluster", "dpcore", "search_spaces", "sweeps"} <= sources
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [line for where in ("head", "worker") for line in config[f"{where}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_has_an_on_demand_head_and_spot_workers_with_gpus_that_scale_from_none(name: str) -> None:
    config = load(name)
    head, worker = (config["available_node_types"][kind] for kind in (config["head_node_type"], "gpu_worker"))
    assert not re.search("spot", str(head), re.IGNORECASE)
    assert re.search("spot", str(worker["node_config"]), re.IGNORECASE)
    assert head["resources"]["CPU"] == 0
    assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
