"""A second domain, as docs/own-domain.md has it, through the whole loop: nothing in the package knows it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from typer.testing import CliRunner

from hearken.algorithms import stage as stages
from hearken.cli.main import app
from hearken.domains import base
from hearken.errors import UserError
from hearken.evaluation.request import EvaluationRequest, evaluate_models
from hearken.evaluation.results import read_evaluation
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.formats import read_examples
from hearken.feedback.media import Media, MediaFolder
from hearken.feedback.records import ComparisonPayload, QueueItem
from hearken.loop.maintenance import forget
from hearken.loop.project import Project
from hearken.rollout.sampler import SamplingParameters
from hearken.server.desk import Desk
from hearken.server.run import Address, Invitation, Network, serve
from hearken.worlds import world

PAGE = (Path(__file__).parents[2] / "docs" / "own-domain.md").read_text("utf-8")
MODULES = ("melody", "melody_options", "melody_reward", "melody_climb")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(ENTRY_POINTS,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
(SETTINGS,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
CACHES = (base._outside, world._outside, stages.outside)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files as an installed package."""
    folder = tmp_path / "site"
    about = folder / "melody-1.0.dist-info"
    about.mkdir(parents=True)
    for name, text in zip(MODULES, BLOCKS, strict=True):
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: melody\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        re.sub(r"\[project\.entry-points\.\"([\w.]+)\"\]", r"[\1]", ENTRY_POINTS).replace('"', "")
    )
    monkeypatch.syspath_prepend(str(folder))
    for cache in CACHES:
        cache.cache_clear()
    yield folder
    for cache in CACHES:
        cache.cache_clear()
    for name in MODULES:
        sys.modules.pop(name, None)


(TITLES,) = map(int, re.findall(r"the titles of (\d+) tunes", PAGE))
FEW = {"held_out": 8, "evaluate": 12}
"""Rounds that take less time than those of the page."""


@pytest.fixture
def project(package: Path, tmp_path: Path) -> Project:
    return init(tmp_path, 60, FEW)


def init(tmp_path: Path, titles: int, rounds: dict[str, int]) -> Project:
    """What ``hearken init`` makes, with the page's settings."""
    model = tmp_path / "my-melody"
    model.mkdir()
    (model / "melody.json").write_text("[10, 10, 10]")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tune {i}"}) + "\n" for i in range(titles)))
    hearken("init", tmp_path / "tunes", "--model", model, "--prompts", prompts)
    file = tmp_path / "tunes" / "hearken.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings["domain"] == "melody", "told from the model"
    for section, values in yaml.safe_load(SETTINGS).items():
        settings[section] = {**settings[section], **values} if isinstance(values, dict) else values
    settings["loop"] |= rounds
    file.write_text(yaml.safe_dump(settings))
    return Project(tmp_path / "tunes")


def hearken(*words: Any) -> str:
    done = CliRunner().invoke(app, list(map(str, words)), prog_name="hearken")
    assert done.exit_code == 0, done.output
    return done.output


@contextmanager
def served(project: Project, role: Any = "labeler") -> Iterator[Address]:
    stop, ready, found = threading.Event(), threading.Event(), []

    def on_ready(address: Address) -> None:
        found.append(address)
        ready.set()

    how: dict[str, Any] = {"network": Network(port=0), "invitation": Invitation(role), "until": stop.is_set}
    how["on_ready"] = on_ready
    thread = threading.Thread(target=lambda: serve(project.path, **how), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0]
    stop.set()
    thread.join(20)


def test_a_domain_goes_through_every_command(project: Project) -> None:
    where = ("-C", project.path)
    hearken("sample", *where)
    with project.store() as store:
        responses = list(store.responses())
        assert len(responses) == 120 and all(one.payload and not one.text for one in responses)
        assert {prompt.domain for prompt in store.prompts()} == {"melody"} and len(list(store.items())) > 50
        melody = responses[0].payload
    assert melody is not None and (melody.type, melody.viewer) == ("audio/wav", "audio")
    notes = project.read(melody.path)
    assert len(notes) == 3 and project.media.keep(sys.modules["melody"].write(notes)) == melody, "kept by its contents"
    hearken("label", "--with", "simulated", *where)
    refused = CliRunner().invoke(app, ["label", "--with", "ai", "--judge", "x", "-C", str(project.path)])
    assert refused.exit_code == 2 and "AI labelers read text" in refused.output

    hearken("loop", "--rounds", "2", *where)
    rows = read_examples(next((project.path / "snapshots").glob("comparison-train-*.parquet")))
    assert all(row.metadata["hearken_media"] == "audio/wav" for row in rows)  # type: ignore[union-attr]
    result = read_evaluation(project.path)
    ours = result.policies["r02-melody-climb"]
    assert (result.domain, result.baseline) == ("melody", "my-melody") and result.judge and result.judge.kind == "gold"
    assert ours.win_rate is not None and ours.win_rate.low > 0.5, "it learned what is liked"
    assert ours.gold is not None and ours.proxy is not None and ours.kl is None and ours.distinct_2 is None
    assert set(ours.figures) == {"range"} and len(ours.responses) == 12
    card = RewardCard.load(project.artifacts / "r01-reward")
    assert card is not None and card.passes and card.accuracy.low > 0.5 and not card.lengths
    assert {"said twice", "score against length"}.isdisjoint(probe.name for probe in card.probes), "it has no words"

    hearken("evaluate", "--best-of", "4", "--judge", "simulated", *where)
    found = read_evaluation(project.path)
    assert found.judge is not None and found.judge.kind == "simulated" and "best-of-4@my-melody" in found.policies
    hearken("report", *where)
    page = (project.path / "report.html").read_text()
    assert "the world of tunes" in page and "Notes between the lowest and the highest" in page
    assert page.count('<audio controls src="data:audio/wav;base64,') >= 2 * 8, "before and after"
    assert "media-src data:" in page and "Distinct" not in page and "Self-BLEU" not in page
    assert "melody-climb" in hearken("trace", "r02-melody-climb", *where)


@pytest.mark.slow
def test_the_page_to_the_letter(package: Path, tmp_path: Path) -> None:
    tunes = init(tmp_path, TITLES, {})
    where = ("-C", tunes.path)
    hearken("loop", *where)
    assert {f"r0{number}-melody-climb" for number in (1, 2, 3)} <= {one.name for one in tunes.artifacts.iterdir()}
    hearken("report", *where)


def test_cards_and_inspections_are_its_own(project: Project, tmp_path: Path) -> None:
    where = ("-C", project.path)
    hearken("sample", *where)
    hearken("label", "--with", "simulated", *where)
    hearken("loop", "--rounds", "1", *where)
    for name in ("r01-melody-climb", "r01-reward"):
        hearken("push", name, "--dry-run", "--out", tmp_path / name, *where)
    policy, reward = ((tmp_path / name / "README.md").read_text() for name in ("r01-melody-climb", "r01-reward"))
    assert "Notes between the lowest and the highest" in policy and "hearken train melody-climb --model" in policy
    assert "made by melody-climb" in policy
    for word in ("transformers\n", "text-generation", "safety", "tokens"):
        assert word not in policy + reward.replace("transformers 5", ""), word
    data = next((project.path / "snapshots").glob("comparison-train-*.parquet"))
    (seen,) = json.loads(hearken("inspect", data, "-n", "1", "--model", "r01-reward", "--json", *where))["views"]
    first, _ = seen["responses"]
    assert first["facts"]["holds"] == project.read(first["content"]) and first["note"].startswith("rank ")
    score = project.domain.scorer(str(project.artifacts / "r01-reward"), project.media)
    assert first["score"] == score([seen["prompt"]], [[first["content"]]])[0][0]
    (alone,) = json.loads(hearken("inspect", project.path / first["content"], "--json", *where))["views"]
    assert alone["responses"][0]["facts"] == first["facts"] and alone["responses"][0]["score"] is None
    assert "holds" in hearken("inspect", data, "-n", "1", *where)


def test_people_hear_it_and_nobody_else(project: Project, chromium: Any) -> None:
    hearken("sample", "-C", project.path)
    expect = pytest.importorskip("playwright.sync_api").expect
    with served(project) as address:
        page = chromium.new_context().new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(address.link)
        page.wait_for_url("**/welcome")
        assert "You will hear what a model made" in page.inner_text("main, body") and "practise" not in page.content()
        page.get_by_label("Your name").fill("Ann")
        page.get_by_role("button", name="let us begin").click()
        page.locator("#desk .question").wait_for()
        page.locator("#desk audio").nth(1).wait_for()
        expect(page.locator("#desk [data-unseen]")).to_have_count(0)
        sounds = page.eval_on_selector_all("#desk audio", "all => all.map(one => [one.src, one.duration])")
        assert [round(seconds, 2) for _, seconds in sounds] == [0.3, 0.3]
        answer = page.request.get(sounds[0][0])
        assert answer.headers["content-type"] == "audio/wav" and answer.headers["x-content-type-options"] == "nosniff"
        assert "media-src 'self'" in answer.headers["content-security-policy"]
        assert httpx.get(sounds[0][0]).status_code == 401, "a stranger hears nothing"
        page.wait_for_timeout(350)
        page.keyboard.press("1")
        expect(page.locator("#tally b")).to_have_text("1")
        assert not problems, problems
        with project.store() as store:
            (judgment,) = store.judgments()
            first = store.response(judgment.payload.response_ids[0])  # type: ignore[union-attr]
        assert isinstance(judgment.payload, ComparisonPayload) and None not in judgment.payload.ranks
        assert first.payload is not None

        # What cannot be heard cannot be judged.
        waiting = page.evaluate("fetch('/api/v1/own').then(one => one.json())")["items_left"]
        page.evaluate("""document.querySelector('#desk audio').src = '/media/nothing/0?ticket=x'""")
        page.locator("#desk p[data-unseen]").wait_for()
        page.keyboard.press("1")
        page.wait_for_timeout(300)
        assert page.evaluate("fetch('/api/v1/own').then(one => one.json())")["items_left"] == waiting


def test_the_owner_hears_what_was_judged(project: Project, chromium: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    hearken("sample", "-C", project.path)
    project.label()
    with served(project, "owner") as address:
        page = chromium.new_context().new_page()
        page.goto(address.link)
        page.wait_for_url("**/owner")
        page.goto(f"{address.url}/owner/responses")
        sound = page.locator("article audio").first
        expect(sound).to_be_visible(timeout=30_000)
        address_of_it = f"{address.url}{sound.get_attribute('src')}"
        assert page.request.get(address_of_it).headers["content-type"] == "audio/wav"
        assert httpx.get(address_of_it, follow_redirects=False).status_code in (303, 401)
    with project.store() as store:
        desk = Desk(store, project.domain)
        assert desk.change_settings({"kinds": ["rating"]})[1].kinds == ["rating"]
        with pytest.raises(UserError, match="nobody can give 'edit'"):
            desk.change_settings({"kinds": ["comparison", "edit"]})


def test_files_go_with_their_responses(project: Project, tmp_path: Path) -> None:
    where = ("-C", project.path)
    hearken("sample", *where)
    hearken("label", "--with", "simulated", *where)
    saved = tmp_path / "saved.db"
    hearken("backup", saved, *where)
    dump = tmp_path / "dump" / "all.jsonl"
    dump.parent.mkdir()
    hearken("export", dump, "--as", "raw", *where)
    pairs = tmp_path / "pairs" / "pairs.jsonl"
    pairs.parent.mkdir()
    hearken("export", pairs, "--as", "rankings", *where)
    with project.store() as store:
        every = store.media()
        counts: dict[Media, int] = {}
        for one in store.responses():
            if one.payload is not None:
                counts[one.payload] = counts.get(one.payload, 0) + 1
        alone = next(one for one in store.responses() if one.payload and counts[one.payload] == 1)
    assert alone.payload is not None and project.media.find(alone.payload)
    assert all(MediaFolder(dump.parent).find(one) for one in every)

    hearken("erase", "response", alone.id, "--reason", "asked for", *where)
    assert project.media.find(alone.payload) is None, "its file is gone with it"
    assert sum(project.media.find(one) is not None for one in every) == len(every) - 1
    hearken("restore", saved, *where)
    assert project.media.find(alone.payload) is None, "and a backup does not bring it back"

    for name, source in (("of-dump", dump), ("of-pairs", pairs)):
        other = tmp_path / name
        hearken("init", other, "--model", tmp_path / "my-melody", "--prompts", tmp_path / "prompts.jsonl")
        hearken("import", source, "-C", other)
        copy = Project(other)
        with copy.store() as store:
            found = store.media()
            assert found and all(copy.media.find(one) for one in found) and store.last_seq()
            assert {one.domain for one in store.prompts()} == {"melody"}
    (pairs.parent / alone.payload.path).unlink()
    broken = CliRunner().invoke(app, ["import", str(pairs), "-C", str(project.path)])
    assert broken.exit_code == 2 and f"{alone.payload.path} is not beside it" in broken.output


def test_files_come_through_the_api(project: Project) -> None:
    from starlette.testclient import TestClient

    from hearken.server import api
    from hearken.server.app import create_app

    write = sys.modules["melody"].write
    with project.store() as store:
        prompt = next(iter(store.prompts()))
        app = create_app(store, media=project.path, domain=project.domain, model=project.config.model)
        client = TestClient(app, base_url="http://127.0.0.1")

        def bring(data: bytes, scopes: Any = ("write",), at: str = prompt.id, **params: Any) -> httpx.Response:
            token, _ = store.access.add_token("program", list(scopes))
            headers = {"Authorization": f"Bearer {token}"}
            return client.post(f"/api/v1/prompts/{at}/files", content=data, headers=headers, params=params)  # type: ignore[return-value]

        first = bring(write([1, 2, 3]), policy="mine", seed=3)
        assert first.status_code == 200 and first.json()["type"] == "audio/wav" and first.json()["new"]
        response = store.response(first.json()["id"])
        assert response.payload and project.read(response.payload.path) == [1, 2, 3] and response.policy == "mine"
        assert not bring(write([1, 2, 3]), policy="mine", seed=3).json()["new"], "sent again, it is there"
        shown = store.response(bring(write([1, 2, 4]), policy="mine").json()["id"])
        assert store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=(response.id, shown.id))]) == 1

        count = len(list((project.path / "media").rglob("*.wav")))
        for data, status, says in (
            (b"\x1aE\xdf\xa3" + b"0" * 40, 415, "video/webm is no response"), (b"<script>", 415, "no response"),
            (write([1, 2, 3])[:60], 415, "cannot be read"), (b"", 415, "no response"),
            (b"0" * (64_000_001), 413, "longer than 64,000,000"),
        ):  # fmt: skip
            answer = bring(data)
            assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text
        assert bring(write([5, 5, 5]), ("read",)).status_code == 403
        assert bring(write([5, 5, 5]), at="nobody").status_code == 404
        assert client.post(f"/api/v1/prompts/{prompt.id}/files", content=b"0" * 70_000).status_code == 401
        assert len(list((project.path / "media").rglob("*.wav"))) == count, "nothing that was refused is kept"
        document = client.get("/api/v1/openapi.json").json()["paths"]["/api/v1/prompts/{prompt_id}/files"]["post"]
        assert "application/octet-stream" in document["requestBody"]["content"] and "408" in document["responses"]

        store.erase("response", response.id, "asked for")
        assert bring(write([1, 2, 3]), policy="mine", seed=3).status_code == 410
        forget(store, project.media, [response.payload])
        assert project.media.find(response.payload) is None

    async def slow(_: Any) -> bytes:
        await asyncio.sleep(9)
        return b""

    with project.store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "UPLOAD_SECONDS", 0.05)
        patch.setattr("starlette.requests.Request.body", slow)
        assert bring(b"").status_code == 408


def test_a_program_registers_one(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import melody  # type: ignore[import-not-found]

    class Other(melody.Melody):
        name = "other"

    monkeypatch.setattr(base, "_registered", {})
    monkeypatch.setattr(world, "_registered", {})
    base.register(Other())
    world.register("more-tunes", melody.Tunes)
    (tmp_path / "melody.json").write_text("[1, 2, 3]")
    assert base.domain_of(str(tmp_path)).name == "other" and base.find_domain("other").viewer == "audio"
    assert world.open_world("more-tunes", 1).groups == ("bold", "calm")
    for find, known in ((base.find_domain, "text, melody, other"), (lambda name: world.open_world(name, 0), "tales")):
        with pytest.raises(UserError, match=known):
            find("nothing")
    with pytest.raises(UserError, match="of the domain other"):
        stages.find_stage("melody-climb", "other")


def test_a_stage_may_have_the_name_of_another_domains(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from melody_options import ClimbConfig  # type: ignore[import-not-found]

    class Config(ClimbConfig):
        """Of melodies."""

        stage = "dpo"

    monkeypatch.setattr(stages, "_registered", {})
    inputs = (stages.MODEL, stages.DATA, stages.REWARD)
    stages.register(stages.Stage("Prefer some melodies", Config, "melody_climb", inputs, domain="melody"))
    assert [stages.find_stage("dpo", domain).domain for domain in ("", "melody")] == ["text", "melody"]
    assert "Prefer some melodies" not in hearken("train", "dpo", "--help")
    assert "Prefer some melodies" in hearken("train", "dpo", "--model", project.config.model, "--help")
    monkeypatch.chdir(project.path)
    assert "Prefer some melodies" in hearken("train", "dpo", "--help")
    assert "Prefer some melodies" not in hearken("train", "dpo", "--model", "org/model", "--help")


def test_models_without_a_project_are_compared_too(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    other = tmp_path / "higher"
    other.mkdir()
    (other / "melody.json").write_text("[14, 14, 14]")
    (tmp_path / "reward.json").write_text("[1, 1, 1]")
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time.")
    request = EvaluationRequest(
        policies=[str(other)], against=project.config.model, data=[str(tmp_path / "prompts.jsonl")],
        reward=str(tmp_path),
    )  # fmt: skip
    found = evaluate_models(request, SamplingParameters())
    assert found.domain == "melody" and found.judge is not None and found.judge.kind == "reward"
    rate = found.policies["higher"].win_rate
    assert rate is not None and rate.estimate > 0.9
    with pytest.raises(UserError, match="is no language model"):
        evaluate_models(replace(request, perplexity=[str(text)]), SamplingParameters())


def test_a_text_stage_reads_no_files(project: Project, tmp_path: Path) -> None:
    from hearken.domains.text.data import Reader
    from hearken.training.options import TextOptions

    hearken("sample", "-C", project.path)
    project.label()
    with pytest.raises(UserError, match=r"its responses are files \(audio/wav\)"):
        Reader(TextOptions()).read([project.snapshot("train")])
    with pytest.raises(UserError, match="no stage 'ppo' of the domain melody"):
        project.request("ppo")
