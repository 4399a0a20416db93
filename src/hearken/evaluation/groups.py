"""Groups of labelers: those that their declared attributes make, and those that were found in their judgments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hearken.evaluation.people import found_name
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.records import hash_id

if TYPE_CHECKING:
    from hearken.feedback.records import Labeler

AT_MOST = 8
"""An attribute that divides labelers into more groups than this is a name rather than a group."""
FOUND = "found"


@dataclass(frozen=True, slots=True)
class LabelerGroup:
    """Some of the labelers.

    Attributes:
        name: for people; the value alone where the attribute is ``group``.
        by: the attribute, or `FOUND`.
        members: ids of labelers.
        key: digest of all who were found to belong to it; names of found groups say no more than which is larger.
    """

    name: str
    by: str
    members: frozenset[str]
    key: str = ""


def labeler_groups(labelers: Mapping[str, Labeler], found: Iterable[LabelerGroup] = ()) -> list[LabelerGroup]:
    """The groups that declared attributes make among these labelers, and of the ``found`` ones those they belong to.

    What does not divide them is left out: one value for all, or more than `AT_MOST`. So are, but for the attribute
    ``group``, values that one labeler alone has: what a person says of themselves is no group.
    """
    values: dict[str, dict[str, set[str]]] = {}
    for key, labeler in labelers.items():
        for attribute, value in labeler.attributes.items():
            if isinstance(value, str | int | bool) and str(value):
                values.setdefault(attribute, {}).setdefault(str(value), set()).add(key)
    declared = [
        LabelerGroup(value if attribute == "group" else f"{attribute}: {value}", attribute, frozenset(members))
        for attribute, by in ((a, _shared(v) if a != "group" else v) for a, v in values.items())
        if 2 <= len(by) <= AT_MOST
        for value, members in sorted(by.items())
    ]
    present = [replace(g, members=g.members & labelers.keys()) for g in found]
    return declared + (present if sum(bool(g.members) for g in present) > 1 else [])


def _shared(values: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {value: members for value, members in values.items() if len(members) > 1}


def found_groups(card: RewardCard | None) -> list[LabelerGroup]:
    """Groups that a reward model's card found among labelers who declare none; mostly none."""
    if card is None or card.discovered is None or not card.discovered.real:
        return []
    return [
        LabelerGroup(found_name(g), FOUND, frozenset(m), hash_id(*sorted(m)))
        for g, m in enumerate(card.discovered.groups)
    ]
