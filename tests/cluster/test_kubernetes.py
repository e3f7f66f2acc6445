"""The Kubernetes manifests against the types of KubeRay's resources, and what they promise."""

import json
from pathlib import Path
from typing import Any

import pytest
from crd_fields import CLUSTER_DIR, LIST_PATH, MANIFESTS, documents, field_of, fits, leaves, parts

FIELDS: dict[str, dict[str, str]] = json.loads(LIST_PATH.read_text())


def one(name: str, kind: str) -> dict[str, Any]:
    (document,) = [document for document in documents(name) if document["kind"] == kind]
    return document


def pods(value: Any) -> list[dict[str, Any]]:
    """The pod specs anywhere in a document."""
    return [spec for _, spec in leaves(value) if isinstance(spec, dict) and "containers" in spec]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_field_is_one_of_kuberays_and_has_its_type(name: str) -> None:
    found = list(parts(name))
    assert found
    for kind, places in found:
        for path, value in places:
            assert path in FIELDS[kind], f"{name}: {path} is not on the list; derive it again (crd_fields.py)"
            assert fits(value, FIELDS[kind][path]), f"{name}: {path} is {value!r}, expected {FIELDS[kind][path]}"


def test_a_misspelt_field_and_a_wrong_type_are_found() -> None:
    assert "spec authOptions mod" not in FIELDS["RayCluster"]
    assert not fits("everyone", FIELDS["RayCluster"]["spec authOptions mode"])
    assert not fits("4", FIELDS["RayCluster"]["spec workerGroupSpecs [] maxReplicas"])
    assert not fits(True, FIELDS["RayJob"]["spec backoffLimit"])
    with pytest.raises(KeyError):
        field_of({"properties": {"spec": {"type": "object"}}}, "spec rayVersio")


def test_a_jobs_cluster_is_the_cluster() -> None:
    assert one("rayjob.yaml", "RayJob")["spec"]["rayClusterSpec"] == one("raycluster.yaml", "RayCluster")["spec"]


def test_the_cluster_asks_for_a_token_scales_itself_and_has_a_gpu_group() -> None:
    spec = one("raycluster.yaml", "RayCluster")["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in groups.values())


def test_no_job_holds_its_machines_for_ever() -> None:
    """Slurm's limit is asked for again by a requeue; KubeRay's is for all retries together."""
    assert 3600 < one("rayjob.yaml", "RayJob")["spec"]["activeDeadlineSeconds"] <= 14 * 24 * 3600
    assert "#SBATCH --time=" in (CLUSTER_DIR / "slurm.sbatch").read_text()


def test_every_pod_of_a_cluster_sees_the_storage_that_a_retry_goes_on_from() -> None:
    job = one("rayjob.yaml", "RayJob")
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["entrypoint"].startswith("sh /opt/dpsweep/cluster/sweep.sh ")
    assert " /mnt/dpsweep/sweeps " in job["spec"]["entrypoint"]
    (claim,) = documents("kubernetes-storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(job):
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["dpsweep"] == "/mnt/dpsweep"
        assert {"name": "dpsweep", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_secrets_come_from_secrets_and_nothing_is_published(name: str) -> None:
    for document in documents(name):
        if document["kind"] == "Service":
            assert document["spec"].get("type", "ClusterIP") == "ClusterIP"
        assert document["kind"] != "Secret"
        for pod in pods(document):
            for variable in pod["containers"][0].get("env", []):
                secret = any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN"))
                assert not secret or "secretKeyRef" in variable["valueFrom"], variable


def test_the_mlflow_services_find_their_pods() -> None:
    found = documents("mlflow-kubernetes.yaml")
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in found if "template" in d["spec"]]
    ports = {
        d["spec"]["template"]["metadata"]["labels"]["app"]: d["spec"]["template"]["spec"]["containers"][0]["ports"]
        for d in found
        if "template" in d["spec"]
    }
    for document in found:
        if document["kind"] == "Service":
            assert document["spec"]["selector"] in labels
            assert ports[document["spec"]["selector"]["app"]] == [{"containerPort": document["spec"]["ports"][0]["port"]}]
        elif "template" in document["spec"]:
            assert document["spec"]["selector"]["matchLabels"] == document["spec"]["template"]["metadata"]["labels"]


def test_the_list_has_no_field_that_no_manifest_uses() -> None:
    used: dict[str, set[str]] = {kind: set() for kind in FIELDS}
    for kind, places in (part for name in MANIFESTS for part in parts(name)):
        used[kind].update(path for path, _ in places)
    assert {kind: set(fields) for kind, fields in FIELDS.items()} == used
    assert Path(LIST_PATH).stat().st_size < 20_000
