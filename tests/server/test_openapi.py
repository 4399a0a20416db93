"""Every operation of the OpenAPI document, with what the document allows: no crash, no answer it does not name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from people_world import Site, fill
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hearken.feedback.records import ItemKind
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app
from hearken.server.security import Door

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The document, and a token that may do everything."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    store = FeedbackStore(folder / "feedback.db")
    fill(store, get_args(ItemKind), slots=50)
    site = Site(store, create_app(store, door=Door(hosts=frozenset())))
    site.machine("robot")
    secret, _ = store.access.add_token("all", ["label", "read", "write", "manage"], labeler_id="robot")
    loaded = schemathesis.openapi.from_asgi("/api/v1/openapi.json", site.app)
    loaded.hearken_token = secret
    yield loaded
    store.close()


@pytest.mark.slow
def test_the_server_keeps_to_its_document(api: Any) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert {"claim", "submit", "chat", "export"} <= {one.definition.raw["operationId"] for one in operations}
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def keeps(case: Any) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {api.hearken_token}"}, checks=CHECKS)

        keeps()


def test_the_document_describes_every_operation(api: Any) -> None:
    for path, methods in api.raw_schema["paths"].items():
        for method, operation in methods.items():
            assert operation["description"] and operation["operationId"] and operation["tags"], (method, path)
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)
