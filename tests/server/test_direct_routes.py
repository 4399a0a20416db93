"""Claims and answers take a short way through the server, and are refused as anything else would be."""

from __future__ import annotations

import pytest
from people_world import Site

JSON = "application/json"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"{}", "text/plain", "not sent as application/json"),
        (b"", JSON, "not JSON"),
        (b'{"n": 1', JSON, "not JSON"),
        (b'"\xff"', JSON, "not JSON"),
        (b"[" * 100_000, JSON, "not JSON"),
        (b'{"n": 0}', JSON, "n: "),
        (b'{"m": 1}', JSON, "m: "),
    ],
)
def test_what_is_no_request_is_refused_in_words(site: Site, content: bytes, kind: str, said: str) -> None:
    answer = site.machine().post("/api/v1/claims", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 422 and said in answer.json()["error"]


def test_who_is_asking_comes_before_what_is_asked(site: Site) -> None:
    stranger = site.browser()
    assert stranger.post("/api/v1/claims", content=b"{", headers={"Content-Type": JSON}).status_code == 401
    assert site.machine("reader", ("read",)).post("/api/v1/claims", json={"n": 0}).status_code == 403
    accepted = site.machine().post("/api/v1/claims", content=b"{}", headers={"Content-Type": f"{JSON}; charset=utf-8"})
    assert accepted.status_code == 200 and len(accepted.json()["tasks"]) == 1
