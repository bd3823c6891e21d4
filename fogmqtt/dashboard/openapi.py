"""The description of the HTTP API, OpenAPI 3.1, made from the operations and their structs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from fogmqtt import __version__
from fogmqtt.dashboard.problems import ProblemBody
from fogmqtt.dashboard.tokens import Role

Handler = Callable[[Request], Awaitable[ASGIApp]]

_REF: Final = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{([a-z_]+)(?::path)?\}")
#: What an operation takes as a body, beside JSON structs.
IMAGE: Final = "image file"
#: What comes back beside JSON structs.
FILE: Final = "file"
EVENTS: Final = "events"
JPEG: Final = "jpeg"
MJPEG: Final = "mjpeg"
JSON: Final = "json"
TEXT: Final = "text"
NOTHING: Final = ""


#: The media types of bytes; those of others are told by the answer only.
_BYTES: Final = {
    IMAGE: "image/*",
    JPEG: "image/jpeg",
    MJPEG: "multipart/x-mixed-replace",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request that the API answers."""

    method: str
    path: str
    handler: Handler
    summary: str
    #: Who may do it; None: everybody.
    role: Role | None = "viewer"
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | str = NOTHING
    #: By status: a struct, or one of the words above.
    answers: Mapping[int, Any] = field(default_factory=dict)
    #: The patterns of the path's parameters, where not every text is one.
    patterns: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the description of these operations."""
    structs = {ProblemBody: None} | {one: None for each in operations for one in _structs(each)}
    _, components = msgspec.json.schema_components(tuple(structs), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        path = _PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fogmqtt",
            "version": __version__,
            "summary": "Images in, processed images out, by a fleet of small machines.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "..", "description": "where the page is"}],
        "security": [{}, {"bearer": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "fogmqtt"},
            },
            "responses": {
                "problem": {
                    "description": "Why it was not done, as one sentence in `detail`.",
                    "content": {"application/problem+json": {"schema": _ref(ProblemBody)}},
                }
            },
        },
    }


def _structs(operation: Operation) -> list[type[msgspec.Struct]]:
    candidates = (operation.body, *operation.answers.values())
    return [one for one in candidates if isinstance(one, type)]


def _operation(operation: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": _identifier(operation),
        "summary": operation.summary,
        "responses": {
            **{str(status): _answer(what) for status, what in operation.answers.items()},
            "default": {"$ref": "#/components/responses/problem"},
        },
    }
    parameters = [*_path_parameters(operation), *_query_parameters(operation)]
    parameters += [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in operation.headers.items()
    ]
    if parameters:
        made["parameters"] = parameters
    if operation.body != NOTHING:
        made["requestBody"] = {"required": True, "content": _content(operation.body)}
    return made


def _identifier(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", _PARAMETER.sub(r"\1", operation.path))
    return "_".join((operation.method.lower(), *words))


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1}
            | ({"pattern": pattern} if (pattern := operation.patterns.get(name)) else {}),
        }
        for name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    _, components = msgspec.json.schema_components((operation.query,), ref_template=_REF)
    schema = components[operation.query.__name__]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _portable(value)}
        for name, value in schema["properties"].items()
    ]


def _portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose pattern other languages read, too: Python alone has \\Z."""
    if "pattern" in schema:
        return schema | {"pattern": schema["pattern"].replace(r"\Z", "$")}
    return schema


def _answer(what: Any) -> dict[str, Any]:
    if what == NOTHING:
        return {"description": "Nothing more to say."}
    return {"description": "Done.", "content": _content(what)}


def _content(what: Any) -> dict[str, Any]:
    if isinstance(what, type):
        return {"application/json": {"schema": _ref(what)}}
    if what == EVENTS:
        return {"text/event-stream": {"schema": {"type": "string"}}}
    if what == TEXT:
        return {"text/plain": {"schema": {"type": "string"}}}
    if what == JSON:
        return {"application/json": {"schema": {"type": "object"}}}
    kind = _BYTES.get(what, "*/*")
    return {kind: {"schema": {"type": "string", "format": "binary"}}}


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}
