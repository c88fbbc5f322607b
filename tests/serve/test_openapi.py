"""The server's description is current, complete and true: requests made from it are answered as it says."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import positive_data_acceptance

from acclimate.serve.app import create_app
from acclimate.serve.settings import Limits, Settings

from .served import TOKEN, images, network

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS = Settings(method="tent", update="inline", token=TOKEN, limits=Limits(streams=20, body_bytes=1 << 16))
APP = create_app(SETTINGS, network())
DOCUMENT: dict[str, Any] = APP.openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMA.app = APP
OPERATIONS = {result.ok().definition.raw["operationId"]: result.ok() for result in SCHEMA.get_all_operations()}

BOUNDED = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, verbs in DOCUMENT["paths"].items():
        for verb, operation in verbs.items():
            yield f"{verb} {path}", operation


def test_the_published_document_is_current():
    spec = importlib.util.spec_from_file_location("make_openapi", DOCS / "make_openapi.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert (DOCS / "openapi.json").read_text("utf-8") == maker.document(), "it is stale: run make docs"


def test_every_path_of_the_contract_is_described():
    stream = "/v1/streams/{stream}"
    assert {name for name, _ in operations()} == {
        *(f"get {path}" for path in ("/livez", "/readyz", "/metrics", "/v1/info", "/v1/streams", stream)),
        f"get {stream}/snapshots",
        *(f"post {stream}/{verb}" for verb in ("predict", "rollback", "reset", "freeze", "snapshots")),
        f"delete {stream}",
    }


@pytest.mark.parametrize("name", [name for name, _ in operations()])
def test_every_example_fits_its_schema(name):
    """Each response says what it holds, with an example; so does each request that has a body."""
    operation = dict(operations())[name]
    parts = {code: response.get("content", {}) for code, response in operation["responses"].items()}
    if "requestBody" in operation:
        parts["request"] = operation["requestBody"]["content"]
    looked = 0
    for code, content in parts.items():
        assert content, f"{name}: {code} does not say what it holds"
        for kind, part in content.items():
            if kind != "application/json":
                continue
            schema = {**part["schema"], "components": DOCUMENT["components"]}
            values = [part["example"]] if "example" in part else [each["value"] for each in part["examples"].values()]
            assert values, f"{name}: {code} has no example"
            for value in values:
                jsonschema_rs.validate(schema, value)
                looked += 1
    assert looked
    control = name.startswith(("post", "delete")) and not name.endswith("predict")
    assert ("security" in operation) == control
    assert {"401", "403"} <= parts.keys() or not control


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """Speaks to the app without a socket."""
    with asgi.get_client(APP) as client:
        end = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield client


@pytest.mark.parametrize(
    ("name", "token"),
    [(name, TOKEN) for name in OPERATIONS]
    + [(name, None) for name, operation in OPERATIONS.items() if "security" in operation.definition.raw],
)
def test_requests_made_from_the_description_are_answered_as_it_says(name, token, session):
    """Good ones and bad ones: never a 5xx that is not described, and status, type and body of every answer fit."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    seen = set[int]()

    body = {"inputs": images(0).tolist()}
    assert session.post("/v1/streams/line-3/predict", json=body).status_code == 200, "so that there is one to look at"
    operation, modes = OPERATIONS[name], [True]
    if "parameters" in operation.definition.raw or operation.body:
        modes.append(False)
    # no schema says which batches the model takes, and one takes 1.0 for a whole number
    unsaid = [positive_data_acceptance] if name in ("predict", "rollback") else []

    for good in modes:
        mode = schemathesis.GenerationMode.POSITIVE if good else schemathesis.GenerationMode.NEGATIVE

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            if good and "stream" in case.path_parameters:  # noqa: B023
                case.path_parameters["stream"] = "line-3"
            response = case.call(session=session, headers=headers)
            seen.add(response.status_code)
            case.validate_response(response, excluded_checks=unsaid)

        ask()
    if token is None:
        assert seen <= {401, 405, 422}
    else:
        assert 200 in seen or name in ("predict", "rollback")


def test_the_document_is_served(session):
    assert session.get("/openapi.json").json() == json.loads((DOCS / "openapi.json").read_text("utf-8"))
    assert session.get("/docs").status_code == 404
