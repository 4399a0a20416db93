"""The HTTP API, ``/api/v1``. Pages, people's scripts and labelers that are not people use the same one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response as HTTPResponse

from hearken.errors import UserError
from hearken.feedback.access import Account, AuditEntry, Invite, Role, Scope, Token, Webhook
from hearken.feedback.analysis import agreement_with_people
from hearken.feedback.media import LARGEST
from hearken.feedback.records import (
    Guideline,
    ItemKind,
    Labeler,
    LabelerKind,
    LabelerStatus,
    Progress,
    Prompt,
    QueueItem,
    Record,
    Response,
    prompt_id,
)
from hearken.loop.maintenance import forget
from hearken.server.desk import Desk
from hearken.server.direct import Direct
from hearken.server.owner_cache import pages_of
from hearken.server.security import (
    ApiError,
    Judge,
    Manager,
    Reader,
    Who,
    Writer,
    bearer,
    store_of,
    who,
)
from hearken.server.settings import LabelSettings, load
from hearken.server.tasks import Model, Submission, Task, check_ticket
from hearken.server.webhooks import where


class Problem(Model):
    """Why a request was not done."""

    error: str
    hint: str
    final: bool = False
    """The same answer can never be stored; where this is not so, keep it and send it again."""


UPLOAD_SECONDS = 60
"""Within which a file is to be there."""

_common: dict[str, Any] = {
    "prefix": "/api/v1",
    "dependencies": [Depends(bearer)],
    "responses": {status: {"model": Problem} for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)},
}
quick = APIRouter(**_common, route_class=Direct)
router = APIRouter(**_common)

Id = Annotated[str, Path(max_length=200)]
Key = Annotated[str, Query(max_length=200)]


def desk_of(request: Request) -> Desk:
    """The labelers' desk."""
    desk: Desk = request.app.state.desk
    return desk


# -- judging -----------------------------------------------------------------------------------------------------


class ClaimRequest(Model):
    """What is asked for."""

    n: int = Field(1, ge=1, le=50)
    kinds: list[ItemKind] = []
    """Empty: all."""
    lease_seconds: int | None = Field(None, ge=1, le=86_400)
    html: bool = False
    """Texts as safe HTML, too."""
    practice: bool = False
    """First what this labeler has not practised yet."""


class Tasks(Model):
    """What is to be judged now."""

    tasks: list[Task]


class Lease(Model):
    """Until when an item is kept; null where it is lost."""

    expires: AwareDatetime | None


class Stored(Model):
    """An answer that is on disk."""

    id: str
    number: int
    """In the order of storing."""
    extra: bool
    """The item had its judgments already; this one is kept and used, too."""
    agreed: bool | None = None
    """Practice: whether it is the expected answer."""
    explanation: str = ""
    """Practice: why."""
    paused: bool = False


class Reopened(Model):
    """An item whose answer was taken back; null where it cannot be answered again."""

    task: Task | None


class Own(Model):
    """How far the queue is, and this labeler's own part."""

    items_left: int
    judgments: int


@quick.post("/claims", tags=["judging"], operation_id="claim", response_model=Tasks)
def claim(request: Request, who: Judge, asked: ClaimRequest) -> HTTPResponse:
    """Get something to judge. Items this labeler has already come first; nobody else is given them for a while."""
    if (goal := request.app.state.goal) is not None and goal.closed:
        return _json(Tasks(tasks=[]))
    tasks = desk_of(request).claim(
        who, asked.n, kinds=asked.kinds, lease_seconds=asked.lease_seconds, html=asked.html, practice=asked.practice
    )
    return _json(Tasks(tasks=tasks))


@quick.post("/judgments", tags=["judging"], operation_id="submit", response_model=Stored)
def submit(request: Request, who: Judge, said: Submission) -> HTTPResponse:
    """Answer. Sending the same answer again (same id) changes nothing; it is kept however late it comes."""
    done = desk_of(request).submit(who, said)
    stored = Stored(
        id=done.judgment.id, number=done.judgment.seq or 0, extra=done.judgment.extra, agreed=done.agreed,
        explanation=done.explanation, paused=done.paused,
    )  # fmt: skip
    return _json(stored)


def _json(said: Model) -> HTTPResponse:
    """An answer that is its own model already: FastAPI would check it again, in another thread."""
    return HTTPResponse(said.model_dump_json(), media_type="application/json")


@router.post("/judgments/{judgment_id}/withdraw", tags=["judging"], operation_id="withdraw")
def withdraw(request: Request, who: Judge, judgment_id: Id, html: bool = False) -> Reopened:
    """Undo an answer: it stays on record, superseded, and the item can be answered again."""
    return Reopened(task=desk_of(request).withdraw(who, judgment_id, html))


@router.post("/items/{item_id}/heartbeat", tags=["judging"], operation_id="heartbeat")
def heartbeat(request: Request, who: Judge, item_id: Id, ticket: Key) -> Lease:
    """Keep an item a while longer."""
    desk = desk_of(request)
    check_ticket(desk.salt, who.labeler, item_id, ticket)
    return Lease(expires=desk.store.heartbeat(item_id, who.labeler, desk.settings.lease_seconds))


@router.delete("/items/{item_id}/lease", tags=["judging"], operation_id="release", status_code=204)
def release(request: Request, who: Judge, item_id: Id, ticket: Key) -> None:
    """Give an item back unanswered."""
    desk = desk_of(request)
    check_ticket(desk.salt, who.labeler, item_id, ticket)
    desk.store.release(item_id, who.labeler)


@router.get("/own", tags=["judging"], operation_id="own")
def own(request: Request, who: Judge) -> Own:
    """How much is left, and how much this labeler has done."""
    store = store_of(request)
    return Own(items_left=store.items_left(), judgments=store.count_judgments(who.labeler))


# -- reading -----------------------------------------------------------------------------------------------------


@router.get("/progress", tags=["reading"], operation_id="progress")
def progress(request: Request, who: Reader, round: Annotated[int | None, Query(ge=0, lt=2**31)] = None) -> Progress:
    """How far the queue has come, of one round or of all."""
    return store_of(request).progress(round)


class PeopleAgreement(Model):
    """How far a labeler agrees with the people who judged the same pairs; null where there are none."""

    overlap: int
    """Pairs that both judged."""
    agreement: float | None = None
    """Share of them on which they say the same."""
    kappa: float | None = None
    """Cohen's kappa."""
    kappa_low: float | None = None
    kappa_high: float | None = None


@router.get("/labelers/{labeler_id}/agreement", tags=["reading"], operation_id="agreement")
def agreement(request: Request, who: Reader, labeler_id: Id) -> PeopleAgreement:
    """How far a labeler that is not a person agrees with people, with a 95 % interval over prompts."""
    labeler = store_of(request).labeler(labeler_id)
    return PeopleAgreement(**agreement_with_people(pages_of(request).newest(), labeler.id).figures())


Lines = Literal["prompts", "responses", "judgments", "items", "labelers"]


@router.get(
    "/export/{what}", tags=["reading"], operation_id="export", response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)  # fmt: skip
def export(
    request: Request, who: Reader, what: Lines, since: Annotated[int, Query(ge=0, lt=2**62)] = 0
) -> StreamingResponse:
    """Everything of one sort, one JSON object a line. For judgments, ``since`` leaves out those up to that number."""
    store = store_of(request)
    found: Iterator[Record] = {
        "prompts": store.prompts,
        "responses": store.responses,
        "judgments": lambda: store.judgments(since=since, checks=None, history=True),
        "items": store.items,
        "labelers": lambda: iter(store.labelers()),
    }[what]()  # type: ignore[operator]
    return StreamingResponse(
        (json.dumps(one.model_dump(mode="json")) + "\n" for one in found), media_type="application/x-ndjson"
    )


# -- writing -----------------------------------------------------------------------------------------------------


class NewPrompts(Model):
    """Prompts to add."""

    prompts: list[Prompt] = Field(max_length=10_000)


class NewResponses(Model):
    """Responses to add."""

    responses: list[Response] = Field(max_length=10_000)


class NewItems(Model):
    """Items to queue."""

    items: list[QueueItem] = Field(max_length=10_000)


class Added(Model):
    """How many were new."""

    new: int


class NewLabeler(Model):
    """A labeler that is not a person."""

    name: str = Field(min_length=1, max_length=200)
    kind: LabelerKind = "simulated"
    id: str | None = Field(None, min_length=1, max_length=200)
    attributes: dict[str, str] = {}


class LabelerToken(Model):
    """A labeler, and the token with which it judges (shown only now)."""

    labeler: Labeler
    token: str


@router.post("/prompts", tags=["writing"], operation_id="add_prompts")
def add_prompts(request: Request, who: Writer, new: NewPrompts) -> Added:
    """Add prompts; known ones are left as they are."""
    domain = desk_of(request).domain.name
    return Added(new=store_of(request).add_prompts(_of(prompt, domain) for prompt in new.prompts))


def _of(prompt: Prompt, domain: str) -> Prompt:
    """A prompt as one of the project's domain, where it names none."""
    if domain == "text" or "domain" in prompt.model_fields_set:
        return prompt
    key = prompt_id(prompt.content, domain) if prompt.id == prompt_id(prompt.content) else prompt.id
    return prompt.model_copy(update={"domain": domain, "id": key})


@router.post("/responses", tags=["writing"], operation_id="add_responses")
def add_responses(request: Request, who: Writer, new: NewResponses) -> Added:
    """Add responses to prompts that are known."""
    if any(response.payload is not None for response in new.responses):
        raise ApiError(422, "media cannot be named from outside", "Send the file itself: POST /prompts/ID/files")
    return Added(new=store_of(request).add_responses(new.responses))


class AddedFile(Model):
    """A response that is a file."""

    id: str
    """Of the response."""
    type: str
    """Of the file, as its first bytes say, such as ``audio/wav``."""
    new: bool
    """False where it was there: the same file of the same policy, round, seed and sample."""


@router.post(
    "/prompts/{prompt_id}/files", tags=["writing"], operation_id="add_file",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"The file: at most {LARGEST:,} bytes, within {UPLOAD_SECONDS} seconds.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses={status: {"model": Problem} for status in (408, 410, 415)},
)  # fmt: skip
async def add_file(
    request: Request, who: Writer, prompt_id: Id, policy: Annotated[str | None, Query(max_length=200)] = None,
    round: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    seed: Annotated[int | None, Query(ge=-(2**63), lt=2**63)] = None,
    sample: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> AddedFile:  # fmt: skip
    """Add a response that is a file (a clip, a sound, a picture); the body is the file.

    It is kept in the project's ``media/`` under the hash of what it holds, and erased with the response. What it is,
    its bytes say: of the project's domain, or it is refused.
    """
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            data = await request.body()
    except TimeoutError:
        raise ApiError(408, f"the file was not there within {UPLOAD_SECONDS} seconds", "Send it again") from None
    facts = {"prompt_id": prompt_id, "policy": policy, "round": round, "seed": seed, "sample": sample}
    return await run_in_threadpool(_store_file, request, data, facts)


def _store_file(request: Request, data: bytes, facts: dict[str, Any]) -> AddedFile:
    store, files, domain = store_of(request), request.app.state.media, desk_of(request).domain
    if files is None:
        raise ApiError(422, "this server has no project folder for files", "Start it in one: hearken serve")
    if facts["prompt_id"] not in store.prompts_by_id([facts["prompt_id"]]):
        raise ApiError(404, "there is no such prompt", "Add it first: POST /prompts")
    try:
        suffix = domain.admit(data, request.app.state.model)
    except UserError as error:
        raise ApiError(415, error.what, error.hint, final=True) from None
    media = files.keep(data, suffix)
    response = Response(payload=media, **facts)
    new = store.add_responses([response])
    if not new and response.id not in store.responses_by_id([response.id]):
        forget(store, files, [media])
        raise ApiError(410, "this response was erased", "It is not to come back", final=True)
    return AddedFile(id=response.id, type=media.type, new=bool(new))


@router.post("/items", tags=["writing"], operation_id="enqueue")
def enqueue(request: Request, who: Writer, new: NewItems) -> Added:
    """Ask for judgments."""
    return Added(new=store_of(request).enqueue(new.items))


@router.post("/labelers", tags=["writing"], operation_id="add_labeler")
def add_labeler(request: Request, who: Writer, new: NewLabeler) -> LabelerToken:
    """Add a simulated or AI labeler (or find, by its id, one that this token has added), and get a token for it.

    The token ends when the one that made it ends.
    """
    if new.kind not in ("simulated", "ai"):
        raise ApiError(422, f"a {new.kind} labeler cannot be added here", "People come by invitation")
    access = store_of(request).access
    made = Labeler.model_validate(new.model_dump(exclude_none=True))
    found = access.add_machine(made, who.actor, manages="manage" in who.scopes)
    if found is None:
        raise ApiError(
            403, "that labeler is not yours", "Give yours another id, or ask the owner of this project for its token"
        )
    secret, token, labeler = found
    access.note(who.actor, "added token", token.id, labeler=labeler.id)
    return LabelerToken(labeler=labeler, token=secret)


# -- managing ----------------------------------------------------------------------------------------------------


class SettingsInForce(Model):
    """How people are asked."""

    version: int
    settings: LabelSettings


class NewGuideline(Model):
    """Instructions for labelers."""

    text: str = Field(min_length=1, max_length=200_000)


class NewInvite(Model):
    """Who shall come."""

    role: Role = "labeler"
    note: str = Field("", max_length=200)
    """Their name, as it is proposed to them."""
    account_id: str | None = None
    """An account to open on another device, instead of a new one."""
    days: float = Field(7.0, gt=0, le=365)


class InviteLink(Model):
    """An invitation and its link, which works once and is shown only now."""

    invite: Invite
    path: str


class Person(Model):
    """An account as the owner sees it."""

    id: str
    name: str
    role: Role
    status: Literal["active", "closed"]
    labeler_id: str | None
    labeling: LabelerStatus | None
    consented: AwareDatetime | None
    created: AwareDatetime


class PersonChange(Model):
    """What shall change."""

    role: Role | None = None
    status: Literal["active", "closed"] | None = None
    labeling: LabelerStatus | None = None


class NewToken(Model):
    """A token to make."""

    name: str = Field(min_length=1, max_length=200)
    scopes: list[Scope] = Field(min_length=1)
    labeler_id: str | None = None
    days: float | None = Field(None, gt=0, le=3_650)


class TokenSecret(Model):
    """A token and its secret, which is shown only now."""

    token: Token
    secret: str


class NewWebhook(Model):
    """An address to call."""

    url: str = Field(pattern="^https?://[^\\s]+$", max_length=2_000)
    every: int = Field(ge=1, lt=2**31)


@router.get("/settings", tags=["managing"], operation_id="settings")
def read_settings(request: Request, who: Reader) -> SettingsInForce:
    """How people are asked."""
    version, settings = load(store_of(request))
    return SettingsInForce(version=version, settings=settings)


@router.patch("/settings", tags=["managing"], operation_id="change_settings")
def change_settings(request: Request, who: Manager, values: dict[str, Any]) -> SettingsInForce:
    """Change some of it; what is not named stays."""
    version, settings = desk_of(request).change_settings(values)
    store_of(request).access.note(who.actor, "changed settings", str(version), keys=sorted(values))
    return SettingsInForce(version=version, settings=settings)


@router.get("/guidelines", tags=["managing"], operation_id="guidelines")
def guidelines(request: Request, who: Annotated[Who, Depends(who)]) -> list[Guideline]:
    """All versions, oldest first; the last one is in force."""
    return store_of(request).guidelines()


@router.post("/guidelines", tags=["managing"], operation_id="add_guideline")
def add_guideline(request: Request, who: Manager, new: NewGuideline) -> Guideline:
    """Put a new version in force."""
    made = store_of(request).add_guideline(new.text)
    desk_of(request).changed()
    store_of(request).access.note(who.actor, "added guideline", str(made.version))
    return made


@router.get("/invites", tags=["managing"], operation_id="invites")
def invites(request: Request, who: Manager) -> list[Invite]:
    """All invitations, newest first."""
    return store_of(request).access.invites()


@router.post("/invites", tags=["managing"], operation_id="invite")
def invite(request: Request, who: Manager, new: NewInvite) -> InviteLink:
    """Invite somebody. The link is theirs alone: it works once."""
    access = store_of(request).access
    secret, made = access.invite(new.role, account_id=new.account_id, note=new.note, days=new.days)
    access.note(who.actor, "invited", made.id, role=new.role)
    return InviteLink(invite=made, path=f"/enter#{secret}")


@router.delete("/invites/{invite_id}", tags=["managing"], operation_id="revoke_invite", status_code=204)
def revoke_invite(request: Request, who: Manager, invite_id: Id) -> None:
    """Make an invitation worthless."""
    store_of(request).access.revoke_invite(invite_id)
    store_of(request).access.note(who.actor, "revoked invite", invite_id)


@router.get("/people", tags=["managing"], operation_id="people")
def people(request: Request, who: Manager) -> list[Person]:
    """Everybody who may come in."""
    store = store_of(request)
    status = {labeler.id: labeler.status for labeler in store.labelers()}
    return [_person(account, status) for account in store.access.accounts()]


@router.patch("/people/{account_id}", tags=["managing"], operation_id="change_person")
def change_person(request: Request, who: Manager, account_id: Id, change: PersonChange) -> Person:
    """Change somebody's role, close their account, pause them or let them judge again."""
    store = store_of(request)
    values = change.model_dump(exclude_none=True, exclude={"labeling"})
    account = store.access.change_account(account_id, **values) if values else store.access.account(account_id)
    if change.labeling is not None:
        if account.labeler_id is None:
            raise ApiError(409, f"{account.name} does not judge", "Give them another role first")
        store.set_labeler_status(account.labeler_id, change.labeling)
    store.access.note(who.actor, "changed account", account_id, **change.model_dump(exclude_none=True))
    return _person(account, {labeler.id: labeler.status for labeler in store.labelers()})


def _person(account: Account, status: dict[str, LabelerStatus]) -> Person:
    return Person(
        id=account.id, name=account.name, role=account.role, status=account.status, labeler_id=account.labeler_id,
        labeling=status.get(account.labeler_id or ""), consented=account.consented, created=account.created,
    )  # fmt: skip


@router.get("/tokens", tags=["managing"], operation_id="tokens")
def tokens(request: Request, who: Manager) -> list[Token]:
    """All tokens, newest first; their secrets are not known here."""
    return store_of(request).access.tokens()


@router.post("/tokens", tags=["managing"], operation_id="add_token")
def add_token(request: Request, who: Manager, new: NewToken) -> TokenSecret:
    """Make a token."""
    access = store_of(request).access
    secret, token = access.add_token(
        new.name, new.scopes, labeler_id=new.labeler_id, days=new.days, made_by=who.actor
    )  # fmt: skip
    access.note(who.actor, "added token", token.id, scopes=sorted(new.scopes))
    return TokenSecret(token=token, secret=secret)


@router.delete("/tokens/{token_id}", tags=["managing"], operation_id="revoke_token", status_code=204)
def revoke_token(request: Request, who: Manager, token_id: Id) -> None:
    """Make a token worthless, at once."""
    store_of(request).access.revoke_token(token_id)
    store_of(request).access.note(who.actor, "revoked token", token_id)


class WebhookView(Model):
    """A webhook as it is listed."""

    id: str
    url: str
    every: int
    reached: int


class WebhookSecret(Model):
    """A webhook and the key of its signatures, which is shown only now."""

    webhook: WebhookView
    secret: str


def _webhook(webhook: Webhook) -> WebhookView:
    return WebhookView(id=webhook.id, url=webhook.url, every=webhook.every, reached=webhook.reached)


@router.get("/webhooks", tags=["managing"], operation_id="webhooks")
def webhooks(request: Request, who: Manager) -> list[WebhookView]:
    """All webhooks."""
    return [_webhook(one) for one in store_of(request).access.webhooks()]


@router.post("/webhooks", tags=["managing"], operation_id="add_webhook")
def add_webhook(request: Request, who: Manager, new: NewWebhook) -> WebhookSecret:
    """Call an address each time so many more judgments are stored."""
    store = store_of(request)
    with suppress(OSError):  # a name that is not known now may be later; each call looks again
        where(new.url, request.app.state.webhooks_to)
    made = store.access.add_webhook(Webhook(url=new.url, every=new.every, reached=store.last_seq()))
    store.access.note(who.actor, "added webhook", made.id, every=new.every)
    return WebhookSecret(webhook=_webhook(made), secret=made.secret)


@router.delete("/webhooks/{webhook_id}", tags=["managing"], operation_id="remove_webhook", status_code=204)
def remove_webhook(request: Request, who: Manager, webhook_id: Id) -> None:
    """Call it no more."""
    store_of(request).access.remove_webhook(webhook_id)
    store_of(request).access.note(who.actor, "removed webhook", webhook_id)


@router.get("/audit", tags=["managing"], operation_id="audit")
def audit(request: Request, who: Manager, last: Annotated[int, Query(ge=1, le=10_000)] = 1_000) -> list[AuditEntry]:
    """Who did what, besides judging; newest first."""
    return store_of(request).access.audit(last)
