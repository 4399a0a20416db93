"""Publish an artifact: a model card with its lineage and figures, a folder anyone can load, and the way to the Hub."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hearken.algorithms.stage import makes_reward
from hearken.errors import UserError
from hearken.evaluation.results import EvaluationResult, PolicyResult
from hearken.evaluation.reward_card import RewardCard
from hearken.loop import auditing, recipes
from hearken.loop.artifacts import ArtifactStore
from hearken.loop.measured import kept
from hearken.report.contents import Figure
from hearken.statistics.intervals import Interval
from hearken.training.artifact import MANIFEST, Artifact

LEFT_OUT = ("run", MANIFEST, "README.md", "hearken.json")
"""Of an artifact's folder, what does not travel as it is: its manifest holds this machine's paths."""


def publish(
    artifact: Path | str, *, to: str = "", out: Path | None = None, dry_run: bool = False, private: bool = False,
    license: str = "", rollouts: bool = False, project: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make the folder with its card and, unless ``dry_run``, upload it.

    Args:
        artifact: its folder.
        to: OWNER/NAME of the repository.
        out: where the folder is made; by default ``NAME-hub`` here.
        dry_run: upload nothing.
        private: a repository that is new is private.
        license: for the card's header.
        rollouts: with the responses that the policy was trained on.
        project: whose database and evaluation say more, where the artifact is one of its.

    Returns:
        ``folder``, ``files`` and, where it was uploaded, ``url``.

    Raises:
        UserError: no such artifact, the folder is taken, no repository is named, or the Hub refuses or is not there.
    """
    made = Artifact.load(artifact)
    if not to and not dry_run:
        raise UserError("no repository is named", "Add --to OWNER/NAME, or --dry-run to make the folder only")
    folder = out or Path(f"{made.path.resolve().name}-hub")
    card = model_card(made, to=to, license=license, project=project)
    write_folder(made, folder, card, rollouts=rollouts)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    done: dict[str, Any] = {"folder": str(folder), "files": files}
    if not dry_run:
        done["url"] = upload(folder, to, private=private)
    return done


def write_folder(artifact: Artifact, folder: Path, card: str, *, rollouts: bool = False) -> None:
    """The model's own files, its card, and its manifest without this machine's paths (``hearken.json``).

    A folder that this made before is made anew; any other is left alone.

    Raises:
        UserError: ``folder`` holds something else.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / "hearken.json").is_file() or (folder / MANIFEST).exists():
            raise UserError(f"{folder} exists and was not made by hearken push", "Name another folder: --out DIR")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in artifact.path.iterdir():
        if path.name in LEFT_OUT or path.name.endswith(".partial"):
            continue
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name)
    if rollouts and (kept := artifact.path / "run" / "rollouts.jsonl").is_file():
        shutil.copy2(kept, folder / "rollouts.jsonl")
    if (adapter := folder / "adapter_config.json").is_file():
        said = portable(json.loads(adapter.read_text("utf-8")), artifact.root)
        adapter.write_text(json.dumps(said, indent=2, ensure_ascii=False), "utf-8")
    (folder / "README.md").write_text(card, "utf-8")
    clean = json.dumps(portable(artifact.manifest, artifact.root), indent=1, ensure_ascii=False)
    (folder / "hearken.json").write_text(clean, "utf-8")


def portable(value: Any, root: Path | None) -> Any:
    """A manifest (or a part of one) whose absolute paths are relative to the project, or bare names."""
    if isinstance(value, dict):
        return {key: portable(one, root) for key, one in value.items()}
    if isinstance(value, list):
        return [portable(one, root) for one in value]
    return recipes.relative(value, root) if isinstance(value, str) and value.startswith("/") else value


# --- the card --------------------------------------------------------------------------------------------------------


def model_card(artifact: Artifact, *, to: str = "", license: str = "", project: Path | None = None) -> str:
    """README.md: a YAML header that the Hub reads, then lineage, figures, use, limits and how to make it again."""
    name = artifact.path.resolve().name
    root = artifact.root
    family = ArtifactStore(artifact.path.resolve().parent).ancestors(artifact)
    evaluation = kept(root) if root else EvaluationResult()
    figures = evaluation.policies.get(name)
    reward = makes_reward(artifact.kind)
    header = {
        "license": license or None,
        "library_name": "peft" if (artifact.path / "adapter_config.json").exists() else "transformers",
        "pipeline_tag": "text-classification" if reward else "text-generation",
        "base_model": _hub_base(family),
        "tags": ["hearken", "rlhf", "reward-model" if reward else artifact.kind],
    }
    text = yaml.safe_dump({k: v for k, v in header.items() if v}, sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{text}---\n",
        f"# {to.rpartition('/')[2] or name}\n",
        _about(artifact, family) + "\n",
        _load(artifact, to or name),
        _section("How it was made", _lineage(family, root)),
        _section("Who judged", _judged(family, root)),
        _section("How good it is", _measured(artifact, figures, evaluation)),
        _section("Intended use", _use(reward)),
        _section("Limits", _limits(artifact, family, figures, evaluation, root)),
        _section("How to make it again", _again(family, root)),
        "Made with Hearken.\n",
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}\n" if body else ""


def _hub_base(family: Mapping[str, Artifact]) -> str | None:
    """The Hub name of the model that the first ancestor was made from, where it is one."""
    first = next(iter(family.values()))
    model = first.model
    return model if model.count("/") == 1 and not model.startswith((".", "/")) and not Path(model).exists() else None


def _about(artifact: Artifact, family: Mapping[str, Artifact]) -> str:
    weights = recipes.count_weights(artifact.path)
    size = f"{weights:,} weights, " if weights else ""
    if makes_reward(artifact.kind):
        return f"A reward model ({size}fitted to judgments): it scores a response to a prompt."
    stages = " → ".join(dict.fromkeys(a.kind for a in family.values() if not makes_reward(a.kind)))
    return f"A policy ({size}made by {stages}), trained from feedback."


def _load(artifact: Artifact, name: str) -> str:
    kind = "SequenceClassification" if makes_reward(artifact.kind) else "CausalLM"
    return (
        f"```python\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n\n"
        f'model = AutoModelFor{kind}.from_pretrained("{name}")\ntokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        + (
            "# score = logit * model.config.hearken_reward_gain + model.config.hearken_reward_bias\n"
            if makes_reward(artifact.kind)
            else ""
        )
        + "```\n"
    )


def _lineage(family: Mapping[str, Artifact], root: Path | None) -> str:
    rows = [
        "| artifact | stage | made from | data (SHA-256) | seed | created |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in family.items():
        parents = ", ".join(f"{role}: {recipes.relative(path, root)}" for role, path in one.parents)
        files = ", ".join(recipes.relative(str(f), root) for f in one.data.get("files") or [])
        digest = f" `{one.data_hash[:16]}`" if one.data_hash else ""
        cells = (name, one.kind, parents, f"{files}{digest}", one.seed, one.created)
        rows.append("| " + " | ".join(_cell(c) for c in cells) + " |")
    versions = list(family.values())[-1].versions
    with_versions = ", ".join(f"{package} {version}" for package, version in versions.items())
    return "\n".join(rows) + (f"\n\nVersions: {with_versions}." if with_versions else "")


def _cell(value: Any) -> str:
    """Text that stays in its cell of a Markdown table and is no markup."""
    text = "" if value is None else str(value)
    for character in "\\|<>*[]":
        text = text.replace(character, f"\\{character}")
    return re.sub(r"[ \t\r\n]+", " ", text)


def _judged(family: Mapping[str, Artifact], root: Path | None) -> str:
    """Labelers and guideline versions behind the judgments, from the project's database where it is at hand."""
    counts = [a.judgments for a in family.values() if a.judgments]
    if not counts:
        return ""
    said = f"{sum(counts):,} judgments went into it."
    if root is None or not (root / "hearken.yaml").is_file():
        return said
    from hearken.loop.project import Project

    kinds: Counter[str] = Counter()
    people: set[str] = set()
    guidelines: Counter[int] = Counter()
    with Project(root).store() as store:
        labelers = {r.id: r for r in store.labelers()}
        for judgment in store.judgments():
            if judgment.kind in ("skip", "flag"):
                continue
            kinds[labelers[judgment.labeler_id].kind] += 1
            people.add(judgment.labeler_id)
            if judgment.guideline is not None:
                guidelines[judgment.guideline] += 1
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    said += f" The project's database holds {sum(kinds.values()):,} ({by_kind}) by {len(people)} labelers."
    if guidelines:
        versions = ", ".join(f"version {v} ({count:,} judgments)" for v, count in sorted(guidelines.items()))
        said += f" Guideline: {versions}."
    else:
        said += " No guideline was recorded with them."
    return said


def _rows(policy: PolicyResult, baseline: str) -> list[tuple[str, Figure, bool]]:
    """What an evaluation says of a policy: label, figure, whether it is a share."""
    return [
        (f"win rate against {baseline}", policy.win_rate, True),
        ("gold reward", policy.gold, False),
        ("proxy reward", policy.proxy, False),
        (f"KL to {baseline}, nats a response", policy.kl, False),
        ("tokens a response", policy.length, False),
        ("distinct word pairs", policy.distinct_2, True),
        ("self-BLEU: how alike the responses are", policy.self_bleu, True),
        ("entropy, nats a token", policy.entropy, False),
        ("responses that end by themselves", policy.eos_share, True),
        ("responses that parse", policy.parse_rate, True),
        ("perplexity of held-out text", policy.perplexity, False),
        *((f"accuracy on {task}", scores.rate, True) for task, scores in policy.tasks.items()),
    ]


def _measured(artifact: Artifact, figures: PolicyResult | None, evaluation: EvaluationResult) -> str:
    from hearken.evaluation.numbers import with_interval

    rows: list[tuple[str, str]] = []
    metrics = artifact.metrics
    if makes_reward(artifact.kind) and "accuracy" in metrics:
        bounds = (metrics.get("accuracy_low"), metrics.get("accuracy_high"))
        accuracy = Interval(metrics["accuracy"], *(math.nan if v is None else v for v in bounds))
        rows.append(("accuracy on held-out comparisons", with_interval(accuracy, True)))
        if metrics.get("length_accuracy") is not None:
            by_tokens = with_interval(metrics["length_accuracy"], True)
            rows.append(("accuracy of preferring the one with more tokens", by_tokens))
    if figures is not None:
        known = _rows(figures, evaluation.baseline)
        rows += [(label, with_interval(figure, share)) for label, figure, share in known if figure is not None]
    if makes_reward(artifact.kind):
        rows += _by_its_card(artifact.path)
    if figures is not None:
        groups = figures.win_rate_by_group.items()
        rows += [(f"win rate by the taste of {group}", with_interval(rate, True)) for group, rate in groups]
    if not rows:
        return "Nobody has measured it yet."
    table = "\n".join(["| figure | value |", "| --- | --- |", *(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)])
    how = ""
    if figures is not None and evaluation.prompts:
        judged = f", judged by {evaluation.judge}" if evaluation.judge else ""
        how = f"\n\nOn {len(evaluation.prompts):,} held-out prompts{judged}."
    return f"{table}\n\nIn brackets 95 % intervals.{how}"


def _by_its_card(folder: Path) -> list[tuple[str, str]]:
    """What a reward model's own card says."""
    from hearken.evaluation.numbers import percent

    card = RewardCard.load(folder)
    if card is None:
        return []
    verdict = "passes" if card.passes else f"fails: {' '.join(card.failures)}"
    return [("reward-model card", verdict), ("calibration error", percent(card.calibration.error))]


def _use(reward: bool) -> str:
    if reward:
        return (
            "To rank or score responses to prompts like those it was fitted on, and to train policies under a KL "
            "penalty. Its scores mean nothing by themselves; their differences are log-odds of being preferred."
        )
    return "To answer prompts like those it was trained on, and to study learning from feedback."


def _limits(
    artifact: Artifact, family: Mapping[str, Artifact], figures: PolicyResult | None, evaluation: EvaluationResult,
    root: Path | None,
) -> str:  # fmt: skip
    said = [
        "It knows the taste of the labelers named above, not of everyone, and was checked on no other kind of prompt."
    ]
    if not makes_reward(artifact.kind) and any(makes_reward(a.kind) for a in family.values()):
        said.append("It was trained on a learned reward, which is a proxy: what scores high need not be good.")
    audited = auditing.load(root) if root else None
    if audited is not None and audited.policy == artifact.path.resolve().name:
        said.append(f"A slice of its answers was checked. {audited.says} It was not tested for safety.")
    elif not makes_reward(artifact.kind):
        said.append("It was not tested for safety or truth. It may say what is false or harmful.")
    if figures is not None and evaluation.judge is not None and evaluation.judge.kind == "reward":
        said.append("The figures above are by the reward model itself; people were not asked.")
    if figures is None and not makes_reward(artifact.kind):
        said.append("No comparison with another policy is known.")
    worse = [group for group, rate in figures.win_rate_by_group.items() if rate.low <= 0.5] if figures else []
    if worse:
        said.append(f"It is not shown to be better by the taste of {', '.join(worse)}.")
    return "\n".join(f"* {line}" for line in said)


def _again(family: Mapping[str, Artifact], root: Path | None) -> str:
    lines = [line for a in family.values() if (line := recipes.command(a, root))]
    return "```bash\n" + "\n".join(lines) + "\n```" if lines else ""


# --- the Hub ---------------------------------------------------------------------------------------------------------


def upload(folder: Path, to: str, *, private: bool = False) -> str:
    """Put a folder into a repository of the Hub, which is made where there is none.

    Returns:
        The repository's address.

    Raises:
        UserError: nobody is logged in, the Hub refuses, or it is not there. No message holds the token.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    token = get_token()
    where = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            "HF_HUB_OFFLINE is set, so the Hub is not asked",
            f"The folder is ready in {folder}; unset HF_HUB_OFFLINE and run this again",
        )
    if not token:
        raise UserError(f"nobody is logged in to {where}", "Log in (hf auth login), or set HF_TOKEN")
    try:
        api = HfApi(token=token)
        repo = api.create_repo(to, private=private or None, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repo.repo_id, folder_path=folder, repo_type="model", commit_message="Pushed with Hearken"
        )
        return str(repo)
    except HFValidationError as error:
        raise UserError(f"--to {to} is no name of a repository ({_first(error, token)})", "Write OWNER/NAME") from None
    except OfflineModeIsEnabled:
        raise UserError("the Hub is not asked while offline", f"The folder is ready in {folder}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        hint = {
            401: "Log in again (hf auth login), or renew HF_TOKEN",
            403: "Use a token that may write there, or another OWNER",
            404: "Check OWNER/NAME and that you may write there",
        }.get(status, f"Try again later; the folder is ready in {folder}")
        raise UserError(f"{where} refused {to} ({status}: {_first(error, token)})", hint) from None
    except Exception as error:
        # Its HTTP client is httpx or httpx2, by its version.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise UserError(
            f"the Hub at {where} cannot be reached ({_first(error, token) or type(error).__name__})",
            f"Check the network or HF_ENDPOINT; the folder is ready in {folder}",
        ) from None


def _first(error: Exception, token: str) -> str:
    """An error's first line, without the token."""
    text = str(error).strip().partition("\n")[0]
    return text.replace(token, "***")[:300]
