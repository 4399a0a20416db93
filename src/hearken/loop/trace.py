"""`hearken trace`: from an artifact back to the judgments, labelers and guideline versions behind it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from hearken.algorithms.stage import makes_reward
from hearken.algorithms.watch_options import ASKED
from hearken.errors import UserError
from hearken.feedback.formats import read_examples
from hearken.feedback.records import Judgment, Labeler
from hearken.training.artifact import MANIFEST, Artifact, hash_files

if TYPE_CHECKING:
    from rich.tree import Tree

    from hearken.loop.project import Project


class Facts(TypedDict, total=False):
    """What is said of a node, where it is known."""

    made: str | None
    """When."""
    seed: int | None
    hash: str | None
    """Of its data."""
    metrics: dict[str, object]
    versions: dict[str, str]
    path: str
    state: str | None
    """Of a file: whether it is as it was read."""
    note: str
    examples: int
    judgments: int
    numbers: list[int]
    """Of the first and the last judgment."""
    responses_of: dict[str, int]
    """Responses that were judged, by policy."""
    guidelines: dict[str, int]
    """Judgments by the version of the guideline."""
    labelers: list[str]
    id: str
    kind: str
    """Of a labeler."""
    attributes: dict[str, object]


@dataclass
class Node:
    """An artifact, a file or a set of judgments, with what it was made of."""

    name: str
    kind: str
    """A stage's name, samples, judgments, evaluation; or file, snapshot, labelers, model (one made elsewhere)."""
    facts: Facts = field(default_factory=Facts)
    parents: list[tuple[str, Node]] = field(default_factory=list)
    """What each was to it: model, reward, data ..."""
    seen: bool = False
    """It is told in full elsewhere in the tree."""

    def to_json(self) -> dict[str, object]:
        """Nested dictionaries."""
        told = {"name": self.name, "kind": self.kind, **self.facts}
        if self.seen:
            return told | {"see": "above"}
        return told | {"parents": [{"as": role} | node.to_json() for role, node in self.parents]}


@dataclass(frozen=True)
class _Feedback:
    """What a database knows, by id: judgments, those that stand, labelers, and the policies of responses."""

    judgments: dict[str, Judgment]
    live: set[str]
    labelers: dict[str, Labeler]
    policies: dict[str, str]


class Tracer:
    """Walks manifests; each artifact is told once.

    Args:
        project: whose store knows the judgments; None for bare files.
    """

    def __init__(self, project: Project | None) -> None:
        self.project = project
        self._told: set[Path] = set()

    def find(self, name: str) -> Path:
        """The folder of an artifact, by its name in the project or its path.

        Raises:
            UserError: there is none; the known ones are named.
        """
        places = [Path(name)] + ([self.project.artifacts / name] if self.project else [])
        for place in places:
            if (place / MANIFEST).is_file():
                return place.resolve()
        known = ", ".join(self.project.finished(records=True)) if self.project else ""
        raise UserError(
            f"there is no finished artifact '{name}'",
            f"There are: {known}" if known else "Name a folder that hearken train has finished",
        )

    def artifact(self, path: Path) -> Node:
        """An artifact with all that stands behind it."""
        made = Artifact.load(path)
        if path in self._told:
            return Node(path.name, made.kind, seen=True)
        self._told.add(path)
        facts = Facts(
            made=made.created or None, seed=made.seed, hash=made.data_hash or None,
            metrics={k: v for k, v in made.metrics.items() if not isinstance(v, dict) or "estimate" in v},
            versions=made.versions,
        )  # fmt: skip
        node = Node(path.name, made.kind, facts)
        node.parents += [(role, self._parent(parent)) for role, parent in made.parents]
        alone = sum(role == "data" for role, _ in made.files) == 1
        for role, file in made.files:  # inputs that are no files are among the parents
            recorded = (made.data_hash or None) if role == "data" and alone else None
            node.parents.append((role, self._file(Path(file), recorded)))
        if made.kind == "judgments":
            node.parents.append(("given by", self._round(made)))
        node.parents += self._watch(made)
        return node

    def _watch(self, made: Artifact) -> Iterator[tuple[str, Node]]:
        """Who chose which weights of a run were kept: a reward model or function, or judgments of its checkpoints."""
        judge = (
            made.options.get("judge") if "judge_every" in made.options else ""
        )  # that of an evaluation chose no weights
        if judge and judge not in ASKED:
            yield "watched by", self._parent(judge)
        if heard := set(made.data.get("watched") or ()):
            name = "answers on the way"
            if self.project is None:
                yield "watched by", Node(name, "judgments given", {"judgments": len(heard)})
                return
            there, gone = self._found(heard)
            yield "watched by", self._tell(there, name)
            yield from gone

    def _parent(self, name: str) -> Node:
        path = Path(name)
        if (path / MANIFEST).is_file():
            return self.artifact(path.resolve())
        # A reward may be a function or a sum of several; a model may come from elsewhere, or from the Hub.
        return Node(path.name if path.exists() else name, "model", {"path": name, "note": "not made here"})

    # Data

    def _file(self, path: Path, recorded: str | None) -> Node:
        if not path.exists():
            return Node(path.name, "file", {"path": str(path), "note": "not there any more"})
        state = None
        if recorded is not None:
            state = "as it was read" if hash_files((str(path),)) == recorded else "changed since it was read"
        facts = Facts(path=str(path), state=state)
        if path.suffix == ".parquet" and path.parent.name == "snapshots":
            return self._snapshot(path, facts)
        return Node(path.name, "file", facts)

    def _snapshot(self, path: Path, facts: Facts) -> Node:
        """A frozen data set: its judgments by round, with labelers, guidelines and the policies they speak about."""
        rows = read_examples(path, "snapshot")
        ids = [row.metadata["judgment"] for row in rows if row.metadata.get("judgment")]
        node = Node(path.name, "snapshot", facts | {"examples": len(rows), "judgments": len(set(ids))})
        if self.project is not None and ids:
            node.parents += self._judgments(set(ids))
        return node

    @cached_property
    def _feedback(self) -> _Feedback:
        """What the project's database knows, read once."""
        assert self.project is not None
        with self.project.store() as store:
            return _Feedback(
                judgments={j.id: j for j in store.judgments(history=True, checks=None)},
                live={j.id for j in store.judgments(checks=None)},
                labelers={labeler.id: labeler for labeler in store.labelers()},
                policies={r.id: r.policy or "imported" for r in store.responses()},
            )

    def _found(self, ids: set[str]) -> tuple[list[Judgment], list[tuple[str, Node]]]:
        """The judgments with these ids; and how many of them are gone, or stand no more."""
        known = self._feedback
        there = [judgment for i, judgment in known.judgments.items() if i in ids]  # in one order, whatever a set's is
        gone = []
        if len(there) < len(ids):
            missing = len(ids) - len(there)
            gone.append(("erased", Node(f"{missing} judgments", "erased", {"note": "erased since"})))
        revised = sum(j.id not in known.live for j in there)
        if revised:
            gone.append(("revised", Node(f"{revised} judgments", "revised", {"note": "revised or withdrawn since"})))
        return there, gone

    def _judgments(self, ids: set[str]) -> Iterator[tuple[str, Node]]:
        there, gone = self._found(ids)
        yield from gone
        for number in sorted({j.round for j in there}, key=lambda n: -1 if n is None else n):
            mine = [j for j in there if j.round == number]
            yield "judgments", self._tell(mine, "imported" if number is None else f"round {number}")

    def _round(self, made: Artifact) -> Node:
        """What a round was told, from the database."""
        if self.project is None:
            return Node("labelers", "labelers", {"labelers": made.data["labelers"]})
        number = made.data["round"]
        known = self._feedback.judgments.values()
        mine = [j for j in known if j.round == number and j.kind == "comparison" and (j.seq or 0) <= made.as_of]
        return self._tell(mine, f"round {number}")

    def _tell(self, judgments: list[Judgment], name: str) -> Node:
        """A set of judgments by labeler, guideline version and policy."""
        known = self._feedback
        policies = Counter(known.policies.get(r, "erased") for j in judgments for r in j.response_ids)
        guidelines = Counter(j.guideline for j in judgments)
        seqs = sorted(j.seq for j in judgments if j.seq is not None)
        facts = Facts(
            judgments=len(judgments), numbers=[seqs[0], seqs[-1]] if seqs else [],
            responses_of=dict(policies.most_common()),
            guidelines={"none" if v is None else f"version {v}": n for v, n in sorted(
                guidelines.items(), key=lambda pair: -1 if pair[0] is None else pair[0])},
        )  # fmt: skip
        node = Node(name, "judgments given", facts)
        for labeler, count in Counter(j.labeler_id for j in judgments).most_common():
            record = known.labelers.get(labeler)
            who = Facts(id=labeler, judgments=count)
            who |= {"kind": record.kind, "attributes": record.attributes} if record else {"note": "erased since"}
            node.parents.append(("labeler", Node(record.name if record else labeler, "labeler", who)))
        return node


def trace(name: str, project: Project | None = None) -> Node:
    """The tree of all that stands behind an artifact.

    Args:
        name: of an artifact in the project, or the path of its folder.
        project: None outside of one: files and models are followed, judgments are not looked up.

    Raises:
        UserError: there is no such artifact.
    """
    tracer = Tracer(project)
    return tracer.artifact(tracer.find(name))


LABELERS = 6
"""Shown by name in the tree; further ones are counted."""


def draw(node: Node) -> Tree:
    """The tree for a terminal."""
    from rich.text import Text
    from rich.tree import Tree

    def say(role: str, one: Node) -> Text:
        line = Text(f"{role}: ", "dim") if role else Text()
        line.append(one.name, "bold")
        if one.kind not in (one.name, "judgments given", "labeler", "file"):
            line.append(f"  {one.kind}")
        if words := ", ".join(_words(one)):
            line.append(f"  {words}", "dim")
        return line

    def grow(branch: Tree, one: Node) -> None:
        labelers = [child for role, child in one.parents if role == "labeler"]
        for role, child in [pair for pair in one.parents if pair[0] != "labeler"]:
            grow(branch.add(say(role, child)), child)
        for labeler in labelers[:LABELERS]:
            branch.add(say("labeler", labeler))
        if len(labelers) > LABELERS:
            rest = labelers[LABELERS:]
            branch.add(Text(f"{len(rest)} more labelers, {sum(r.facts['judgments'] for r in rest)} judgments", "dim"))

    root = Tree(say("", node))
    grow(root, node)
    return root


def _words(node: Node) -> Iterator[str]:
    """A node's facts in a few words."""
    facts = node.facts
    if node.seen:
        yield "told above"
    if made := facts.get("made"):
        yield made[:16].replace("T", " ")
    if data := facts.get("hash"):
        yield f"data {data[:8]}"
    if facts.get("seed") is not None:
        yield f"seed {facts['seed']}"
    if makes_reward(node.kind) and (accuracy := facts.get("metrics", {}).get("accuracy")) is not None:
        yield f"held-out accuracy {accuracy:.1%}"
    if "examples" in facts:
        yield f"{facts['examples']:,} examples"
    if facts.get("judgments"):
        yield f"{facts['judgments']:,} judgments"
    if facts.get("responses_of"):
        yield "on responses of " + ", ".join(facts["responses_of"])
    if facts.get("guidelines"):
        yield "guideline " + ", ".join(facts["guidelines"])
    if node.kind == "labeler" and "kind" in facts:
        yield facts["kind"]
    yield from filter(None, (facts.get("state"), facts.get("note")))


def as_json(node: Node) -> str:
    """The tree as JSON text."""
    return json.dumps(node.to_json(), ensure_ascii=False, default=str)
