"""Puts the application together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.responses import Response as HTTPResponse
from starlette.staticfiles import StaticFiles

import hearken
from hearken.domains.base import Domain
from hearken.errors import Unavailable, UserError
from hearken.feedback.media import MediaFolder
from hearken.feedback.store import FeedbackStore
from hearken.loop.labelling_target import Goal
from hearken.server import api, chat, labeler, owner
from hearken.server.connections import Network
from hearken.server.desk import Desk
from hearken.server.pages import HERE, Elsewhere, page, send
from hearken.server.security import RETRY_AFTER, ApiError, Attempts, Door, Guard, Passwords, explain, visitor
from hearken.server.webhooks import Caller


def create_app(
    store: FeedbackStore, *, door: Door | None = None, policy: chat.Policy | None = None, media: Path | None = None,
    goal: Goal | None = None, webhooks_to: Sequence[Network] = (), domain: Domain | None = None,
    model: str = "",
) -> FastAPI:  # fmt: skip
    """The labelling app and its API over one feedback database.

    Args:
        store: the open database; the caller closes it.
        door: how the server is reached; by default on this machine only.
        policy: whom labelers may talk to (`chat.Policy`); None for nobody.
        media: folder that the paths of media are relative to; None where there are none.
        goal: what a run waits for, shown to the labelers; None where none does.
        webhooks_to: networks that webhooks may call though they are not public.
        domain: what responses are; text unless said otherwise.
        model: the policy that the project begins with.
    """
    door = door or Door()
    caller = Caller(store, webhooks_to)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        with caller:
            yield

    app = FastAPI(
        title="Hearken", version=hearken.__version__, description="Collect human feedback.", lifespan=life,
        openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.store, app.state.door, app.state.desk = store, door, Desk(store, domain)
    app.state.policy, app.state.goal, app.state.model = policy, goal, model
    app.state.media = MediaFolder(media) if media is not None else None
    app.state.webhooks_to = webhooks_to
    app.state.passwords, app.state.attempts = Passwords(), Attempts(store.access, app.state.desk.salt)
    app.add_exception_handler(ApiError, _explain)
    app.add_exception_handler(UserError, _explain)
    app.add_exception_handler(Elsewhere, send)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.include_router(api.quick)
    app.include_router(api.router)
    app.include_router(labeler.router)
    app.include_router(chat.router)
    app.include_router(owner.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    app.add_middleware(Guard, door=door)
    return app


def _explain(request: Request, error: Exception) -> HTTPResponse:
    """One line for programs; a page with that line for people."""
    answer = explain(request, error)
    if not _wants_page(request):
        return answer
    said = json.loads(bytes(answer.body))
    found = _page(request, answer.status_code, said["error"], said["hint"])
    if "Retry-After" in answer.headers:
        found.headers["Retry-After"] = answer.headers["Retry-After"]
    return found


def _plain(request: Request, error: Exception) -> HTTPResponse:
    assert isinstance(error, HTTPException)
    if _wants_page(request):
        return _page(request, error.status_code, "there is no such page")
    return JSONResponse({"error": str(error.detail), "hint": ""}, error.status_code, error.headers)


def _page(request: Request, status: int, what: str, hint: str = "") -> HTTPResponse:
    """What went wrong, as a page. It shows who is looking, unless their token is wrong or the database is away."""
    viewer = None
    if status != 503:
        try:
            viewer = visitor(request)
        except Unavailable as error:
            return _explain(request, error)
        except ApiError:
            pass
    again = int(RETRY_AFTER) if status == 503 else 0
    return page(request, "problem.html", viewer, status, what=what, hint=hint, again=again)


def _wants_page(request: Request) -> bool:
    here = not request.scope["path"].startswith(("/api/", "/static/", "/media/"))
    return here and request.method == "GET" and "text/html" in request.headers.get("accept", "")


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    said = {"error": f"{where}: {first['msg']}" if where else first["msg"], "hint": "", "final": True}
    return JSONResponse(said, 422)
