"""A project's artifacts, and the one graph of what each was made from."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from hearken.algorithms.stage import Stage, makes_reward, stage_of
from hearken.domains.base import Domain, domain_of, find_domain
from hearken.training.artifact import MANIFEST, Artifact

RECORDS = ("samples", "judgments", "evaluation")
"""Kinds of artifact that are no model: what a round asked, was told, and measured."""


class ArtifactStore:
    """The finished artifacts in a folder.

    Args:
        folder: ``artifacts/`` of a project; of a bare artifact, the one that it stands in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> Artifact | None:
        """A finished artifact by its name, or None."""
        path = self.folder / name
        return Artifact.load(path) if (path / MANIFEST).is_file() else None

    def finished(self, *, records: bool = False) -> dict[str, Artifact]:
        """All by name, oldest first: models, and with ``records`` what rounds left besides.

        Age is told by the manifest, whatever copying did to the times of files.
        """
        found = sorted(self.folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
        made = sorted((Artifact.load(path.parent) for path in found), key=lambda a: a.created)
        return {a.path.name: a for a in made if records or a.kind not in RECORDS}

    def at(self, path: str) -> Artifact | None:
        """The artifact that a path names, wherever it stands; None for what was not made by a stage."""
        if (Path(path) / MANIFEST).is_file():
            return Artifact.load(path)
        return self.get(Path(path).name)

    def policies(self) -> list[Artifact]:
        """The policies, the oldest first."""
        return [a for a in self.finished().values() if a.kind != "scratch" and not makes_reward(a.kind)]

    def rewards(self) -> list[Artifact]:
        """The reward models that policies are improved by, the one in use last.

        Of an ensemble that is its first; where labels arrive while a policy trains, the newest refit of its round.
        """
        made = {name: a for name, a in self.finished().items() if makes_reward(a.kind)}
        return [a for name, a in made.items() if not _in_ensemble(a, made.get(re.sub(r"-\d+$", "", name)))]

    def ancestors(self, artifact: Artifact) -> dict[str, Artifact]:
        """The artifact and everything behind it that is still there, by name, the oldest first."""
        found: dict[str, Artifact] = {}
        seen: set[str] = set()

        def visit(one: Artifact) -> None:
            if (name := one.path.resolve().name) not in seen:
                seen.add(name)
                for _, path in one.parents:
                    if (made := self.at(path)) is not None:
                        visit(made)
                found[name] = one  # after its parents, which may be of the same second

        visit(artifact)
        return dict(sorted(found.items(), key=lambda item: item[1].created))

    def learned_from(self, files: Collection[Path]) -> list[str]:
        """Names of models that read one of the files (given in full), and of all that descend from them."""
        touched: list[str] = []
        for name, artifact in self.finished().items():  # oldest first: parents come before children
            read = {Path(path).resolve() for _, path in artifact.files}
            if read & set(files) or {Path(path).name for _, path in artifact.parents} & set(touched):
                touched.append(name)
        return touched


def _in_ensemble(artifact: Artifact, first: Artifact | None) -> bool:
    """Whether a reward model is a further one of the ensemble of ``first``; a role says so since there are roles."""
    if artifact.role:
        return artifact.role == "ensemble"
    if first is None or first == artifact:
        return False
    return bool(artifact.inputs["data"] == first.inputs["data"])


def domain_of_artifact(folder: str | Path) -> Domain:
    """The domain of a policy or reward model: the one that knows its folder, else that of the stage that made it."""
    if (known := domain_of(str(folder))).recognises(str(folder)):
        return known
    if (Path(folder) / MANIFEST).is_file() and (stage := stage_of(Artifact.load(folder).kind)) is not None:
        return find_domain(stage.domain)
    return known


def stage_that_made(artifact: Artifact) -> Stage | None:
    """The stage of an artifact: of several of that name its own domain's; None where none is known."""
    return stage_of(artifact.kind, domain_of_artifact(artifact.path).name)


def is_reward(folder: str | Path) -> bool:
    """Whether a folder is a reward model: its manifest says so, or, where it has none, it is no policy."""
    if (Path(folder) / MANIFEST).is_file():
        return makes_reward(Artifact.load(folder).kind)
    return not domain_of(str(folder)).recognises(str(folder))
