"""Deployment files are what Kubernetes and Cloud Run take, and fit the program they start."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from liner_server.settings import Settings
from pydantic import AliasChoices
from support.manifests import FILES, ROOT, containers, documents, faults

_WITH_CONTAINERS = [path for path in FILES if any(map(list, map(containers, documents(path))))]
_NAMES = {
    str(field.validation_alias.choices[0])
    if isinstance(field.validation_alias, AliasChoices)
    else f"LINER_{name.upper()}"
    for name, field in Settings.model_fields.items()
}


def _of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=_of)
def test_the_schema_of_its_kind_takes_it(path: Path) -> None:
    """A misspelt field is ignored or refused on the day of the deployment, not before."""
    found = documents(path)

    assert found
    assert [fault for document in found for fault in faults(document)] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("spec", "template", "spec", "containers", 0, "resource"), "resource"),
        (("spec", "template", "spec", "timeoutSecond"), "timeoutSecond"),
        (("metadata", "annotations", "run.googleapis.com/cpu-throtling"), "cpu-throtling"),
    ],
)
def test_a_misspelt_field_is_found_in_cloud_run_files(change: tuple, says: str) -> None:
    """The check itself must be able to fail."""
    [document] = documents(ROOT / "cloudrun/queue-processor.yaml")
    *way, last = change
    place = document
    for step in way:
        place = place[step]
    place[last] = "x"

    assert any(says in fault for fault in faults(document))


@pytest.mark.parametrize("file", ["cronjobs/cleanup.yaml", "kubernetes/worker.yaml"])
def test_a_misspelt_field_is_found_in_kubernetes_files(file: str) -> None:
    """The check itself must be able to fail, deep inside as well."""
    [document] = documents(ROOT / file)
    container, _ = next(containers(document))
    container["securityContext"]["readOnlyRootFileSystem"] = True

    assert any("readOnlyRootFileSystem" in fault for fault in faults(document))


def test_the_queue_processor_is_what_was_agreed() -> None:
    """Names and sizes that others rely on."""
    [document] = documents(ROOT / "cloudrun/queue-processor.yaml")
    revision = document["spec"]["template"]
    [container] = revision["spec"]["containers"]

    assert (document["apiVersion"], document["kind"]) == ("serving.knative.dev/v1", "Service")
    assert document["metadata"]["name"] == "queue-processor"
    assert container["image"] == "gcr.io/project/queue-processor"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert {"name": "PUBSUB_TOPIC", "value": "ai-processing"} in container["env"]
    assert [port["name"] for port in container["ports"]] == ["h2c"]
    assert "grpc" in container["startupProbe"]
    assert "grpc" in container["livenessProbe"]
    assert revision["metadata"]["annotations"]["run.googleapis.com/cpu-throttling"] == "false"
    assert int(revision["metadata"]["annotations"]["autoscaling.knative.dev/minScale"]) >= 1


def test_the_cleanup_is_what_was_agreed() -> None:
    """At midnight, and never two at a time."""
    [document] = documents(ROOT / "cronjobs/cleanup.yaml")
    [(container, _)] = containers(document)

    assert (document["apiVersion"], document["kind"]) == ("batch/v1", "CronJob")
    assert document["metadata"]["name"] == "file-cleanup"
    assert document["spec"]["schedule"] == "0 0 * * *"
    assert document["spec"]["concurrencyPolicy"] == "Forbid"
    assert (container["name"], container["image"]) == ("cleanup", "gcr.io/project/cleanup")


@pytest.mark.parametrize("path", _WITH_CONTAINERS, ids=_of)
def test_containers_fit_the_program(path: Path) -> None:
    """Every variable is a setting, every key a secret, every volume is there, every account too."""
    for document in documents(path):
        for container, pod in containers(document):
            variables = {entry["name"]: entry for entry in container["env"]}
            volumes = {volume["name"] for volume in pod.get("volumes", [])} | {
                claim["metadata"]["name"]
                for claim in document["spec"].get("volumeClaimTemplates", [])
            }

            assert variables.keys() <= _NAMES
            assert all(
                "valueFrom" in entry for name, entry in variables.items() if name.endswith("KEY")
            )
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["command"] == ["liner-server"]
            assert container["args"] in (["serve"], ["worker"], ["cleanup"])
            assert pod["serviceAccountName"].startswith("liner-")
            # Open to others: then the settings ask for tokens.
            inside = variables.get("LINER_HTTP_ADDRESS", {}).get("value", "").startswith("127.")
            assert inside or "LINER_TOKENS_FILE" in variables


@pytest.mark.parametrize("path", _WITH_CONTAINERS, ids=_of)
def test_kubernetes_containers_may_do_nothing_special(path: Path) -> None:
    """Whoever breaks in finds no root, no writable program and no token of the cluster."""
    for document in documents(path):
        if document["apiVersion"] not in ("apps/v1", "batch/v1"):
            continue
        for container, pod in containers(document):
            security = container["securityContext"]

            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["automountServiceAccountToken"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def _commands(**environment: str) -> list[str]:
    found = subprocess.run(
        [ROOT / "setup-iam.sh"],
        env={
            "PATH": os.environ["PATH"],
            "DRY_RUN": "1",
            "PROJECT": "p",
            "REGION": "r",
            "BUCKET": "b",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.splitlines()


_GCLOUD = """#!/usr/bin/env bash
# Refuses, as Google does, to make what is there and to describe what is not.
case "$*" in
  "projects describe "*) echo 17 ;;
  "iam "*" describe "*) grep -qx "$1 $2 ${4%%@*}" "$STATE" ;;
  "iam "*" create "*) ! grep -qx "$1 $2 $4" "$STATE" && echo "$1 $2 $4" >> "$STATE" ;;
  "scheduler jobs create "*) ! grep -qx "$1 $2 $5" "$STATE" && echo "$1 $2 $5" >> "$STATE" ;;
esac
"""


def test_the_accounts_can_be_set_up_again(tmp_path: Path) -> None:
    """A second run must not end half-way, at the first thing that is there already."""
    (tmp_path / "state").touch()
    for name, text in (("gcloud", _GCLOUD), ("bq", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STATE": str(tmp_path / "state"),
        "DRY_RUN": "",
        "PAUSE": "1",
        "GKE": "1",
    }

    _commands(**environment)
    made = (tmp_path / "state").read_text()
    _commands(**environment)

    assert "iam roles linerQueuePauser" in made
    assert (tmp_path / "state").read_text() == made


def test_every_account_that_runs_something_is_made() -> None:
    """A service that names an account which is not there cannot be deployed."""
    made = set(re.findall(r"service-accounts create (\S+)", "\n".join(_commands())))
    used = {
        pod["serviceAccountName"].partition("@")[0]
        for path in FILES
        for document in documents(path)
        for _, pod in containers(document)
    }
    named = {
        document["metadata"]["name"]
        for document in documents(ROOT / "kubernetes/serviceaccounts.yaml")
    }

    assert used <= made
    assert named <= used


def test_nobody_gets_more_than_it_needs() -> None:
    """No owner, editor or admin; on the whole project only what cannot be had on less."""
    commands = _commands(GKE="1")
    roles = {role for line in commands for role in re.findall(r"roles/\S+", line)}
    on_project = {
        re.search(r"--role (\S+)", line)[1]
        for line in commands
        if "projects add-iam-policy-binding" in line
    }

    assert not [role for role in roles if re.search(r"owner|editor$|[aA]dmin", role)]
    assert on_project == {"roles/pubsub.viewer", "roles/bigquery.jobUser"}
    cleanup = [line for line in commands if "liner-cleanup@" in line and "--role" in line]
    assert {re.search(r"--role (\S+)", line)[1] for line in cleanup} == {
        "roles/storage.objectUser",
        "roles/iam.workloadIdentityUser",
    }


def test_workers_are_scaled_by_the_subscriptions_that_setup_makes() -> None:
    """A scaler that watches a name which is not there keeps the least number for ever."""
    scaled = yaml.safe_load_all((ROOT / "kubernetes/keda.yaml").read_text())
    [scaler] = [document for document in scaled if document["kind"] == "ScaledObject"]
    watched = {t["metadata"]["subscriptionName"].split("/")[-1] for t in scaler["spec"]["triggers"]}
    [worker] = documents(ROOT / "kubernetes/worker.yaml")

    assert watched == {f"ai-processor-{word}" for word in ("high", "medium", "low")}
    assert scaler["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
