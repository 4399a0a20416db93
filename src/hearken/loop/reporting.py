"""The report of a project: figures and texts from its artifacts, database and last evaluation, put together."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.errors import UserError
from hearken.evaluation import report as page
from hearken.evaluation.compare import calibration
from hearken.feedback.examples import Comparison, Content, Message
from hearken.feedback.formats import read_examples
from hearken.loop import human, taste
from hearken.statistics.intervals import Interval
from hearken.training.artifact import Artifact

if TYPE_CHECKING:
    from hearken.loop.project import Project

SHOWN = 8  # pairs of responses side by side


def compose(project: Project) -> page.Report:
    """Everything that is known of the project.

    Raises:
        UserError: nothing was evaluated yet.
    """
    file = project.path / "evaluation.json"
    if not file.exists():
        raise UserError(f"{project.path} has no evaluation yet", "Run: hearken evaluate")
    found = json.loads(file.read_text("utf-8"))
    artifacts = project.finished()
    names = [n for n in found["policies"] if "responses" in found["policies"][n]]
    ours = next((n for n in names if n != found["baseline"]), found["baseline"])
    return page.Report(
        title="Did it get better?",
        subtitle=f"RLHF on {'the tale world' if project.config.world else Path(project.config.prompts).name}, "
        f"{len(found['prompts'])} held-out prompts",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        policy=ours,
        baseline=found["baseline"],
        prompts=len(found["prompts"]),
        judge=found["judge"],
        steps=_steps(project, artifacts),
        pairs=_pairs(found, ours),
        warnings=_about_the_judge(project),
        policies=[_policy(name, found["policies"][name]) for name in found["policies"]],
        reward_model=_reward_model(project, artifacts, found),
        training=_training(project, artifacts),
        judges=_judges(project),
        taste=taste.load(project.path),
        recipe=_recipe(project, artifacts),
        lineage=page.lineage({name: a.manifest for name, a in artifacts.items()}),
    )


def _about_the_judge(project: Project) -> list[str]:
    """Where a person judged, the gold reward is not theirs."""
    if human.record(project) is None:
        return []
    return ["The gold reward is the average taste of the simulated labelers, not yours: a win by it is not your win."]


def _interval(value: Any) -> Any:
    return Interval(*value) if isinstance(value, list) else value


def _policy(name: str, figures: dict[str, Any]) -> page.Policy:
    known = {
        k: _interval(figures.get(k))
        for k in ("win_rate", "proxy", "gold", "kl", "perplexity", "parse_rate", "length", "distinct_2")
    }
    groups = {g: Interval(*w) for g, w in figures.get("win_rate_by_group", {}).items()}
    return page.Policy(name=name, by_group=groups, **known)


def _content(prompt: Any) -> Content:
    return prompt if isinstance(prompt, str) else tuple(Message(**turn) for turn in prompt)


def _pairs(found: dict[str, Any], ours: str) -> list[page.Pair]:
    """Prompts in the order of evaluation, not picked by result."""

    def answer(name: str, i: int) -> page.Answer:
        figures = found["policies"][name]

        def at(key: str) -> Any:
            return figures[key][i] if figures.get(key) else None

        return page.Answer(text=figures["responses"][i], proxy=at("scores"), gold=at("golds"), parses=at("parses"))

    return [
        page.Pair(prompt=_content(prompt), before=answer(found["baseline"], i), after=answer(ours, i))
        for i, prompt in enumerate(found["prompts"][:SHOWN])
    ]


def _steps(project: Project, artifacts: dict[str, Artifact]) -> list[page.Step]:
    """What was done, in order, with counts and seconds."""
    seconds = project.step_seconds()
    steps = []
    with project.store() as store:
        progress = store.progress()
        judgments, responses = sum(progress.judgments.values()), sum(1 for _ in store.responses())
    made: dict[str, tuple[str, int, str, float | None]] = {}
    for name, artifact in artifacts.items():
        data, metrics = artifact.manifest["data"], artifact.metrics
        if artifact.kind == "sft":
            made[name] = (
                "Learned to imitate its data, one pass",
                data["sequences"],
                "sequences",
                artifact.manifest["seconds"],
            )
        elif artifact.kind == "reward":
            made[name] = (
                "Learned to predict the judgments",
                data["judgments"],
                "rankings",
                artifact.manifest["seconds"],
            )
        else:
            options = artifact.manifest["options"]
            count = metrics["steps"] * options["batch"]
            made[name] = (
                "Improved by PPO under a KL penalty" + (" with a pretraining term" if data["ptx_pieces"] else ""),
                count,
                "episodes",
                artifact.manifest["seconds"],
            )
    sampled = False
    for name, (done, count, unit, spent) in made.items():
        if artifacts[name].kind == "reward" and not sampled:
            sampled = True
            steps.append(
                page.Step(
                    name="Sampling",
                    done="Answered prompts several times",
                    count=responses,
                    unit="responses",
                    seconds=seconds.get("Sampling"),
                )
            )
            steps.append(
                page.Step(
                    name="Judgments",
                    done="Labelers ranked the answers",
                    count=judgments,
                    unit="rankings",
                    seconds=seconds.get("Judgments"),
                )
            )
        options = artifacts[name].manifest["options"]
        settings = {k: options[k] for k in ("lr", "batch", "epochs", "beta", "ptx_coef", "loss") if k in options}
        steps.append(page.Step(name=name, done=done, count=count, unit=unit, seconds=spent, settings=settings))
    return steps


def _reward_model(project: Project, artifacts: dict[str, Artifact], found: dict[str, Any]) -> page.RewardModel | None:
    made = [a for a in artifacts.values() if a.kind == "reward"]
    if not made or "accuracy" not in made[-1].metrics:
        return None
    from hearken.evaluation.measure import Judge

    artifact = made[-1]
    metrics, data = artifact.metrics, artifact.manifest["data"]
    held_out = artifact.manifest["inputs"]["validation"]
    probabilities: list[float] = []
    happened: list[float] = []
    lengths: list[float] = []
    scores: list[float] = []
    if held_out:
        import math

        rows = [r for path in held_out for r in read_examples(path) if isinstance(r, Comparison)]
        scored = Judge(str(artifact.path))([r.prompt for r in rows], [r.responses for r in rows])
        for row, values in zip(rows, scored, strict=True):
            lengths += [len(t.split()) for t in row.responses]
            scores += values
            for i in range(len(values)):
                for j in range(i):
                    a, b = row.ranks[i], row.ranks[j]
                    if a is not None and b is not None and a != b:
                        probabilities.append(1 / (1 + math.exp(values[j] - values[i])))
                        happened.append(float(a < b))
    return page.RewardModel(
        accuracy=Interval(metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"]),
        ceiling=found.get("ceiling"),
        longer_wins=metrics["length_accuracy"],
        trained_on=data["judgments"],
        held_out=metrics["validation_pairs"],
        calibration=calibration(probabilities, happened) if happened else None,
        reference_mean=metrics["reference_mean"],
        lengths=lengths,
        scores=scores,
    )


def _training(project: Project, artifacts: dict[str, Artifact]) -> list[page.Training]:
    """Curves of every run; PPO's with the gold reward of its rollouts, found afterwards, where the world knows it."""
    runs = []
    for name, artifact in reversed(artifacts.items()):
        file = artifact.path / "run" / "metrics.jsonl"
        if not file.exists():
            continue
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        rollouts = artifact.path / "run" / "rollouts.jsonl"
        if project.config.world == "tales" and rollouts.exists():
            golds = _gold_by_step(project, rollouts)
            rows = [row | ({"gold": golds[row["step"]]} if row["step"] in golds else {}) for row in rows]
        runs.append(page.Training(name=name, rows=rows))
    return runs


def _gold_by_step(project: Project, rollouts: Path) -> dict[int, float]:
    from hearken.worlds.tales.world import TaleWorld

    world = TaleWorld(project.config.seed)
    values: dict[int, list[float]] = {}
    with rollouts.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            values.setdefault(row["step"], []).append(world.gold(row["prompt"], row["completion"]))
    return {step: sum(v) / len(v) for step, v in values.items()}


def _judges(project: Project) -> list[page.Judge]:
    """One row per labeler, with the biases that show in their judgments."""
    rows: dict[str, dict[str, list[float]]] = {}
    with project.store() as store:
        labelers = {r.id: r for r in store.labelers()}
        texts = {r.id: r.text for r in store.responses()}
        for judgment in store.judgments(kinds=("comparison",)):
            row = rows.setdefault(judgment.labeler_id, {"pairs": [], "first": [], "longer": [], "count": []})
            row["count"].append(1.0)
            payload: Any = judgment.payload
            order = judgment.order or range(len(payload.ranks))
            place = {shown: at for at, shown in enumerate(order)}
            for i in range(len(payload.ranks)):
                for j in range(i):
                    a, b = payload.ranks[i], payload.ranks[j]
                    if a is None or b is None:
                        continue
                    row["pairs"].append(float(a == b))
                    if a != b:
                        won, lost = (i, j) if a < b else (j, i)
                        row["first"].append(float(place[won] < place[lost]))
                        longer = len(texts[payload.response_ids[won]].split()) - len(
                            texts[payload.response_ids[lost]].split()
                        )
                        if longer:
                            row["longer"].append(float(longer > 0))

    def share(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return [
        page.Judge(
            name=labelers[key].name, kind=labelers[key].kind, judgments=len(row["count"]),
            group=str(labelers[key].attributes.get("group", "")), ties=share(row["pairs"]),
            first_shown=share(row["first"]), longer=share(row["longer"]),
        )
        for key, row in rows.items()
    ]  # fmt: skip


def _recipe(project: Project, artifacts: dict[str, Artifact]) -> page.Recipe:
    newest = list(artifacts.values())[-1].manifest if artifacts else {}
    command = (
        f"hearken quickstart {project.path.name} --seed {project.config.seed}"
        f"{' --human' if human.record(project) else ''}"
        if project.config.world
        else "hearken evaluate"
    )
    reward = [a for a in artifacts.values() if a.kind == "reward"]
    return page.Recipe(
        commands=[command],
        seed=project.config.seed,
        data_hash=str(reward[-1].manifest["data"].get("hash", "")) if reward else "",
        versions=newest.get("versions", {}),
        machine=f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
        configuration=(project.path / "hearken.yaml").read_text("utf-8"),
    )
