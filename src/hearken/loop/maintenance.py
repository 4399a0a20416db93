"""Care of a project's feedback: backup, restore, and erasing what somebody wants forgotten."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from hearken.errors import UserError
from hearken.feedback import privacy
from hearken.feedback.examples import content_key
from hearken.feedback.formats import read_examples
from hearken.feedback.media import Media, MediaFolder
from hearken.feedback.records import utc_now
from hearken.feedback.store import FeedbackStore
from hearken.loop.project import Project

Target = Literal["prompt", "response", "judgment", "labeler"]


def backup(project: Project, out: Path | None = None) -> Path:
    """Copy the feedback database to a new file, while others work with it, and media to a folder of its name.

    Args:
        project: whose database.
        out: the new file; by default ``backups/feedback-TIME.db`` in the project.

    Raises:
        UserError: the file exists or cannot be written; the database is PostgreSQL (its own tools back it up).
    """
    with project.store() as store:
        if out is None:
            out = project.path / "backups" / f"feedback-{utc_now():%Y%m%d-%H%M%S}.db"
            out.parent.mkdir(privacy.FOLDER, exist_ok=True)
        made = store.backup(out)
        project.media.copy_to(_media_of(made), store.media())
        return made


def _media_of(backup: Path) -> MediaFolder:
    """Where the files of a backup are."""
    return MediaFolder(backup.with_name(f"{backup.name}.files"))


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    database: Path
    judgments: int
    kept: Path | None
    """Where the database that stood there is now; None where there was none."""
    erased_again: int
    """Erasures made since the backup, which were made again: a backup brings nobody's words back."""


def restore(project: Project, source: Path) -> Restored:
    """Put a backup in the place of the feedback database, which is kept beside it. Nobody may work with it meanwhile.

    Raises:
        UserError: no such file, not a feedback database, a damaged one, or the database is PostgreSQL.
    """
    target = database_file(project)
    if not source.is_file():
        raise UserError(f"{source}: no such file", "Give the path of a backup made by: hearken backup")
    partial, checked = (target.with_name(f"{target.name}.{end}") for end in ("restoring", "restored"))
    for leftover in (partial, checked):
        leftover.unlink(missing_ok=True)
    try:
        with FeedbackStore(source, create=False) as saved:
            saved.backup(partial)
        with FeedbackStore(partial, create=False) as copy:
            if problems := copy.verify():
                raise UserError(f"{source} is damaged: {problems[0]}", "Restore an older backup")
            again = _erase_again(target, copy)
            judgments = copy.last_seq()
            _media_of(source).copy_to(project.media, copy.media())
            copy.backup(checked)
    finally:
        for leftover in (partial, *(partial.with_name(partial.name + end) for end in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)
    kept = None
    if target.exists():
        kept = target.with_name(f"{target.stem}-before-{datetime.now(UTC):%Y%m%d-%H%M%S}{target.suffix}")
        with FeedbackStore(target, create=False) as old:
            old.backup(kept)
    for end in ("-wal", "-shm"):
        target.with_name(target.name + end).unlink(missing_ok=True)
    checked.replace(target)
    return Restored(target, judgments, kept, again)


def database_file(project: Project) -> Path:
    """The project's SQLite file.

    Raises:
        UserError: its database is PostgreSQL.
    """
    url = project.config.database
    if "://" in url:
        raise UserError("the database is PostgreSQL", "Use its own tools: pg_dump --format=custom, pg_restore --clean")
    return project.path / url


def _erase_again(target: Path, copy: FeedbackStore) -> int:
    """What was erased in the database that is replaced is erased in the copy, too."""
    if not target.exists():
        return 0
    count = 0
    with FeedbackStore(target, create=False) as old:
        for stone in old.tombstones():
            with suppress(UserError):  # it came after the backup
                count += copy.erase(stone.target, stone.target_id, stone.reason) > 0
    return count


@dataclass(frozen=True)
class Erased:
    """What an erasure did, and what it cannot undo."""

    rows: int
    """Rows of the database that were redacted."""
    judgments: int
    """Judgments among them."""
    snapshots: list[str]
    """Files in the project that still hold the contents: data sets frozen for training."""
    artifacts: list[str]
    """Artifacts that learned from them, and those made from these, oldest first."""


def erase(
    project: Project, target: Target, target_id: str, reason: str, *, store: FeedbackStore | None = None,
    actor: str = "command line",
) -> Erased:  # fmt: skip
    """Redact a prompt, response, judgment or labeler with all their judgments, and say who learned from them.

    A tombstone stays in the place. Frozen data sets and trained models are not changed: they are listed.

    Args:
        project: whose feedback.
        target: what is erased.
        target_id: its id.
        reason: for the tombstone, e.g. "asked for by the labeler".
        store: its feedback database, where it is open already.
        actor: who does it, for the audit trail.

    Raises:
        UserError: there is no such thing.
    """
    with project.store() if store is None else nullcontext(store) as opened:
        gone, prompt = judgments_of(opened, target, target_id)
        files = files_of(opened, target, target_id)
        rows = opened.erase(target, target_id, reason)
        forget(opened, project.media, files)
        opened.access.note(actor, "erased", target_id, what=target, reason=reason)
    snapshots = [path for path in sorted((project.path / "snapshots").glob("*.parquet")) if _holds(path, gone, prompt)]
    return Erased(
        rows,
        len(gone),
        [str(path.relative_to(project.path)) for path in snapshots],
        project.made.learned_from({path.resolve() for path in snapshots}),
    )


def files_of(store: FeedbackStore, target: Target, target_id: str) -> list[Media]:
    """The files of the responses that fall with the target."""
    with suppress(UserError):  # erased before
        if target == "response":
            found = [store.response(target_id)]
        else:
            found = list(store.responses(prompt_id=target_id)) if target == "prompt" else []
        return [one.payload for one in found if one.payload is not None]
    return []


def forget(store: FeedbackStore, files: MediaFolder, some: Collection[Media]) -> int:
    """Delete files of responses that were erased, but for those that another response is too. How many there were."""
    still = store.media(media.path for media in some)
    return files.delete(media for media in some if media not in still)


def judgments_of(store: FeedbackStore, target: Target, target_id: str) -> tuple[set[str], str | None]:
    """Ids of the judgments that fall with the target, and the content key of a prompt that does."""
    if target == "judgment":
        return {target_id}, None
    if target == "labeler":
        found = store.judgments(labeler_id=target_id, checks=None, history=True)
        return {judgment.id for judgment in found}, None
    with suppress(UserError):  # erased before
        if target == "prompt":
            found = store.judgments(prompt_id=target_id, checks=None, history=True)
            return {judgment.id for judgment in found}, content_key(store.prompt(target_id).content)
        prompt_id = store.response(target_id).prompt_id
        found = store.judgments(prompt_id=prompt_id, checks=None, history=True)
        return {judgment.id for judgment in found if target_id in judgment.response_ids}, None
    return set(), None


def _holds(path: Path, judgments: set[str], prompt: str | None) -> bool:
    for example in read_examples(path, "snapshot"):
        if example.metadata.get("judgment") in judgments:
            return True
        if prompt is not None and content_key(getattr(example, "prompt", "")) == prompt:
            return True
    return False
