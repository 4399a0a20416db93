"""Who may come in: secrets are kept as hashes, links work once, what is revoked or over is worth nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from hearken.errors import UserError
from hearken.feedback.access import Account, Webhook
from hearken.feedback.records import Labeler
from hearken.feedback.store import FeedbackStore


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def everything(store: FeedbackStore) -> str:
    """All that the tables of this module hold, as text."""
    tables = ("accounts", "sessions", "tokens", "invites", "webhooks", "audit")
    with store._database.read() as connection:
        return "".join(str(connection.execute(text(f"SELECT * FROM {table}")).all()) for table in tables)


def test_no_secret_is_stored(store: FeedbackStore) -> None:
    access = store.access
    link, _ = access.invite("labeler", note="Ann")
    account = access.redeem(link)
    assert account is not None and account.labeler_id is not None
    cookie, _ = access.open_session(account.id)
    token, _ = access.add_token("robot", ["label"], labeler_id=account.labeler_id)
    kept = everything(store)
    assert not [secret for secret in (link, cookie, token) if secret in kept]


def test_an_invite_works_once_and_makes_a_labeler(store: FeedbackStore) -> None:
    secret, invite = store.access.invite("labeler", note="Ann")
    account = store.access.redeem(secret)
    assert account is not None and (account.name, account.role) == ("Ann", "labeler")
    assert store.labeler(account.labeler_id or "").name == "Ann"
    assert store.access.redeem(secret) is None
    used = next(one for one in store.access.invites() if one.id == invite.id)
    assert used.used is not None and used.account_id == account.id


def test_of_many_who_try_a_link_at_once_one_comes_in(store: FeedbackStore) -> None:
    secret, _ = store.access.invite("labeler")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.access.redeem(secret), range(16)))
    assert sum(one is not None for one in found) == 1


def test_what_is_over_or_revoked_is_worth_nothing(location: str) -> None:
    clock = Clock()
    with FeedbackStore(location, clock=clock) as store:
        access = store.access
        late, _ = access.invite("labeler", days=1)
        revoked, record = access.invite("labeler")
        access.revoke_invite(record.id)
        account = access.add_account(Account(name="Ann"))
        cookie, _ = access.open_session(account.id, days=1)
        token, _ = access.add_token("robot", ["read"], days=1)
        other, other_record = access.add_token("robot", ["read"])
        assert access.session(cookie) and access.token(token) and access.token(other)
        access.revoke_token(other_record.id)
        clock.now += timedelta(days=1, seconds=1)
        assert access.redeem(late) is None and access.redeem(revoked) is None
        assert access.session(cookie) is None and access.token(token) is None and access.token(other) is None
        assert access.session("") is None and access.token("no such") is None and access.redeem("\udcff") is None


def test_a_closed_account_has_no_sessions_and_no_way_back(store: FeedbackStore) -> None:
    access = store.access
    access.add_account(Account(name="Owner", role="owner"))
    account = access.add_account(Account(name="Ann", login="ann"))
    cookie, _ = access.open_session(account.id)
    again, _ = access.invite("labeler", account_id=account.id)
    access.change_account(account.id, status="closed")
    assert access.session(cookie) is None
    assert access.redeem(again) is None


def test_a_new_password_logs_everybody_else_out(store: FeedbackStore) -> None:
    account = store.access.add_account(Account(name="Ann", role="owner"))
    cookie, _ = store.access.open_session(account.id)
    store.access.change_account(account.id, name="Anna")
    assert store.access.session(cookie) is not None
    assert store.labeler(account.labeler_id or "").name == "Anna"
    store.access.change_account(account.id, login="anna", password="hash")
    assert store.access.session(cookie) is None


def test_logins_are_unique_and_an_owner_always_remains(store: FeedbackStore) -> None:
    access = store.access
    owner = access.add_account(Account(name="Owner", role="owner", login="owner"))
    ann = access.add_account(Account(name="Ann"))
    with pytest.raises(UserError, match="'owner' is taken"):
        access.change_account(ann.id, login="owner")
    with pytest.raises(UserError, match="nobody would be left"):
        access.change_account(owner.id, role="labeler")
    assert access.account(owner.id).role == "owner"
    access.change_account(ann.id, role="owner")
    access.change_account(owner.id, status="closed")


def test_a_viewer_judges_nothing_until_they_are_made_a_labeler(store: FeedbackStore) -> None:
    access = store.access
    access.add_account(Account(name="Owner", role="owner"))
    viewer = access.add_account(Account(name="Vi", role="viewer"))
    assert viewer.labeler_id is None
    assert access.change_account(viewer.id, role="labeler").labeler_id is not None


def test_a_judging_token_needs_a_labeler_that_exists(store: FeedbackStore) -> None:
    with pytest.raises(UserError, match="needs a labeler"):
        store.access.add_token("robot", ["label"])
    with pytest.raises(UserError, match="no labeler 'nobody'"):
        store.access.add_token("robot", ["label"], labeler_id="nobody")


def test_settings_are_versions_and_the_salt_stays(location: str) -> None:
    with FeedbackStore(location) as store:
        salt = store.access.salt()
        assert store.access.settings() == (0, {})
        assert store.access.set_settings({"strength": 9}) == 1
        assert store.access.set_settings({"strength": 9}) == 1
        assert store.access.set_settings({"strength": 8}) == 2
    with FeedbackStore(location) as store:
        assert store.access.settings() == (2, {"strength": 8})
        assert store.access.salt() == salt and len(salt) == 64


def test_two_servers_reach_a_webhooks_count_once(store: FeedbackStore) -> None:
    webhook = store.access.add_webhook(Webhook(url="https://example.org/done", every=10))
    assert store.access.reach(webhook, 10)
    assert not store.access.reach(webhook, 10)
    assert store.access.webhooks()[0].reached == 10


def test_the_audit_trail_is_newest_first(store: FeedbackStore) -> None:
    store.access.note("account:1", "invited", "x", role="labeler")
    store.access.note("account:1", "revoked invite", "x")
    found = store.access.audit()
    assert [entry.action for entry in found] == ["revoked invite", "invited"]
    assert found[1].detail == {"role": "labeler"}


def test_erasing_a_labeler_erases_their_account(location: str, tmp_path: Path) -> None:
    with FeedbackStore(location) as store:
        access = store.access
        account = access.add_account(Account(name="Ann Example", login="ann@example.org", password="hash"))
        cookie, _ = access.open_session(account.id)
        secret, _ = access.add_token("Ann's robot", ["label"], labeler_id=account.labeler_id)
        access.invite("labeler", account_id=account.id, note="Ann Example")
        store.erase("labeler", account.labeler_id or "", "asked for it")
        assert access.session(cookie) is None and access.token(secret) is None
        assert access.account_by_login("ann@example.org") is None
        assert "Ann" not in everything(store) and "ann@example.org" not in everything(store)


def test_tokens_of_other_labelers_survive_an_erasure(store: FeedbackStore) -> None:
    for name in ("ann", "bob"):
        store.add_labeler(Labeler(id=name, name=name))
    secret, _ = store.access.add_token("bob's", ["label"], labeler_id="bob")
    store.erase("labeler", "ann", "asked for it")
    assert store.access.token(secret) is not None
