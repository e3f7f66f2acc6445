"""The fields of KubeRay's resources that the manifests use, with their types: what is checked without a Kubernetes.

`crd_fields.json` is the committed list. Derived again from KubeRay's own definitions (helm-chart/kuberay-operator/crds of
github.com/ray-project/kuberay), when a manifest uses a new field or KubeRay moves on:

    python tests/cluster/crd_fields.py CRDS_FOLDER
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LIST_PATH = Path(__file__).with_suffix(".json")
CLUSTER_DIR = Path(__file__).parents[2] / "cluster"
MANIFESTS = ("raycluster.yaml", "rayjob.yaml", "mlflow-kubernetes.yaml")
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a manifest under cluster/."""
    return list(yaml.safe_load_all((CLUSTER_DIR / name).read_text()))


def leaves(value: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Every place of a document with its value: `spec workerGroupSpecs [] groupName`; keys themselves may have dots."""
    yield " ".join(path), value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, *path, key)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, *path, "[]")


def parts(name: str) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The kinds whose fields are known, with the places that a manifest has of them.

    A RayJob's cluster is checked as the RayCluster that it equals, and a Deployment's pods as the pods of a RayCluster.
    """
    for document in documents(name):
        spec = document["spec"]
        if document["kind"] in ("RayCluster", "RayJob"):
            yield document["kind"], list(leaves({**spec, "rayClusterSpec": {}} if "rayClusterSpec" in spec else spec, "spec"))
        elif "template" in spec:
            yield "PodTemplate", list(leaves(spec["template"]["spec"], "spec"))


def field_of(schema: dict[str, Any], path: str) -> str:
    """Type of a place in an OpenAPI schema, or its admitted values as `a|b`; a map's keys have the type of its values.

    Raises:
        KeyError: the schema has no such place.
    """
    for part in path.split(" "):
        schema = schema["items"] if part == "[]" else schema.get("properties", {}).get(part) or schema["additionalProperties"]
    if "enum" in schema:
        return "|".join(schema["enum"])
    return "int-or-string" if schema.get("x-kubernetes-int-or-string") else str(schema["type"])


def fits(value: Any, field: str) -> bool:
    """Whether a value has its field's type or is one of its admitted values."""
    if field == "int-or-string":
        return isinstance(value, int | str) and not isinstance(value, bool)
    if field not in TYPES:
        return value in field.split("|")
    return isinstance(value, TYPES[field]) and (field == "boolean" or not isinstance(value, bool))


def derive(crds: Path) -> dict[str, dict[str, str]]:
    """Kind to place to field, from KubeRay's definitions."""
    schemas = {kind: _schema(crds / f"ray.io_{kind.lower()}s.yaml") for kind in ("RayCluster", "RayJob")}
    schemas["PodTemplate"] = schemas["RayCluster"]["properties"]["spec"]["properties"]["headGroupSpec"]["properties"]["template"]
    kinds: dict[str, dict[str, str]] = {kind: {} for kind in schemas}
    for kind, places in (part for name in MANIFESTS for part in parts(name)):
        kinds[kind].update({path: field_of(schemas[kind], path) for path, _ in places})
    return kinds


def _schema(path: Path) -> dict[str, Any]:
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in yaml.safe_load(path.read_text())["spec"]["versions"] if v["name"] == "v1"]
    return dict(schema)


if __name__ == "__main__":
    LIST_PATH.write_text(json.dumps(derive(Path(sys.argv[1])), indent=1, sort_keys=True) + "\n")
