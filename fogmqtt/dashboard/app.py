"""The HTTP application: the API, the page, and the gate before both."""

from __future__ import annotations

import logging
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fogmqtt import __version__
from fogmqtt.dashboard.access import SAFE_METHODS, Door, Visitor
from fogmqtt.dashboard.api import Api
from fogmqtt.dashboard.live import LiveEndpoint
from fogmqtt.dashboard.openapi import Operation
from fogmqtt.dashboard.problems import Problem, problem_of
from fogmqtt.dashboard.static_files import StaticFiles
from fogmqtt.errors import FogError
from fogmqtt.log import one_line

log = logging.getLogger(__name__)
#: One line for each act: who did what to which job, and what came of it.
audit = logging.getLogger("fogmqtt.audit")

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors {ancestors}"
)


def make_app(api: Api, live: LiveEndpoint, door: Door, static: StaticFiles) -> ASGIApp:
    """Return the application."""

    async def page(request: Request) -> Response:
        return static.response(request, request.path_params["path"])

    by_path: dict[str, dict[str, Operation]] = {}
    for operation in api.operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    routes = [Route(path, _Endpoint(methods, door)) for path, methods in by_path.items()]
    socket = WebSocketRoute("/api/live", live)
    app = Starlette(routes=[socket, *routes, Route("/{path:path}", page)])
    # A sub-path of a proxy would be lost in a redirect.
    app.router.redirect_slashes = False
    app.add_exception_handler(HTTPException, _router_problem)
    app.add_exception_handler(FogError, _fog_problem)
    app.add_exception_handler(Exception, _fault)
    return Gate(app, door)


class _Endpoint:
    """The operations of one path."""

    def __init__(self, operations: dict[str, Operation], door: Door) -> None:
        self._operations = dict(operations)
        if "GET" in operations:
            self._operations["HEAD"] = operations["GET"]
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operations.get(scope["method"])
        if operation is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._operations))})
        request = Request(scope, receive, send)
        if operation.role is not None:
            self._door.require(request.state.visitor, operation.role)
        response = await operation.handler(request)
        await response(scope, receive, send)


async def _router_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    path = one_line(request.url.path)[:80]
    if error.status_code == 404:
        return Problem("not-found", 404, f"There is nothing at {path!r}.").response()
    detail = f"{request.method} is not possible at {path!r}."
    headers = dict(error.headers or {})
    if "Allow" in headers:
        detail += f" Use {headers['Allow']}."
    return Problem("method", error.status_code, detail, headers=headers).response()


async def _fog_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, FogError)  # noqa: S101
    del request
    return problem_of(error).response()


async def _fault(request: Request, error: Exception) -> Response:
    """Answer a request that met a fault of ours; the log has its traceback."""
    del request, error
    return Problem(
        "failed", 500, "The dashboard met a fault of its own; its log says which."
    ).response()


class Gate:
    """Lets a request in, or answers it with a problem; adds the headers that all answers have."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        # A page of another site can open a WebSocket here, so it must be ours, as for an act.
        method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        headers, peer = Headers(scope=scope), (scope.get("client") or ("", 0))[0]
        act = _Act(scope, method)
        visitor: Visitor | None = None

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                _add_headers(MutableHeaders(scope=message), visitor)
                act.status = message["status"]
            await send(message)

        try:
            visitor = self._door.visitor(headers, peer, scope["scheme"])
            act.visitor = visitor
            self._door.check_origin(method, headers, peer)
        except Problem as problem:
            await problem.response()(scope, receive, send_with_headers)
        else:
            scope["state"] = {**scope.get("state", {}), "visitor": visitor}
            scope["path"] = _without_base(scope["path"], visitor.base)
            await self._app(scope, receive, send_with_headers)
        act.log(peer)


class _Act:
    """A request that changes something, for the log."""

    def __init__(self, scope: Scope, method: str) -> None:
        self._scope = scope
        self._method = method
        self._what = f"{method} {one_line(scope['path'])[:200]}"
        self.visitor: Visitor | None = None
        self.status = 0

    def log(self, peer: str) -> None:
        if self._method in (*SAFE_METHODS, "WEBSOCKET"):
            return
        who = self.visitor.who if self.visitor is not None else f"somebody at {peer}"
        job = self._scope.get("state", {}).get("job", "")
        about = f" job {job}" if job else ""
        audit.info("%s: %s%s: %d", who, self._what, about, self.status)


def _without_base(path: str, base: str) -> str:
    """Return the path as we know it, whether the proxy has removed its own part or not."""
    return path[len(base) :] if base and path.startswith(f"{base}/") else path


def _add_headers(headers: MutableHeaders, visitor: Visitor | None) -> None:
    may_be_framed = visitor is not None and visitor.may_be_framed
    ancestors = "'self'" if may_be_framed else "'none'"
    added = {
        "fogmqtt-version": __version__,
        "Content-Security-Policy": _POLICY.format(ancestors=ancestors),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN" if may_be_framed else "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    for name, value in added.items():
        headers.setdefault(name, value)
