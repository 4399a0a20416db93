"""Cards, folders, and the way to a Hub that the test serves itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from hearken.errors import UserError
from hearken.feedback.records import Guideline, Judgment, Labeler, Prompt, Response, ThumbPayload
from hearken.loop.artifacts import ArtifactStore
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.publishing import model_card, publish
from hearken.training.artifact import Artifact

SECRET = "hf_" + "s" * 34


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "p", ProjectConfig(model="owner/base", prompts="prompts.jsonl"))

    def artifact(name: str, kind: str, second: int, parents: dict[str, str], **more: object) -> None:
        folder = made.artifacts / name
        (folder / "run").mkdir(parents=True)
        inputs = {"model": parents.get("model", "owner/base"), "data": [str(made.path / "data" / "x.jsonl")]}
        manifest = {
            "kind": kind, "inputs": inputs, "options": {"lr": 3e-3}, "parents": parents,
            "data": {"files": inputs["data"], "hash": "cd" * 32, "judgments": 7 if kind == "reward" else None},
            "seed": 1, "versions": {"hearken": "0.1"}, "metrics": {"accuracy": 0.8, "accuracy_low": 0.7,
            "accuracy_high": 0.9}, "seconds": 1.0, "created": f"2026-01-01T00:00:{second:02d}+00:00",
        } | more  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "config.json").write_text("{}")
        (folder / "run" / "rollouts.jsonl").write_text("{}\n")

    def path(name: str) -> str:
        return str(made.artifacts / name)

    artifact("r00-sft", "sft", 1, {"model": "owner/base"})
    artifact("r01-reward", "reward", 2, {"model": path("r00-sft")})
    artifact("r01-ppo", "ppo", 3, {"model": path("r00-sft"), "reward": path("r01-reward")})
    with made.store() as store:
        store.add_prompts([prompt := Prompt(content="p")])
        store.add_labeler(Labeler(name="ana", id="ana"))
        store.add_responses([response := Response(prompt_id=prompt.id, text="t")])
        version: Guideline = store.add_guideline("Prefer the kinder one.")
        payload = ThumbPayload(response_id=response.id, label=True)
        store.submit(Judgment(prompt_id=prompt.id, labeler_id="ana", payload=payload, guideline=version.version))
    evaluation = {
        "baseline": "r00-sft", "judge": "the reward model (a proxy)", "prompts": ["a", "b"],
        "policies": {"r01-ppo": {"win_rate": [0.8, 0.7, 0.9], "kl": [3.0, None, None],
                                 "win_rate_by_group": {"<i>hearth|": [0.4, 0.3, 0.45]}}},
    }  # fmt: skip
    (made.path / "evaluation.json").write_text(json.dumps(evaluation))
    return made


def test_the_card_tells_the_whole_story(project: Project) -> None:
    made = Artifact.load(project.artifacts / "r01-ppo")
    assert list(ArtifactStore(made.path.parent).ancestors(made)) == ["r00-sft", "r01-reward", "r01-ppo"]
    card = model_card(made, to="me/tales", license="apache-2.0")
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "text-generation",
        "base_model": "owner/base", "tags": ["hearken", "rlhf", "ppo"],
    }  # fmt: skip
    for said in (
        "# tales", "cdcdcdcdcdcdcdcd", "reward: artifacts/r01-reward", "7 judgments went into it", "1 person",
        "version 1 (1 judgments)", "\\[70, 90\\]", "On 2 held-out prompts", "people were not asked",
        "not shown to be better by the taste of", "hearken train ppo --model artifacts/r00-sft", "lr=0.003",
    ):  # fmt: skip
        assert said in body, said
    assert str(project.path) not in card, "no path of this machine"
    assert "\\<i\\>hearth\\|" in body, "names are no markup"


def test_a_reward_model_has_its_own_card(project: Project) -> None:
    card = model_card(Artifact.load(project.artifacts / "r01-reward"))
    assert "text-classification" in card and "reward-model" in card and "80\u202f%" in card
    assert "hearken_reward_gain" in card and "safety" not in card


def test_a_dry_run_makes_the_folder_and_only_its_own_is_made_anew(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    done = publish(project.artifacts / "r01-ppo", out=out, dry_run=True)
    assert done["files"] == ["README.md", "config.json", "hearken.json"] and "url" not in done
    assert str(project.path) not in (out / "hearken.json").read_text()
    assert json.loads((out / "hearken.json").read_text())["parents"]["reward"] == "artifacts/r01-reward"
    (out / "stale.bin").touch()
    again = publish(project.artifacts / "r01-ppo", out=out, dry_run=True, rollouts=True)
    assert again["files"] == ["README.md", "config.json", "hearken.json", "rollouts.jsonl"]
    for taken in (project.artifacts / "r00-sft", tmp_path):
        with pytest.raises(UserError, match="not made by hearken push"):
            publish(project.artifacts / "r01-ppo", out=taken, dry_run=True)
    assert (project.artifacts / "r00-sft" / "manifest.json").exists()
    with pytest.raises(UserError, match="no repository is named"):
        publish(project.artifacts / "r01-ppo", out=out)


class Hub(ThreadingHTTPServer):
    """As much of a Hub as an upload of small files needs; ``refuse`` is a status it answers everything with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str, str]] = []
        self.commits: list[str] = []
        self.refuse = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *words: object) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self) -> None:
        sent = self.body()
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        found: object
        if self.server.refuse:
            return self.reply(self.server.refuse, {"error": f"no: {self.headers.get('Authorization')}"})
        if self.path == "/api/repos/create":
            found = {"url": f"{self.server.url}/me/tales", "name": "me/tales", "id": "1"}
        elif "/preupload/" in self.path:
            files = json.loads(sent)["files"]
            found = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        elif "/commit/" in self.path:
            self.server.commits.append(sent.decode())
            found = {"commitUrl": f"{self.server.url}/me/tales/commit/0", "commitOid": "0" * 40, "success": True}
        else:
            found = {"name": "me", "id": "me/tales", "sha": "0" * 40, "siblings": [], "private": True}
        self.reply(200, found)

    def reply(self, status: int, found: object) -> None:
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_HEAD = answer


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def push(project: Project, endpoint: str, tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """``hearken push`` in a process of its own: the Hub's address is read when its client is imported."""
    words = ["push", "r01-ppo", "--to", "me/tales", "--out", str(tmp_path / "out"), "-C", str(project.path), "--json"]
    more = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", "from hearken.cli.main import main; main()", *words],
        capture_output=True, text=True, timeout=120, env=os.environ | more | {"HF_TOKEN": SECRET} | env,
    )  # fmt: skip


@pytest.mark.slow
def test_push_uploads_to_the_hub_that_is_named(project: Project, hub: Hub, tmp_path: Path) -> None:
    done = push(project, hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == f"{hub.url}/me/tales"
    (commit,) = hub.commits
    paths = {json.loads(line)["value"].get("path") for line in commit.splitlines() if '"file"' in line}
    assert paths == {"README.md", "config.json", "hearken.json"}
    assert any(header == f"Bearer {SECRET}" for *_, header in hub.asked)
    assert SECRET not in done.stdout + done.stderr + commit


@pytest.mark.parametrize(
    ("status", "env", "message"),
    [
        (403, {}, "refused me/tales (403"),
        (0, {"HF_TOKEN": ""}, "nobody is logged in"),
        (0, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (0, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
@pytest.mark.slow
def test_a_hub_that_cannot_be_used_is_said_plainly(
    project: Project, hub: Hub, tmp_path: Path, status: int, env: dict[str, str], message: str
) -> None:
    hub.refuse = status
    done = push(project, hub.url, tmp_path, **env)
    assert done.returncode == 2 and message in done.stderr and not done.stdout, done.stderr
    assert "Traceback" not in done.stderr and SECRET not in done.stderr
    assert (tmp_path / "out" / "README.md").exists(), "the folder is ready for another try"
