"""Agents from comparisons of clips: through the whole loop in an environment of one's own, and what is refused."""

from __future__ import annotations

import io
import json
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("gymnasium", reason='needs pip install "hearken[control]"')
pytest.importorskip("stable_baselines3", reason='needs pip install "hearken[control]"')

from hearken.algorithms.stage import Inputs, find_stage, run_stage, stage_of
from hearken.cli.main import app
from hearken.domains.base import domain_of, find_domain
from hearken.domains.control import environment as environments
from hearken.domains.control.clips import Clip
from hearken.domains.control.domain import DOMAIN, ClipSampling, start_of
from hearken.domains.control.environment import Environment
from hearken.domains.control.policy import load_policy
from hearken.errors import UserError
from hearken.evaluation.results import read_evaluation
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.media import Media, MediaFolder, sniff
from hearken.loop.project import Project

LINE = "line_world:Line-v0"
HOW = ClipSampling()


@pytest.fixture(autouse=True)
def _line_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def files(tmp_path: Path) -> MediaFolder:
    return MediaFolder(tmp_path)


def agent(folder: Path, **about: Any) -> str:
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps({"id": LINE} | about))
    return str(folder)


def drawn(policy: str, files: MediaFolder, prompts: list[str], k: int = 2, seed: int = 0) -> list[Any]:
    return [one for part in DOMAIN.sample(policy, prompts, k, HOW, seed, files) for one in part]


def hearken(*words: Any) -> str:
    done = CliRunner().invoke(app, list(map(str, words)), prog_name="hearken")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def project(tmp_path: Path) -> Project:
    hearken("init", tmp_path / "line", "--model", agent(tmp_path / "random", question="Which is nearer to the bar?"))
    file = tmp_path / "line" / "hearken.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings["domain"] == "control"
    settings["world"], settings["sample"]["k"] = "returns", 2
    settings["loop"] |= {"improve": "ppo", "labelers": "simulated", "prompts": 120, "held_out": 40, "evaluate": 20}
    settings["stages"] = {"ppo": {"steps": 16_000}}
    file.write_text(yaml.safe_dump(settings))
    return Project(tmp_path / "line")


@pytest.mark.slow
def test_the_whole_loop(project: Project) -> None:
    where = ("-C", project.path)
    hearken("loop", "--rounds", 1, *where)
    result = read_evaluation(project.path)
    before, after = result.policies["random"], result.policies["r01-ppo"]
    assert after.figures["return"].low > before.figures["return"].high, "it learned what only the labelers knew"
    assert after.win_rate is not None and after.win_rate.low > 0.5 and after.proxy is not None and after.gold
    card = RewardCard.load(project.artifacts / "r01-reward")
    assert card is not None and card.passes and card.accuracy.low > 0.5
    reward = project.artifact("r01-reward")
    assert reward is not None and {"ratio", "accuracy", "validation_loss"} <= reward.metrics.keys()
    rows = (project.artifacts / "r01-ppo" / "run" / "metrics.jsonl").read_text().splitlines()
    assert {"return", "predicted", "step"} <= json.loads(rows[-1]).keys()

    # What Stable-Baselines3 saved acts as it does there, and is read without its pickles.
    from stable_baselines3 import PPO

    folder = project.artifacts / "r01-ppo"
    theirs = PPO.load(folder / "policy.zip", device="cpu")
    with closing(Environment(LINE).open()) as opened:
        ours = load_policy(str(folder), Environment(LINE), opened)
    saved = np.load(folder / "normalisation.npz")
    for seen in np.random.default_rng(0).uniform(-2, 2, (20, 2)).astype(np.float32):
        normal = np.clip((seen - saved["mean"]) / np.sqrt(saved["variance"] + 1e-8), -10, 10).astype(np.float32)
        np.testing.assert_allclose(
            ours(seen, np.random.default_rng(0), True), theirs.predict(normal, deterministic=True)[0], atol=1e-5
        )

    hearken("report", *where)
    page = (project.path / "report.html").read_text()
    assert page.count('src="data:video/webm;base64,') >= 4 and "True return of an episode" in page
    assert "Improved by PPO on the learned reward" in page and "the world of true returns" in page
    hearken("train", "ppo", "--model", folder, "--reward", project.artifacts / "r01-reward", "--out",
            project.path / "more", "--steps", 2000)  # fmt: skip
    assert np.load(project.path / "more" / "normalisation.npz")["count"] > saved["count"], "it went on where it was"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_policy(tmp_path: Path, project: Project) -> None:
    hearken("sample", "--prompts", 60, "-C", project.path)
    project.label()
    data = project.snapshot("train")
    made = []
    for name in ("a", "b"):
        reward = run_stage(
            find_stage("reward", "control"), Inputs(model=project.config.model, data=(data,)),
            find_stage("reward", "control").options(steps=60), tmp_path / f"reward-{name}",
        )  # fmt: skip
        stage = find_stage("ppo", "control")
        inputs = Inputs(model=project.config.model, reward=str(reward.path))
        run_stage(stage, inputs, stage.options(steps=2048), tmp_path / name)
        clip = drawn(str(tmp_path / name), project.media, ["Which? (start 3)"])[0]
        made.append((reward.metrics, clip.content))
    assert made[0] == made[1]


def test_clips_are_the_same_for_the_same_seed(tmp_path: Path, files: MediaFolder) -> None:
    policy = agent(tmp_path / "random")
    both = drawn(policy, files, ["Which? (start 3)", "Which? (start 4)"])
    again = drawn(policy, files, ["Which? (start 4)"])
    assert [one.content for one in both[2:]] == [one.content for one in again], "whatever else is sampled"
    assert len({one.content for one in both}) == 4 and [one.number for one in both] == [0, 1, 0, 1]
    clip = DOMAIN.read(both[0].content, files)
    assert len(clip) == 30 and clip.seed == 3 and clip.rewards.shape == (30,)
    assert Clip.from_bytes(clip.to_bytes()).to_bytes() == clip.to_bytes()
    seen = DOMAIN.measure(policy, policy, ["Which? (start 3)"], HOW, 0, files)
    assert seen.responses == (both[0].content,) and set(seen.figures) == {"return"}


@pytest.mark.parametrize("kind", ["box", "choice"])
def test_videos_are_drawn_when_they_are_asked_for(tmp_path: Path, files: MediaFolder, kind: str) -> None:
    av = pytest.importorskip("av", reason='needs pip install "hearken[control]"')
    media = Media(drawn(agent(tmp_path / "random", kwargs={"kind": kind}), files, ["(start 1)"])[0].content)
    path = files.find(media)
    assert path is not None and list(path.parent.iterdir()) == [path]
    video = DOMAIN.shown(media, files)
    assert video is not None and sniff(video.read_bytes()[:16]) == "video/webm"
    with av.open(str(video)) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 33, "30 steps, and a flash"
    strip = DOMAIN.stills(media, files)
    assert strip is not None and sniff(strip.read_bytes()[:16]) == "image/jpeg"
    video.write_bytes(b"")
    assert DOMAIN.shown(media, files) == video and video.stat().st_size, "an empty file is made anew"
    assert files.delete([media]) == 3, "erased with its clip"


def test_one_is_told_from_the_other_by_its_domain(tmp_path: Path) -> None:
    assert domain_of("HalfCheetah-v5").name == domain_of(agent(tmp_path / "a")).name == "control"
    assert domain_of("org/model-v2").name == domain_of("gpt2").name == domain_of("distilgpt2-v1").name == "text"
    assert {find_stage(name, find_domain(d).name).domain for name in ("reward", "ppo") for d in ("control",)} == {
        "control"
    }
    assert find_stage("ppo").domain == find_stage("reward").domain == "text"
    found = stage_of("ppo", "control")
    assert found is not None and found.domain == "control"
    assert start_of("Which? (start 17)") == 17 and start_of("Run!") == start_of("Run!") != start_of("Walk!")


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"id": "HalfCheeta-v5"}, "Did you mean 'HalfCheetah-v5'"),
        ({"id": "no_such_module:Line-v0"}, "there is no environment"),
        ({"id": "ALE/Pong-v5"}, "pip install ale-py"),
        ({"id": "highway-fast-v0"}, "pip install highway-env"),
        ({"kwargs": {"kind": "dict"}}, "observations are Dict"),
        ({"kwargs": {"kind": "many"}}, "actions are MultiDiscrete"),
        ({"kwargs": {"kind": "raises"}}, "no such track"),
        ({"kwargs": {"wings": 2}}, "cannot be opened"),
        ({"kwargs": "fast"}, "kwargs is of the wrong kind"),
        ({"speed": 3}, "unknown key 'speed'"),
        ({"kwargs": {"broken": "observation"}}, "no finite number"),
        ({"kwargs": {"broken": "reward"}}, "no finite number"),
    ],
)
def test_environments_that_cannot_be_learnt_in(tmp_path: Path, files: MediaFolder, about: Any, says: str) -> None:
    if "ALE" in about.get("id", "") or "highway" in about.get("id", ""):
        for name in ("ale_py", "highway_env"):
            if name in sys.modules:
                pytest.skip(f"{name} is there")
    with pytest.raises(UserError) as error:
        drawn(agent(tmp_path / "random", **about), files, ["(start 1)"])
    assert says in f"{error.value.what} {error.value.hint}"


def test_files_that_are_no_clips(tmp_path: Path, files: MediaFolder) -> None:
    whole = DOMAIN.read(drawn(agent(tmp_path / "random"), files, ["(start 1)"])[0].content, files).to_bytes()
    pickled = io.BytesIO()
    np.savez(pickled, about=np.array({"a": 1}, dtype=object), allow_pickle=True)
    for data in (b"", whole[:200], b"\x1aE\xdf\xa3" + whole, pickled.getvalue(), b"PK\x03\x04"):
        with pytest.raises(UserError, match="no clip"):
            Clip.from_bytes(data)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "environment.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        Environment.named(str(tmp_path / "broken"))


def test_what_cannot_be_drawn_says_why(tmp_path: Path, files: MediaFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = Media(drawn(agent(tmp_path / "blind", id="line_world:Blind-v0"), files, ["(start 1)"])[0].content)
    with pytest.raises(UserError, match="no render mode rgb_array"):
        DOMAIN.shown(blind, files)
    odd = Media(drawn(agent(tmp_path / "odd", kwargs={"broken": "picture"}), files, ["(start 1)"])[0].content)
    with pytest.raises(UserError, match="draws no pictures"):
        DOMAIN.shown(odd, files)
    media = Media(drawn(agent(tmp_path / "random"), files, ["(start 1)"])[0].content)
    import line_world  # type: ignore[import-not-found]

    monkeypatch.setattr(
        line_world.Line, "reset", lambda self, **_: (self.__dict__.update(x=0, v=0, t=0), (self._seen(), {}))[1]
    )
    with pytest.raises(UserError, match="plays otherwise"):
        DOMAIN.shown(media, files)
    for folder in tmp_path.glob("media/*"):
        assert not list(folder.glob(".*")), "nothing half written stays"


def test_short_and_ending_episodes(tmp_path: Path, files: MediaFolder) -> None:
    (one, *_) = drawn(agent(tmp_path / "short", kwargs={"ends": 7}), files, ["(start 1)"])
    clip = DOMAIN.read(one.content, files)
    assert len(clip) == 7 and clip.terminated and one.finish_reason == "stop"


def test_rewards_and_policies_of_another_environment(tmp_path: Path, project: Project) -> None:
    hearken("sample", "--prompts", 40, "-C", project.path)
    project.label()
    data, stage = project.snapshot("train"), find_stage("reward", "control")
    other = agent(tmp_path / "other", kwargs={"ends": 20})
    with pytest.raises(UserError, match="a clip is of"):
        run_stage(stage, Inputs(model=other, data=(data,)), stage.options(), tmp_path / "out")
    made = run_stage(
        stage, Inputs(model=project.config.model, data=(data,)), stage.options(steps=5), tmp_path / "reward"
    )
    ppo = find_stage("ppo", "control")
    with pytest.raises(UserError, match="is a reward for"):
        run_stage(ppo, Inputs(model=other, reward=str(made.path)), ppo.options(), tmp_path / "out")
    with pytest.raises(UserError, match="no reward model of clips"):
        run_stage(ppo, Inputs(model=other, reward=other), ppo.options(), tmp_path / "out")
    (made.path / "reward.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="no reward model"):
        DOMAIN.scorer(str(made.path), project.media)
    with pytest.raises(UserError, match="no multiple"):
        ppo.options.parse({"rollout": 100})


@pytest.mark.parametrize("verdicts", ["none", "ties", "one"])
def test_few_and_useless_labels(tmp_path: Path, files: MediaFolder, verdicts: str) -> None:
    policy, rows = agent(tmp_path / "random"), []
    for number in range(0 if verdicts == "none" else 1 if verdicts == "one" else 12):
        a, b = drawn(policy, files, [f"(start {number})"])
        ranks = [0, 1] if verdicts == "one" else [0, 0]
        rows.append({"prompt": f"(start {number})", "responses": [a.content, b.content], "ranks": ranks})
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage, inputs = find_stage("reward", "control"), Inputs(model=policy, data=(str(data),))
    if verdicts != "one":
        with pytest.raises(UserError):
            run_stage(stage, inputs, stage.options(), tmp_path / "out")
        return
    made = run_stage(stage, inputs, stage.options(steps=20), tmp_path / "out")
    assert np.isfinite(made.metrics["validation_loss"]) and made.metrics["train_accuracy"] == 1.0


def test_options_of_texts_are_refused() -> None:
    for wrong in ({"top_k": 5}, {"max_new_tokens": 5}, {"temperature": 0.5}):
        with pytest.raises(UserError):
            ClipSampling.parse(wrong)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError) as error:
        environments.gymnasium()
    assert "hearken[control]" in (error.value.hint or "")
    assert domain_of("HalfCheetah-v5").name == "control", "told without it"


def test_a_policy_that_cannot_be_read(tmp_path: Path, files: MediaFolder) -> None:
    policy = Path(agent(tmp_path / "broken"))
    (policy / "policy.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="no policy"):
        drawn(str(policy), files, ["(start 1)"])


@pytest.mark.slow
def test_people_see_both_clips(project: Project, chromium: Any) -> None:
    from hearken.server.run import Invitation, Network, serve

    expect = pytest.importorskip("playwright.sync_api").expect
    hearken("sample", "--prompts", 10, "-C", project.path)
    stop, ready, found = threading.Event(), threading.Event(), []
    how: dict[str, Any] = {"network": Network(port=0), "invitation": Invitation("labeler"), "until": stop.is_set}
    how["on_ready"] = lambda address: (found.append(address), ready.set())
    thread = threading.Thread(target=lambda: serve(project.path, **how), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        page = chromium.new_context().new_page()
        page.goto(found[0].link)
        page.get_by_label("Your name").fill("Ann")
        page.get_by_role("button", name="let us begin").click()
        page.locator("#desk video").nth(1).wait_for()
        expect(page.locator("#desk [data-unseen]")).to_have_count(0, timeout=20_000)
        for place in (0, 1):
            expect(page.locator("#desk video").nth(place)).not_to_have_js_property("currentTime", 0)
        times = page.eval_on_selector_all("#desk video", "all => all.map(one => [one.currentTime, one.videoWidth])")
        assert times[0][1] == times[1][1] == 120 and abs(times[0][0] - times[1][0]) < 0.15, "they begin together"
        page.keyboard.press("Space")
        expect(page.locator("#desk video").first).to_have_js_property("paused", True)
        assert all(page.eval_on_selector_all("#desk video", "all => all.map(one => one.paused)"))
        page.keyboard.press("H")
        assert page.eval_on_selector_all("#desk video", "all => all.map(one => one.playbackRate)") == [0.5, 0.5]
        page.keyboard.press("ArrowUp")
        expect(page.locator("#tally b")).to_have_text("1")
        with project.store() as store:
            (judgment,) = store.judgments()
        assert set(judgment.payload.ranks) == {0}  # type: ignore[union-attr]

        # Where videos do not play, moments of them are shown; what does not come at all cannot be judged.
        page.route(
            "**/media/**",
            lambda route: route.continue_() if "stills" in route.request.url else route.fulfill(body=b"\x1aE\xdf\xa3"),
        )
        page.reload()
        page.locator("#desk .stills").nth(1).wait_for()
        expect(page.locator("#desk [data-unseen]")).to_have_count(0)
        page.route("**/media/**", lambda route: route.fulfill(status=415))
        page.reload()
        page.locator("#desk p[data-unseen]").nth(1).wait_for()
        page.wait_for_timeout(400)
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#toast, .toast")).to_contain_text("Not every response is shown yet")
        calm = page.context.browser.new_context(reduced_motion="reduce", storage_state=page.context.storage_state())
        still = calm.new_page()
        still.goto(page.url)
        expect(still.locator("#desk video").first).to_have_js_property("readyState", 4)
        assert still.eval_on_selector_all("#desk video", "all => all.map(one => one.paused)") == [True, True]
        still.wait_for_timeout(400)  # what comes at once was meant for the item before
        still.keyboard.press("Space")
        expect(still.locator("#desk [data-unseen]")).to_have_count(0)
        calm.close()
    finally:
        stop.set()
        thread.join(20)
