"""Checks deployment files against the published schemas of Kubernetes and Cloud Run.

The schemas are read out of wheels that `make tools` fetches and nobody installs.
"""

import functools
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from support.external import missing

ROOT = Path(__file__).parents[2] / "deployment"
FILES = sorted(ROOT.rglob("*.yaml"))

_WHEELS = Path(sys.prefix) / "schemas"
_RUN = "googleapiclient/discovery_cache/documents/run.v1.json"
_KUBERNETES = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/"
_CLOUD_RUN = ("serving.knative.dev/v1", "run.googleapis.com/v1")
_OTHERS = {"keda.sh/v1alpha1": {"ScaledObject", "TriggerAuthentication"}}
"""Kinds of systems whose schemas no package brings."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: the first one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}, {node.start_mark}"
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file."""
    return list(yaml.load_all(path.read_text(), _Loader))


def faults(document: dict[str, Any]) -> list[str]:
    """Return what the schema of its kind says is wrong with an object."""
    version, kind = document["apiVersion"], document["kind"]
    if version in _OTHERS:
        return [] if kind in _OTHERS[version] else [f"there is no {kind} in {version}"]
    if version in _CLOUD_RUN:
        schema = _cloud_run_schema(kind)
        validator: Any = jsonschema.Draft202012Validator(schema)
    else:
        group, _, name = version.rpartition("/")
        group = group.partition(".")[0]
        parts = (kind.lower(), *filter(None, [group]), name)
        schema = json.loads(_read("kubernetes_validate-*", f"{_KUBERNETES}{'-'.join(parts)}.json"))
        validator = jsonschema.Draft7Validator(schema, registry=_kubernetes_registry())
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    if version in _CLOUD_RUN:
        found.extend(_annotation_faults(document, "$"))
    return found


def containers(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each container, and the pod that it is part of."""
    if "containers" in document:
        for container in document["containers"]:
            yield container, document
    for value in document.values():
        if isinstance(value, dict):
            yield from containers(value)


@functools.cache
def _read(wheel: str, name: str) -> bytes:
    found = sorted(_WHEELS.glob(wheel))
    if not found:
        missing("the schemas of deployment files", install="make tools")
    with zipfile.ZipFile(found[-1]) as archive:
        return archive.read(name)


def _discovery() -> dict[str, Any]:
    found = json.loads(_read("google_api_python_client-*", _RUN))
    assert isinstance(found, dict)
    return found


@functools.cache
def _cloud_run_schema(kind: str) -> dict[str, Any]:
    """Return the discovery document's schemas as JSON Schema that knows no other fields."""
    schemas = _discovery()["schemas"]
    assert kind in schemas, f"Cloud Run has no {kind}"
    return {
        "$ref": f"#/$defs/{kind}",
        "$defs": {name: _as_json_schema(schema) for name, schema in schemas.items()},
    }


def _as_json_schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_as_json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: _as_json_schema(value)
        for key, value in schema.items()
        # Formats and defaults are Google's own, descriptions nobody checks.
        if key not in ("id", "format", "default", "description", "deprecated", "enumDescriptions")
    }
    if isinstance(schema.get("$ref"), str):
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made["properties"] = {
            name: _as_json_schema(value) for name, value in schema["properties"].items()
        }
        made["additionalProperties"] = False
    return made


@functools.cache
def _annotations() -> frozenset[str]:
    """Return the annotations that Cloud Run accepts, as its document lists them."""
    text = _discovery()["schemas"]["ObjectMeta"]["properties"]["annotations"]["description"]
    return frozenset(
        re.findall(r"`((?:run\.googleapis\.com|autoscaling\.knative\.dev)/.*?)`", text)
    )


def _annotation_faults(document: Any, path: str) -> Iterator[str]:
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if key == "annotations":
            for name in value.keys() - _annotations():
                yield f"{path}.annotations: Cloud Run knows no {name}"
        else:
            yield from _annotation_faults(value, f"{path}.{key}")


def _kubernetes_registry() -> Any:
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT7

    def retrieve(uri: str) -> Any:
        name = uri.rpartition("/")[2]
        return Resource.from_contents(
            json.loads(_read("kubernetes_validate-*", _KUBERNETES + name)),
            default_specification=DRAFT7,
        )

    return Registry(retrieve=retrieve)  # type: ignore[call-arg]
