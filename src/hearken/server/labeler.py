"""The pages people come in by and judge on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse

from hearken.domains.base import find_domain
from hearken.errors import UserError
from hearken.feedback.access import Account
from hearken.feedback.media import MediaFolder, shown_type, viewer_of
from hearken.feedback.records import Response as Stored
from hearken.feedback.records import utc_now
from hearken.loop.labelling_target import Goal
from hearken.server.desk import Desk
from hearken.server.pages import Elsewhere, page, person
from hearken.server.render import to_html
from hearken.server.security import (
    ApiError,
    Attempts,
    Judge,
    Passwords,
    Who,
    address_of,
    door_of,
    same_origin,
    store_of,
    visitor,
    who,
)
from hearken.server.tasks import Model, check_ticket, order_seed, places

router = APIRouter(include_in_schema=False)


# -- coming in ---------------------------------------------------------------------------------------------------


class Secret(Model):
    """What an invite link carries."""

    secret: str = Field(max_length=200)


class Login(Model):
    """Name and password."""

    login: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1_000)


class Beginning(Model):
    """What a newcomer says before the first item."""

    name: str = Field(min_length=1, max_length=80)
    consent: bool
    about: dict[str, str] = Field({}, max_length=20)


class NewLogin(Model):
    """How somebody wants to log in from now on."""

    login: str = Field(min_length=2, max_length=80, pattern="^\\S.*\\S$")
    password: str = Field(max_length=1_000)


@router.get("/")
def home(request: Request) -> RedirectResponse:
    """To where this person works."""
    found = visitor(request)
    return RedirectResponse(_start(found.account if found else None), 303)


def _start(account: Account | None) -> str:
    if account is None:
        return "/login"
    return "/label" if account.role == "labeler" else "/owner"


@router.get("/enter")
def enter(request: Request) -> HTMLResponse:
    """The page of an invite link; its secret stands behind the #, which no server or log ever sees."""
    return page(request, "enter.html")


@router.post("/enter")
def redeem(request: Request, given: Secret) -> JSONResponse:
    """Use an invite link up."""
    _check_origin(request)
    account = store_of(request).access.redeem(given.secret)
    if account is None:
        _attempts(request).wrong_link(address_of(request))
        raise ApiError(403, "this link does not work (any more)", "Links work once. Ask for a new one")
    return _welcome(request, account, "came by link")


@router.get("/login")
def login_page(request: Request) -> Response:
    """The form."""
    found = visitor(request)
    if found is not None and found.account is not None:
        return RedirectResponse(_start(found.account), 303)
    answer, door = page(request, "login.html"), door_of(request)
    if not request.cookies.get(door.mark) and (mark := _attempts(request).welcome(address_of(request))):
        door.remember(answer, mark)
    return answer


@router.post("/login")
def login(request: Request, given: Login) -> JSONResponse:
    """Log in with name and password."""
    _check_origin(request)
    attempts, passwords = _attempts(request), _passwords(request)
    account = store_of(request).access.account_by_login(given.login)
    mark = request.cookies.get(door_of(request).mark, "")
    known = account is not None and attempts.knows(account.id, mark)
    with attempts.password(address_of(request), given.login, mark, known=known):
        right = passwords.check(account.password if account else None, given.password, known)
        if not right or account is None:
            raise ApiError(403, "name or password is wrong", "Or ask for a new link")
    if account.status != "active":
        raise ApiError(403, "this account is closed", "Ask the owner of this project")
    return _welcome(request, account, "logged in")


def _welcome(request: Request, account: Account, action: str) -> JSONResponse:
    """A new session, whatever the browser had before."""
    access, door, attempts = store_of(request).access, door_of(request), _attempts(request)
    old = access.session(request.cookies.get(door.cookie, ""))
    if old is not None:
        access.close_session(old[0].id)
    secret, _ = access.open_session(account.id)
    access.note(f"account:{account.id}", action)
    answer = JSONResponse({"next": _start(account)})
    door.give(answer, secret)
    if not attempts.knows(account.id, request.cookies.get(door.mark, "")):
        door.remember(answer, attempts.mark(account.id))
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """End the session."""
    found, answer = who(request), Response(status_code=204)
    if found.session is not None:
        store_of(request).access.close_session(found.session.id)
    door_of(request).take(answer)
    return answer


def _attempts(request: Request) -> Attempts:
    attempts: Attempts = request.app.state.attempts
    return attempts


def _passwords(request: Request) -> Passwords:
    passwords: Passwords = request.app.state.passwords
    return passwords


def _check_origin(request: Request) -> None:
    if not same_origin(request):
        raise ApiError(403, "this request does not come from this page", "Load the page again")


# -- the labeler's pages -----------------------------------------------------------------------------------------


@router.get("/welcome")
def welcome(request: Request) -> HTMLResponse:
    """Name, notice, what they may say about themselves, guideline."""
    found = person(request, "owner", "labeler")
    desk = _desk(request)
    attributes = desk.store.labeler(found.labeler).attributes
    return page(
        request, "welcome.html", found, settings=desk.settings, consent=to_html(desk.settings.consent),
        guideline=_guideline(desk), attributes=attributes, viewer=desk.domain.viewer,
        practice=bool(desk.practice_in(desk.settings)),
    )  # fmt: skip


@router.post("/welcome")
def begin(request: Request, said: Beginning) -> JSONResponse:
    """They agree, and begin."""
    found = who(request)
    if found.account is None:
        raise ApiError(403, "this page is for people")
    if not said.consent:
        raise ApiError(422, "nothing begins without your consent")
    desk = _desk(request)
    known = {question.name: question.options for question in desk.settings.about_you}
    about = {name: value.strip() for name, value in said.about.items() if value.strip()}
    for name, value in about.items():
        if name not in known or (known[name] and value not in known[name]):
            raise ApiError(422, f"'{value}' is no answer to '{name}'")
    name = said.name.strip() or found.account.name
    desk.store.access.change_account(found.account.id, name=name, consented=found.account.consented or utc_now())
    desk.store.access.declare(found.labeler, about)
    return JSONResponse({"next": "/label"})


@router.get("/label")
def label(request: Request) -> HTMLResponse:
    """The labelers' workplace."""
    found = _begun(request)
    desk = _desk(request)
    goal: Goal | None = request.app.state.goal
    return page(
        request, "label.html", found, guideline=_guideline(desk), chat=_can_chat(request),
        options=_options(desk, found, goal),
    )  # fmt: skip


@router.get("/chat")
def chat(request: Request) -> HTMLResponse:
    """Talk to the current policy, and choose between two answers at every turn."""
    found = _begun(request)
    if not _can_chat(request):
        raise ApiError(404, "there is nobody to talk to here", "The owner can switch conversations on")
    desk = _desk(request)
    return page(request, "chat.html", found, guideline=_guideline(desk), options=_options(desk, found), chat=True)


@router.get("/account")
def account(request: Request) -> HTMLResponse:
    """Choose a name and a password."""
    found = person(request)
    return page(request, "account.html", found)


@router.post("/account")
def change_login(request: Request, new: NewLogin) -> JSONResponse:
    """Log in by this name and password from now on; all other browsers are logged out."""
    found = who(request)
    if found.account is None:
        raise ApiError(403, "this page is for people")
    access = store_of(request).access
    hashed = _passwords(request).hash(new.password)
    changed = access.change_account(found.account.id, login=new.login, password=hashed)
    return _welcome(request, changed, "chose a password")


class Waiting(Model):
    """How far the labelers are with what a run waits for, and what the run does."""

    needed: int
    done: int
    said: str
    reached: bool
    over: bool


@router.get("/goal")
def goal(request: Request) -> Waiting:
    """What a run waits for."""
    found = _goal(request)
    over = found.over  # before the words: what it said last is said before it is over
    waiting = Waiting(needed=found.needed, done=found.done, said=found.said, reached=found.reached, over=over)
    if over:
        found.told()
    return waiting


@router.post("/goal/enough")
def enough(request: Request) -> Response:
    """The run shall go on with what there is."""
    _goal(request).enough()
    return Response(status_code=204)


def _goal(request: Request) -> Goal:
    if "label" not in who(request).scopes:
        raise ApiError(403, "this is for those who judge")
    found: Goal | None = request.app.state.goal
    if found is None:
        raise ApiError(404, "no run waits for judgments")
    return found


def _begun(request: Request) -> Who:
    found = person(request, "owner", "labeler")
    if found.account is None or found.account.consented is None:
        raise Elsewhere("/welcome")
    return found


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _can_chat(request: Request) -> bool:
    return _desk(request).settings.chat and request.app.state.policy is not None


def _guideline(desk: Desk) -> dict[str, Any]:
    known = desk.store.guidelines()
    if not known:
        return {"version": None, "html": ""}
    return {"version": known[-1].version, "html": to_html(known[-1].text)}


def _options(desk: Desk, found: Who, goal: Goal | None = None) -> dict[str, Any]:
    """What the scripts of a page need to know; nothing about policies or other people."""
    wanted = {
        "question", "strength", "partial", "attributes", "scale", "tags", "span_labels", "flags", "confirm",
        "undo_seconds", "lease_seconds", "break_minutes", "kinds",
    }  # fmt: skip
    return desk.settings.model_dump(include=wanted) | {"labeler": found.labeler, "goal": goal is not None}


# -- media -------------------------------------------------------------------------------------------------------


@router.get("/media/{item_id}/{place}")
def media(
    request: Request, found: Judge, item_id: str, place: int, ticket: Annotated[str, Query(max_length=200)],
    stills: bool = False,
) -> FileResponse:  # fmt: skip
    """A response that is a file, by the item and the place where it is shown: the address says nothing else."""
    desk = _desk(request)
    check_ticket(desk.salt, found.labeler, item_id, ticket)
    item = desk.store.item(item_id)
    if not 0 <= place < len(item.response_ids):
        raise ApiError(404, "there is no such file")
    order = places(order_seed(desk.salt, found.labeler, item_id), len(item.response_ids))
    return shown_file(request, desk.store.response(item.response_ids[order[place]]), stills=stills)


def shown_file(request: Request, response: Stored, *, stills: bool = False) -> FileResponse:
    """What a person is shown of a response that is a file, with the type that its first bytes say.

    Args:
        request: whose project it is of.
        response: it.
        stills: some moments of a video, as a picture.

    Raises:
        ApiError: 404 where there is no file; 415 for one that cannot be shown.
    """
    folder: MediaFolder | None = request.app.state.media
    if folder is None or response.payload is None:
        raise ApiError(404, "there is no such file")
    domain = store_of(request).prompt(response.prompt_id).domain
    try:
        kind = find_domain(domain)
        path = kind.stills(response.payload, folder) if stills else kind.shown(response.payload, folder)
    except UserError as error:  # of a domain that is not installed here, or of no file that it can read
        path = folder.find(response.payload)
        if path is not None and viewer_of(response.payload.type) == "text":  # what only the domain reads
            raise ApiError(415, error.what, error.hint) from None
    if path is None:
        raise ApiError(404, "there is no such file")
    try:
        media_type = shown_type(path)
    except UserError as error:
        raise ApiError(415, error.what, error.hint) from None
    return FileResponse(path, media_type=media_type, headers={"Content-Disposition": "inline"})
