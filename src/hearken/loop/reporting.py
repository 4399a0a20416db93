"""The report of a project: figures and texts from its artifacts, database and last evaluation, put together.

Whatever a project has not got yet (judgments, a reward model, an evaluation) is left out of its report.
"""

from __future__ import annotations

import base64
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from hearken.algorithms.stage import makes_reward, raises_likelihood, stage_of
from hearken.errors import UserError
from hearken.evaluation.groups import found_groups, labeler_groups
from hearken.evaluation.results import EvaluationResult, Likelihood, PolicyResult, content_of
from hearken.evaluation.reward_card import RewardCard
from hearken.evaluation.round_record import RoundRecord, read_round
from hearken.feedback.media import Media, shown_type, sniff
from hearken.labelers.judges import spent
from hearken.labelers.simulated import dialogue_text
from hearken.loop import auditing, human, recipes, reckoning, taste
from hearken.loop.artifacts import RECORDS
from hearken.loop.measured import last_evaluation, newest
from hearken.loop.project import CONFIG, Project, ProjectConfig
from hearken.loop.quickstart_plans import FAST, NOTES_FAST
from hearken.report import contents as page
from hearken.report.page import render
from hearken.statistics.intervals import Interval
from hearken.training.artifact import Artifact, round_in

SHOWN = 8  # pairs of responses side by side
LARGEST_INLINE = 400_000
"""Bytes of a file that is put into the page."""
ASKED = 20
"""Labels whose responses' gold reward is averaged."""
LOSSES = 2  # of those on which the policy lost most
STRIPS = 2  # responses of each sort by which a reward model is shown

_DONE = {
    "samples": "Chose prompts and sampled responses",
    "judgments": "Responses were judged",
    "evaluation": "Compared policies on held-out prompts",
}
_RECORDED = ("temperature", "select", "judge")
"""Settings of these that are shown."""


def write_report(project: Project) -> tuple[Path, page.Report]:
    """Write the project's report.html; its path, and what stands in it."""
    found = compose(project)
    out = project.path / "report.html"
    out.write_text(render(found), "utf-8")
    return out, found


def compose(project: Project) -> page.Report:
    """Everything that is known of the project."""
    found = last_evaluation(project)
    every = project.finished(records=True)
    artifacts = {name: a for name, a in every.items() if a.kind not in RECORDS}
    counted = reckoning.tally(project)
    age = {name: i for i, name in enumerate(artifacts)}
    ordered = sorted(found.policies, key=lambda n: (age.get(n.rpartition("@")[2], -1), "@" in n))  # best of n last
    found = found.but(policies={name: _policy(project, found.policies[name], artifacts.get(name)) for name in ordered})
    ours = newest(found)
    answered = ours != found.baseline and bool(found.answers(found.baseline) and found.answers(ours))
    rewards = project.rewards()
    held_out = reckoning.held_out(project, rewards[-1]) if rewards else reckoning.HeldOut()
    told = found.policies.get(ours, PolicyResult())
    found_before = found_groups(RewardCard.load(rewards[-1].path) if rewards else None)
    groups = labeler_groups({key: counted.labelers[key] for key in counted.judged}, found_before)
    steps = _steps(project, every, counted)
    prompts = len(found.prompts)
    return page.Report(
        title="Did it get better?" if ordered else "What was done so far",
        subtitle=_subtitle(project, artifacts, evaluated=bool(ordered)),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        evaluation=found,
        policy=ours,
        steps=steps,
        pairs=[_pair(project, found, ours, i) for i in range(min(SHOWN, prompts))] if answered else [],
        losses=[_pair(project, found, ours, i) for i in _worst(found, ours)] if answered else [],
        warnings=_about_the_judge(project),
        audit=auditing.load(project.path),
        rounds=_rounds(project, every, rewards, found.policies, counted),
        reward_model=_reward_model(project, rewards[-1], held_out, found.ceiling) if rewards else None,
        tastes=reckoning.tastes(groups, held_out, {**told.win_rate_by_group, **told.win_rate_by_other}, found.groups),
        training=sorted(_training(project, artifacts), key=lambda run: run.name != ours),
        judges=reckoning.judges(counted),
        costs=_costs(project, artifacts, counted, steps),
        taste=taste.load(project.path),
        recipe=_recipe(project, artifacts, rewards, counted),
        lineage=_lineage(every, counted),
    )


def _about_the_judge(project: Project) -> list[str]:
    """Where a person judged, the gold reward is not theirs."""
    if human.record(project) is None:
        return []
    return ["The gold reward is the average taste of the simulated labelers, not yours: a win by it is not your win."]


def _subtitle(project: Project, artifacts: Mapping[str, Artifact], *, evaluated: bool) -> str:
    if (world := project.world()) is not None:
        about = f"RLHF on {world.title}"
    else:
        prompts = f" on {Path(project.config.prompts).name}" if project.config.prompts else ""
        about = f"RLHF of {Path(project.config.model).name}{prompts}"
    if evaluated:
        return f"{about}."
    done = f"{len(artifacts)} artifact{'s' if len(artifacts) != 1 else ''}" if artifacts else "No artifact yet"
    return f"{about}. {done}; whether it is better nobody has asked yet (hearken evaluate)."


def _policy(project: Project, policy: PolicyResult, artifact: Artifact | None) -> PolicyResult:
    """With what an evaluation need not measure; the reference's distance to itself is exact."""
    kl = Interval(0.0, math.nan, math.nan) if policy.kl == (0.0, 0.0, 0.0) else policy.kl
    return policy.but(kl=kl, likelihood=policy.likelihood or _likelihood(project, artifact))


def _likelihood(project: Project, artifact: Artifact | None) -> Likelihood | None:
    """How a policy that was fitted to comparisons themselves changed the likelihood of held-out ones."""
    if artifact is None or not raises_likelihood(artifact.kind):
        return None
    reference, rows = Path(artifact.reference), reckoning.held_out_rows(artifact)
    if not reference.is_dir() or not rows:
        return None

    def make() -> dict[str, Interval]:
        better, worse = project.domain.likelihood_change(str(artifact.path), str(reference), rows)
        return {"preferred": better, "other": worse}

    try:
        return Likelihood(**reckoning.remembered(project, f"likelihood-{artifact.path.name}", artifact, make))
    except UserError:
        return None  # a model behind it is not there any more


def _pair(project: Project, found: EvaluationResult, ours: str, i: int) -> page.Pair:
    def answer(name: str) -> page.Answer:
        policy = found.policies[name]
        return replace(
            _shown(project, policy.responses[i]), proxy=policy.scores[i] if policy.scores else None,
            gold=policy.golds[i] if policy.golds else None, parses=policy.parses[i] if policy.parses else None,
        )  # fmt: skip

    return page.Pair(prompt=found.prompts[i], before=answer(found.baseline), after=answer(ours))


def _shown(project: Project, content: str) -> page.Answer:
    """A response as the page shows it: a text; of a file, what a person is shown of it, within the page."""
    viewer = project.domain.viewer
    if viewer == "text":
        return page.Answer(text=content)
    path, address = project.domain.shown(Media(content), project.media), ""
    with suppress(UserError):  # nothing shows it
        if path is not None and path.stat().st_size <= LARGEST_INLINE:
            address = f"data:{shown_type(path)};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return page.Answer(text="" if address else content, viewer=viewer, media=address)


def _reward_model(
    project: Project, reward: Artifact, held_out: reckoning.HeldOut, ceiling: float | None
) -> page.RewardModel | None:
    """What is known of it, with what it pays for."""
    found = reckoning.reward_model(reward, held_out, ceiling)
    if found is None or project.domain.viewer == "text" or not held_out.rows:
        return found
    with suppress(UserError):  # nothing draws them here
        return replace(found, strips=_strips(project, reward, held_out))
    return found


def _strips(project: Project, reward: Artifact, held_out: reckoning.HeldOut) -> list[page.Strip]:
    """Held-out responses with the highest and lowest scores, and those whose score is disputed most."""
    scorer = project.domain.scorer(str(reward.path), project.media)
    details = project.domain.details(str(reward.path), scorer, project.media)
    contents = [content for row in held_out.rows for content in row.responses]
    scores = np.array([score for some in held_out.scores for score in some])
    heads = np.array([[one for some in table for one in some] for table in details.heads(held_out.rows)])
    order, spread = np.argsort(scores), heads.std(0) if len(heads) else np.zeros(len(scores))
    chosen = {"highest score": order[::-1], "lowest score": order, "most disputed": np.argsort(-spread)}
    named: dict[int, str] = {}
    for name, places in chosen.items():
        if name != "most disputed" or len(heads):
            named |= {int(at): name for at in [at for at in places.tolist() if at not in named][:STRIPS]}
    along = details.along([contents[at] for at in named])
    return [
        page.Strip(
            name=name, score=float(scores[at]), spread=float(spread[at]) if len(heads) else None, rewards=one.rewards,
            picture=f"data:{sniff(one.picture[:16])};base64,{base64.b64encode(one.picture).decode()}",
        )
        for (at, name), one in zip(named.items(), along, strict=False)
    ]  # fmt: skip


def _worst(found: EvaluationResult, ours: str) -> list[int]:
    """Prompts (beyond those shown anyway) on which the policy lost most, by gold where it is known."""
    base, policy = found.policies[found.baseline], found.policies[ours]
    for before, after in ((base.golds, policy.golds), (base.scores, policy.scores)):
        if before and after:
            change = [b - a for a, b in zip(before, after, strict=True)]
            order = sorted(range(SHOWN, len(change)), key=lambda i: change[i])
            return [i for i in order[:LOSSES] if change[i] < 0]
    return []


def _rounds(
    project: Project, artifacts: Mapping[str, Artifact], rewards: list[Artifact], policies: Mapping[str, PolicyResult],
    counted: reckoning.Tally,
) -> list[RoundRecord]:  # fmt: skip
    """What each round used and reached; a policy stands for its round if it is the first that was measured."""
    records = {a.round: read_round(a) for a in artifacts.values() if a.round and a.kind == "evaluation"}
    measured: set[int] = set()
    for name, policy in policies.items():
        number = round_in(name)
        if number and number not in measured and (policy.win_rate is not None or policy.gold is not None):
            measured.add(number)
            records[number] = records.get(number, RoundRecord(number=number)).but(policy=name).reached(policy)
    for reward in rewards:  # the last of a round is the one that its policy was improved by
        if reward.round and (accuracy := reckoning.held_out_accuracy(reward)) is not None:
            record = records.get(reward.round, RoundRecord(number=reward.round))
            own = record.own_accuracy or reckoning.own_accuracy(project, reward)
            records[reward.round] = record.but(accuracy=accuracy, own_accuracy=own)
    return [record.but(judgments=counted.judgments.get(number)) for number, record in sorted(records.items())]


def _done(artifact: Artifact, domain: str) -> str:
    stage = stage_of(artifact.kind, domain)
    if stage is None:
        return _DONE.get(artifact.kind, artifact.kind)
    return stage.says(stage.made_with(artifact), artifact.data)


def _settings(artifact: Artifact, domain: str) -> dict[str, object]:
    """The options that a step is told with."""
    stage = stage_of(artifact.kind, domain)
    options = stage.made_with(artifact) if stage else artifact.options
    names = stage.options.reports() if stage else _RECORDED
    usual = {name: field.default for name, field in stage.options.model_fields.items()} if stage else {}
    return {k: options[k] for k in names if options.get(k) or options.get(k, usual.get(k)) != usual.get(k)}


def _count(name: str, artifact: Artifact, counted: reckoning.Tally, domain: str) -> tuple[int | None, str]:
    """How much an artifact was made of, and what."""
    if artifact.kind in ("samples", "judgments"):
        found = counted.responses if artifact.kind == "samples" else counted.judgments
        return found.get(artifact.round or 0), "responses" if artifact.kind == "samples" else "judgments"
    data, metrics = artifact.data, artifact.metrics
    stage = stage_of(artifact.kind, domain)
    options = stage.made_with(artifact) if stage else {}
    if "episodes" in options and "batch_size" in options and "steps" in metrics:
        return metrics["steps"] * options["batch_size"], "episodes"
    for key, unit in (("judgments", "judgments"), ("sequences", "sequences"), ("rows", "rows"), ("prompts", "prompts")):
        if data.get(key):
            return data[key], unit
    return None, ""


def _steps(project: Project, artifacts: Mapping[str, Artifact], counted: reckoning.Tally) -> list[page.Step]:
    """What was done, in the order in which it was done, with counts and seconds."""
    seconds = project.step_seconds()
    several = len(counted.responses) > 1
    recorded = {(a.round, a.kind) for a in artifacts.values()}
    steps: list[tuple[str, page.Step]] = []
    kinds = {"person": "people", "simulated": "simulated labelers", "ai": "a model", "import": "imported files"}
    who = " and ".join(kinds.get(kind, kind) for kind in counted.kinds)
    for title, record, done, counts, times in (
        ("Sampling", "samples", "Answered prompts several times", counted.responses, counted.sampled_at),
        ("Judgments", "judgments", f"Responses judged by {who}", counted.judgments, counted.judged_at),
    ):
        for round, count in counts.items():
            if (round, record) not in recorded:
                step = page.Step(
                    name=f"{title}, round {round}" if several else title,
                    done=done,
                    count=count,
                    unit="responses" if record == "samples" else "judgments",
                    seconds=None if several else seconds.get(title),
                    round=round,
                )
                steps.append((times[round].isoformat(), step))
    for name, artifact in artifacts.items():
        amount, unit = _count(name, artifact, counted, project.domain.name)
        step = page.Step(
            name=name,
            done=_done(artifact, project.domain.name),
            count=amount,
            unit=unit,
            seconds=artifact.seconds,
            settings=_settings(artifact, project.domain.name),
            round=artifact.round,
        )
        steps.append((artifact.created, step))
    ordered = [step for _, step in sorted(steps, key=lambda pair: pair[0])]
    if any(kind == "evaluation" for _, kind in recorded):
        return ordered
    last = {
        "Evaluation": "Compared policies on held-out prompts",
        "Card of the reward model": "Measured whether the reward model is good enough",
    }
    return ordered + [page.Step(name=n, done=done, seconds=seconds[n]) for n, done in last.items() if n in seconds]


def _training(project: Project, artifacts: Mapping[str, Artifact]) -> list[page.Training]:
    """Curves of every run; PPO's with the gold reward of its rollouts, found afterwards, where the world knows it."""
    runs = []
    for name, artifact in reversed(list(artifacts.items())):
        file = artifact.path / "run" / "metrics.jsonl"
        if not file.exists():
            continue
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        rollouts = artifact.path / "run" / "rollouts.jsonl"
        if project.config.world and rollouts.exists():
            golds = reckoning.remembered(
                project,
                f"gold-{name}",
                artifact,
                lambda path=rollouts: _gold_by_step(project, path),  # type: ignore[misc]
            )
            rows = [row | ({"gold": golds[str(row["step"])]} if str(row["step"]) in golds else {}) for row in rows]
        seen = artifact.metrics
        runs.append(
            page.Training(
                name=name, rows=rows, kept=seen.get("best_step"), judged_on=seen.get("judge_prompts"),
                says=str(seen.get("says") or ""),
            )
        )  # fmt: skip
        if project.config.world and "labels" in seen:
            asked = reckoning.remembered(
                project, f"asked-{name}", artifact, partial(_gold_by_label, project, round_in(name))
            )
            shown: list[Mapping[str, object]] = [{"step": int(n), "gold": gold} for n, gold in asked.items()]
            runs.append(page.Training(name=f"{name}, by the labels asked for", rows=shown))
    return runs


def _gold_by_label(project: Project, number: int | None) -> dict[str, float]:
    """Labels asked for on the way, until then -> mean gold reward of what the last `ASKED` of them were about."""
    world = project.world()
    assert world is not None
    with project.store() as store:
        asked = [item.response_ids for item in store.items(round=number) if "pair" in item.metadata]
        responses = store.responses_by_id(one for ids in asked for one in ids)
        prompts = store.prompts_by_id(response.prompt_id for response in responses.values())
    found = {}
    for at in range(0, len(asked), ASKED):
        some = [responses[one] for ids in asked[at : at + ASKED] for one in ids if one in responses]
        golds = [world.gold(dialogue_text(prompts[one.prompt_id].content), project.read(one.content)) for one in some]
        if golds:
            found[str(min(at + ASKED, len(asked)))] = sum(golds) / len(golds)
    return found


def _gold_by_step(project: Project, rollouts: Path) -> dict[str, float]:
    world = project.world()
    assert world is not None
    values: dict[str, list[float]] = {}
    with rollouts.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            values.setdefault(str(row["step"]), []).append(
                world.gold(dialogue_text(content_of(row["prompt"])), project.read(row["completion"]))
            )
    return {step: sum(v) / len(v) for step, v in values.items()}


def _costs(
    project: Project, artifacts: Mapping[str, Artifact], counted: reckoning.Tally, steps: list[page.Step]
) -> page.Costs:
    recorded = sum(project.step_seconds().values())
    policies = [a for a in artifacts.values() if a.kind != "scratch" and not makes_reward(a.kind)]
    ai = spent(project.replies)
    return page.Costs(
        seconds=max(recorded, sum(step.seconds or 0.0 for step in steps)) or None,
        judgments=dict(counted.kinds),
        labeling_seconds=counted.labeling_seconds or None,
        responses=sum(counted.responses.values()) or None,
        episodes=sum(step.count or 0 for step in steps if step.unit == "episodes") or None,
        parameters=recipes.count_weights(policies[-1].path) if policies else None,
        ai_requests=ai.requests or None,
        ai_tokens=(ai.prompt_tokens, ai.completion_tokens),
        price=ai.price or None,
    )


def _recipe(
    project: Project, artifacts: Mapping[str, Artifact], rewards: list[Artifact], counted: reckoning.Tally
) -> page.Recipe:
    return page.Recipe(
        commands=_commands(project, artifacts, counted),
        by_step=[line for a in artifacts.values() if (line := recipes.command(a, project.path))],
        seed=project.config.seed,
        data_hash=rewards[-1].data_hash if rewards else "",
        versions=list(artifacts.values())[-1].versions if artifacts else {},
        machine=f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
        configuration=(project.path / CONFIG).read_text("utf-8"),
    )


_JUDGED = {"simulated": "label --with simulated", "ai": "label --with ai --judge MODEL", "person": "serve"}
"""How judgments came, by the kind of their labelers; those of imported files came with the prompts."""


def _commands(project: Project, artifacts: Mapping[str, Artifact], counted: reckoning.Tally) -> list[str]:
    """What a person types to have it all again."""
    config, folder = project.config, project.path.resolve().name
    if config.world and "r00-base" in artifacts:
        fast = " --fast" if FAST.stands_in(config.stages) else ""
        fast += " --human" if human.record(project) else ""
        return [f"hearken quickstart {folder} --seed {config.seed}{fast}"]
    if config.world == "notes":
        how = " --fast" if NOTES_FAST.stands_in(config.stages) else ""
        how += " --human" if human.record(project) else ""
        return [f"hearken quickstart {folder} --model {Path(config.model).name} --seed {config.seed}{how}"]
    where = f"-C {folder}"
    model, prompts = (recipes.relative(n, None) for n in (config.model, config.prompts))
    of = f" --prompts {prompts}" if prompts else ""
    first = [f"hearken init {folder} --model {model}{of} --seed {config.seed}"]
    if config != ProjectConfig(model=config.model, prompts=config.prompts, seed=config.seed):
        text = (project.path / CONFIG).read_text("utf-8").rstrip("\n")
        first.append(f"cat > {folder}/{CONFIG} <<'END'\n{text}\nEND")  # what init does not know: who judges, and how
    rounds = [round_in(path.name) or 0 for path in project.artifacts.glob("r*-samples")]
    if rounds:
        return [*first, f"hearken loop --rounds {max(rounds)} {where}", f"hearken report {where}"]
    kinds = dict.fromkeys(a.kind for a in artifacts.values())
    made = [stage for kind in kinds if (stage := stage_of(kind, project.domain.name))]
    judged = [_JUDGED[kind] for kind in counted.kinds if kind in _JUDGED]
    steps = [
        *(f"train {stage.name}" for stage in made if stage.first),
        *(["sample"] if counted.responses or not made else []),
        *judged,
        *(f"train {stage.name}" for stage in made if not stage.first),
        "evaluate",
        "report",
    ]
    return [*first, f"cd {folder}", *(f"hearken {step}" for step in steps)]


def _lineage(artifacts: Mapping[str, Artifact], counted: reckoning.Tally) -> list[page.Made]:
    """Artifacts and the judgments between them: a snapshot comes from the policies whose responses were judged."""
    recorded = any(a.kind == "judgments" for a in artifacts.values())  # the loop's own say whose judgments these are
    snapshots: dict[str, page.Made] = {}
    linked = []
    for name, artifact in artifacts.items():
        parents = {role: path.rstrip("/").rpartition("/")[2] for role, path in artifact.parents}
        for path in artifact.inputs.get("data", []):
            stem = Path(path).stem
            match = re.fullmatch(r"(\w+)-train-(\d+)", stem)
            if not match or match[1] == "prompt" or recorded:
                continue
            parents["data"] = stem
            sources = {p: p for p, first in counted.policies.items() if first <= int(match[2]) and p in artifacts}
            kind = f"{artifact.judgments:,} judgments" if artifact.judgments else "judgments"
            snapshots[stem] = page.Made(name=stem, kind=kind, parents=sources, data_hash=artifact.data_hash)
        linked.append(
            page.Made(
                name=name, kind=artifact.kind, parents=parents, created=artifact.created, data_hash=artifact.data_hash
            )
        )  # fmt: skip
    return [*snapshots.values(), *linked]
