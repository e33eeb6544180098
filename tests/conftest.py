"""What holds for every test: a clean environment and reproducible Hypothesis runs."""

import os

import pytest
from hypothesis import settings
from support.external import externals_required

_SETTINGS = (
    "BIGQUERY_",
    "CLOUDSDK_",
    "ENABLE_",
    "GCE_",
    "GCLOUD_",
    "GCS_",
    "GOOGLE_",
    "GRPC_",
    "K_",
    "LINER_",
    "OPENAI_",
    "OTEL_",
    "PUBSUB_",
    "QWEN2_",
    "STORAGE_EMULATOR_",
    "USE_OPENAI_",
)
_SINGLE = {"PORT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
_WHERE_TOOLS_ARE = {"LINER_LOCAL_BIGQUERY", "LINER_PUBSUB_EMULATOR", "LINER_PY313"}


def _is_setting(name: str) -> bool:
    upper = name.upper()
    return name not in _WHERE_TOOLS_ARE and (upper.startswith(_SETTINGS) or upper in _SINGLE)


# At import, before any test module: what a developer has exported must not change a result, and
# no test may reach a real cloud with a developer's credentials. Child processes inherit this.
for _name in list(filter(_is_setting, os.environ)):
    del os.environ[_name]
os.environ["CLOUDSDK_CONFIG"] = os.devnull  # no credentials of a signed-in developer
os.environ["NO_GCE_CHECK"] = "true"  # no search for a metadata server

# Two shared cores make any single example slow now and then, so no deadline. CI draws the same
# examples each time: a red run means that the change broke something.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_report_header() -> str:
    """Say whether a skipped backend would have been an error."""
    return "external backends: " + (
        "required" if externals_required() else "skipped where absent (REQUIRE_EXTERNAL=1 fails)"
    )


@pytest.fixture(autouse=True)
def _in_an_empty_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep a test from reading a developer's .env, or writing .liner beside the source."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
