"""The API documents itself, completely and without the internet."""

import json
import re

import httpx2
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from app import errors, exact_json
from app.schemas.base import Output
from app.schemas.item import Item


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_pages_need_nothing_from_elsewhere(client: httpx2.AsyncClient, page: str) -> None:
    html = (await client.get(page)).text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)|url: ["']([^"']+)|spec-url=["']([^"']+)""", html)
    flat = [address for group in addresses for address in group if address]
    assert any(address.endswith(".js") for address in flat)
    for address in flat:
        assert address.startswith("/"), address
        assert (await client.get(address)).status_code == 200
    assert "https://" not in html


async def test_every_operation_is_described(app: FastAPI) -> None:
    document = app.openapi()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 12
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["description"], name
        assert "503" in operation["responses"], name
        problems = [
            response
            for status, response in operation["responses"].items()
            if not status.startswith("2") and "application/problem+json" in response.get("content", {})
        ]
        assert problems, name
        assert "HTTPValidationError" not in str(operation), f"{name}: 422 is a problem document here"
        bodies = [response["content"] for status, response in operation["responses"].items() if status.startswith("2")]
        assert bodies, name
        if "requestBody" in operation:
            bodies.append(operation["requestBody"]["content"])
        for media_type, content in [entry for body in bodies for entry in body.items()]:
            if media_type != "application/json":
                assert "example" in content or content["examples"], name
                continue
            references = re.findall(r"#/components/schemas/(\w+)", str(content["schema"]))
            assert references, name
            assert all(document["components"]["schemas"][schema]["examples"] for schema in references), name


def test_examples_of_answers_fit_their_schemas() -> None:
    checked = 0
    for model in [*Output.__subclasses__(), *Item.__subclasses__()]:
        extra = model.model_config.get("json_schema_extra")
        for example in extra["examples"] if isinstance(extra, dict) else ():  # type: ignore[union-attr]  # JSON values
            document = exact_json.dumps(model.model_validate(example).model_dump(by_alias=True))
            assert json.loads(document) == example, model
            checked += 1
    assert checked >= 12


def test_examples_in_the_document_are_whole(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    checked = 0
    for name, schema in schemas.items():
        for example in schema.get("examples", []):
            reference = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
            Draft202012Validator(reference).validate(example)
            checked += 1
    assert checked >= 20


async def test_links_lead_to_operations(app: FastAPI) -> None:
    operations = {
        operation["operationId"]: operation
        for methods in app.openapi()["paths"].values()
        for operation in methods.values()
    }
    links = [
        link
        for operation in operations.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert len(links) > 40
    for link in links:
        parameters = {parameter["name"] for parameter in operations[link["operationId"]].get("parameters", [])}
        assert {name.removeprefix("header.") for name in link["parameters"]} <= parameters, link


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/items/sku:A/prior-price", "GET"),
        ("DELETE", "/v1/items/sku:A/prices", "GET, POST"),
        ("GET", "/v1/imports/01a20537-de50-7ff8-9c93-02db0b06a11c:apply", "POST"),
        ("PUT", "/v1/items/sku:A/price/s", "GET, PATCH, DELETE"),
    ],
)
async def test_addresses_take_what_the_document_says(
    client: httpx2.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


async def test_problem_types_have_an_address(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/problems")).json()
    assert [kind["type"] for kind in listed] == [f"/problems/{kind.slug}" for kind in errors.problem_types()]
    for kind in listed:
        assert (await client.get(kind["type"])).json() == kind
        assert kind["description"].endswith(".")
    assert (await client.get("/problems/none")).json()["type"] == "/problems/not-found"
