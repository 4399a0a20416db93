"""Publish an artifact: a model card with its lineage and figures, a folder anyone can load, and the way to the Hub."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hearken.algorithms.stage import makes_reward
from hearken.errors import UserError
from hearken.evaluation.results import EvaluationResult
from hearken.evaluation.reward_card import RewardCard
from hearken.loop import auditing, recipes
from hearken.loop.artifacts import RECORDS, ArtifactStore, domain_of_artifact
from hearken.loop.measured import kept
from hearken.loop.reckoning import held_out_accuracy
from hearken.report.model_card import Ancestor, Feedback, ModelCard
from hearken.training.artifact import MANIFEST, Artifact

LEFT_OUT = ("run", MANIFEST, "README.md", "hearken.json")
"""Of an artifact's folder, what does not travel as it is: its manifest holds this machine's paths."""


def publish(
    artifact: Path | str, *, to: str = "", out: Path | None = None, dry_run: bool = False, private: bool = False,
    license: str = "", rollouts: bool = False,
) -> dict[str, object]:  # fmt: skip
    """Make the folder with its card and, unless ``dry_run``, upload it.

    Args:
        artifact: its folder.
        to: OWNER/NAME of the repository.
        out: where the folder is made; by default ``NAME-hub`` here.
        dry_run: upload nothing.
        private: a repository that is new is private.
        license: for the card's header.
        rollouts: with the responses that the policy was trained on.

    Returns:
        ``folder``, ``files`` and, where it was uploaded, ``url``.

    Raises:
        UserError: no such artifact, the folder is taken, no repository is named, or the Hub refuses or is not there.
    """
    made = Artifact.load(artifact)
    if not to and not dry_run:
        raise UserError("no repository is named", "Add --to OWNER/NAME, or --dry-run to make the folder only")
    folder = out or Path(f"{made.path.resolve().name}-hub")
    card = model_card(made, to=to, license=license)
    write_folder(made, folder, card, rollouts=rollouts)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    done: dict[str, object] = {"folder": str(folder), "files": files}
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


def portable(value: object, root: Path | None) -> object:
    """A manifest (or a part of one) whose absolute paths are relative to the project, or bare names."""
    if isinstance(value, dict):
        return {key: portable(one, root) for key, one in value.items()}
    if isinstance(value, list):
        return [portable(one, root) for one in value]
    return recipes.relative(value, root) if isinstance(value, str) and value.startswith("/") else value


# --- the card --------------------------------------------------------------------------------------------------------


def model_card(artifact: Artifact, *, to: str = "", license: str = "") -> str:
    """README.md of an artifact; of one in a project with what its database and evaluation say."""
    name, root, reward = artifact.path.resolve().name, artifact.root, makes_reward(artifact.kind)
    family = ArtifactStore(artifact.path.resolve().parent).ancestors(artifact)
    about = domain_of_artifact(artifact.path).published(artifact.path, to or name, reward=reward)
    audited = auditing.load(root) if root else None
    return ModelCard(
        name=name, repository=to, license=license,
        family=[_ancestor(name, one, root) for name, one in family.items()],
        about=about, base_model=_hub_base(family) if about.on_hub else None,
        weights=recipes.count_weights(artifact.path), versions=list(family.values())[-1].versions,
        feedback=_feedback(root) if root and any(one.judgments for one in family.values()) else None,
        accuracy=held_out_accuracy(artifact) if reward else None,
        length_accuracy=artifact.metrics.get("length_accuracy"),
        checked=RewardCard.load(artifact.path) if reward else None,
        evaluation=kept(root) if root else EvaluationResult(),
        audit=audited.says if audited is not None and audited.policy == name else "",
    ).render()  # fmt: skip


def _ancestor(name: str, one: Artifact, root: Path | None) -> Ancestor:
    return Ancestor(
        name=name, kind=one.kind, reward=makes_reward(one.kind),
        parents=[(role, recipes.relative(path, root)) for role, path in one.parents],
        files=[recipes.relative(str(file), root) for file in one.data.get("files") or []],
        data_hash=one.data_hash, judgments=None if one.kind in RECORDS else one.judgments, seed=one.seed,
        created=one.created, command=recipes.command(one, root),
    )  # fmt: skip


def _hub_base(family: Mapping[str, Artifact]) -> str | None:
    """The Hub name of the model that the first ancestor was made from, where it is one."""
    model = next(iter(family.values())).model
    return model if model.count("/") == 1 and not model.startswith((".", "/")) and not Path(model).exists() else None


def _feedback(root: Path) -> Feedback | None:
    """Labelers and guideline versions behind the judgments in the project's database; None where there is none."""
    from hearken.loop.project import CONFIG, Project

    if not (root / CONFIG).is_file():
        return None
    with Project(root).store() as store:
        kinds = {labeler.id: labeler.kind for labeler in store.labelers()}
        judgments = [one for one in store.judgments() if one.kind not in ("skip", "flag")]
    return Feedback(
        kinds=dict(Counter(kinds[one.labeler_id] for one in judgments).most_common()),
        labelers=len({one.labeler_id for one in judgments}),
        guidelines=Counter(one.guideline for one in judgments if one.guideline is not None),
    )


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
