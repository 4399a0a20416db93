"""Rewards for text: what ``--reward`` names, opened as scorers of the policy's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from hearken.domains.text.data import Disputed, Reader, Rows, by_responses, judgments
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.loading import TextPolicy, text_encoder
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, Document, Example, Message
from hearken.feedback.pairs import better_pairs
from hearken.feedback.splits import labeler_value, of_labelers
from hearken.feedback.weighting import reweight
from hearken.models.layout import Group
from hearken.models.loading import check_size, load_reward, load_tokenizer
from hearken.models.scorers import RewardScorer, attributes, probe
from hearken.rewards.confidence import Confidence, EnsembleReward, Heads, PessimisticReward, fit_confidence
from hearken.rewards.functions import FunctionReward
from hearken.rewards.learned import LearnedReward, Reward
from hearken.rewards.terms import Prompt, Term, load_function, parse_terms
from hearken.rewards.trust import check_card
from hearken.training.artifact import MANIFEST, Artifact
from hearken.training.options import TextOptions


class TrustOptions(Protocol):
    """How far a reward is believed: see ``algorithms.trust_options``."""

    trust_reward: bool
    pessimism: float
    width: str
    combine: str


Known = Mapping[tuple[int, ...], tuple[Prompt, dict[str, Any]]]


class WorstOff:
    """The least of several rewards, each times its weight, response by response.

    Its mean E[min] is at most min E, what the worst-off group has in the mean (`WorstGroup`): it asks that nobody
    dislikes any response, and not only that nobody is worse off in all.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts = parts

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order."""
        first, *others = (weight * reward(groups) for reward, weight in self.parts)
        for x in others:
            first = first.minimum(x.to(first.device))
        return first


class WorstGroup:
    """Of several rewards, each times its weight, the one whose mean over all responses given together is least.

    Its gradient is one of min over groups of E[reward], so a policy that follows it climbs towards max-min
    (Chakraborty et al. 2024, algorithm 1). Means compare only where the rewards have one zero and one scale: those that
    ``train reward`` makes are 0 on average over the same references.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts = parts

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order."""
        scores = [weight * reward(groups) for reward, weight in self.parts]
        return min(scores, key=lambda one: one.mean().item())


class WeightedSum:
    """Several rewards added up with weights."""

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts = parts

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order."""
        first, *others = (weight * reward(groups) for reward, weight in self.parts)
        return sum((x.to(first.device) for x in others), first)


COMBINED: dict[str, Callable[[Sequence[tuple[Reward, float]]], Reward]] = {
    "sum": WeightedSum, "min": WorstOff, "worst_group": WorstGroup,
}  # fmt: skip
"""How several rewards become one, by the option ``combine``."""


def prompt_facts(rows: Sequence[Example], contents: Sequence[Content], ids: Sequence[list[int]]) -> Known:
    """What a reward function is told of each prompt, by its token ids.

    Raises:
        UserError: two prompts have the same tokens (their beginnings were cut off) but different metadata.
    """
    metadata: dict[Content, dict[str, Any]] = {}
    for row in rows:
        if not isinstance(row, Document):
            metadata.setdefault(row.prompt, row.metadata)
    known: dict[tuple[int, ...], tuple[Prompt, dict[str, Any]]] = {}
    for content, tokens in zip(contents, ids, strict=True):
        facts = metadata[content]
        if known.setdefault(tuple(tokens), (plain(content), facts))[1] != facts:
            raise UserError(
                "two prompts are the same once cut to max_length, but their metadata differ", "Raise max_length"
            )
    return known


def plain(content: Content) -> Prompt:
    """A prompt as reward functions see it: a text, or a list of messages."""
    return content if isinstance(content, str) else [message.to_row() for message in content]


def open_reward(
    text: str, policy: TextPolicy, known: Known, options: Any,
    models: Callable[[str], PreTrainedModel] | None = None,
) -> Reward:  # fmt: skip
    """The reward that ``text`` names (see `rewards.terms.parse_terms`).

    Args:
        text: as given to ``--reward``.
        policy: whose tokens are scored.
        known: see `prompt_facts`.
        options: ``tokens`` of a microbatch, `TextOptions` and `TrustOptions`.
        models: loads a reward model by name; a stage that shares one (PPO's value model) passes its own.
    """
    device = policy.scorer.device
    parts: list[tuple[Reward, float]] = []
    trust: TrustOptions = options
    networks: dict[str, PreTrainedModel] = {}
    for term in (given := parse_terms(text)):
        if term.kind == "model":
            check_card(term.name, trust=trust.trust_reward)
    for term in given:
        if term.kind == "model" and term.name not in networks:
            load = models or (lambda name: load_reward(name, device=device).requires_grad_(False))
            networks[term.name] = load(term.name)
    terms = given if trust.combine == "sum" else [one for term in given for one in _by_head(term, networks)]
    for term in terms:
        if term.kind == "function":
            _check_facts(known, term.name)
            reward: Reward = FunctionReward(load_function(term.name), term.name, policy.encoder.decode, known)
        else:
            scorer = RewardScorer(networks[term.name])
            if term.attributes:
                scorer.weigh(dict(term.attributes))
            probe(scorer, policy.encoder.max_length)
            scorer.compute_like(policy.scorer)
            learned = LearnedReward(scorer, options.tokens)
            careful: LearnedReward | PessimisticReward = learned
            if trust.pessimism and trust.width != "models":
                sure = confidence_of(term.name, learned, term.attributes)
                careful = PessimisticReward(learned, sure, trust.pessimism, trust.width)
            reward = translated(careful, term.name, policy, options, known)
        parts.append((reward, term.weight))
    if trust.pessimism and trust.width == "models":
        parts = _as_ensemble(text, terms, parts, trust.pessimism)
    if len(parts) == 1 and parts[0][1] == 1.0:
        return _on(device, parts[0][0])
    return _on(device, COMBINED[trust.combine](parts))


def _check_facts(known: Known, name: str) -> None:
    """UserError where a function would read one of two rows' metadata on the same prompt."""
    for _, facts in known.values():
        if isinstance(facts, Disputed):
            raise UserError(facts.where, f"--reward {name} would read one of them: keep the right row")


def _by_head(term: Term, networks: Mapping[str, PreTrainedModel]) -> list[Term]:
    """A term whose heads count one by one: those that it names, else all where they are groups of labelers."""
    if term.kind == "function":
        return [term]
    heads = term.attributes
    if not heads and getattr(networks[term.name].config, "hearken_heads_by", None):
        heads = tuple((name, 1.0) for name in attributes(networks[term.name]))
    return [replace(term, weight=term.weight * weight, attributes=((name, 1.0),)) for name, weight in heads] or [term]


def _on(device: Any, reward: Reward) -> Reward:
    """Scores on the policy's device; a learned reward is there already and stays itself."""
    if isinstance(reward, LearnedReward):
        return reward
    return lambda groups: reward(groups).to(device)


def _as_ensemble(
    text: str, terms: Sequence[Term], parts: list[tuple[Reward, float]], c: float
) -> list[tuple[Reward, float]]:
    """The models among the terms as one reward, and the functions as they were."""
    models = [reward for term, (reward, _) in zip(terms, parts, strict=True) if term.kind == "model"]
    weighted = any(term.weight != 1.0 for term in terms if term.kind == "model")
    if len(models) < 2 or weighted:
        raise UserError(
            f"--reward {text} with width=models: the spread of {len(models)} models"
            + (" with weights is not defined" if weighted else " is nothing"),
            "Name two or more, without weights: --reward rm-seed-0,rm-seed-1,rm-seed-2",
        )
    rest = [part for term, part in zip(terms, parts, strict=True) if term.kind == "function"]
    return [(EnsembleReward(models, c), 1.0), *rest]


def confidence_of(name: str, reward: LearnedReward, heads: Heads = ()) -> Confidence:
    """The confidence kept beside a reward model, else computed from the comparisons its manifest names, and kept.

    Args:
        name: its folder.
        reward: the model, scoring by ``heads``.
        heads: those that were asked for, with their weights. Where they are groups of labelers, only the judgments
            of these groups count: one group's answers make nobody sure of another's taste.

    Raises:
        UserError: the folder was not made by ``train reward``, or its data are gone or hold no comparison.
    """
    folder = Path(name)
    if (kept := Confidence.load(folder, reward.scorer.device, heads)) is not None:
        return kept
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"--reward {name}: a confidence needs the comparisons it was trained on, and it has no {MANIFEST}",
            "Train it with: hearken train reward; or use width=models with several reward models",
        )
    given = Artifact.load(name).options
    rows = reweight(trained_on(name), given.get("labeler_weights", ""), given.get("population")).rows
    whose = ""
    if heads and (by := reward.scorer.by):
        named = [head for head, weight in heads if weight]
        rows, whose = [row for row in rows if labeler_value(row, by) in named], f" by {by}={' or '.join(named)}"
    groups, pairs, weights = compared(rows, text_encoder(load_tokenizer(name), reward.scorer.model, _text(name)))
    if not pairs:
        raise UserError(
            f"--reward {name} was trained on nothing that compares two responses{whose}", "Use width=models"
        )
    found = fit_confidence(reward, groups, pairs, weights=weights)
    found.save(folder, heads)
    return found


def _text(name: str) -> TextOptions:
    given = Artifact.load(name).options
    return TextOptions(**{k: given[k] for k in TextOptions.model_fields if k in given} | {"long_prompts": "truncate"})


def trained_on(name: str) -> list[Example]:
    """The rows that a reward model was trained on, read again as its manifest says.

    Raises:
        UserError: it has no manifest, or its data are gone.
    """
    return _rows_of(name).train


def held_out_from(name: str) -> list[Example]:
    """The rows that its training held out; the same holds."""
    return _rows_of(name).validation


def _rows_of(name: str) -> Rows:
    made = Artifact.load(name)
    inputs, options = made.inputs, made.options
    gone = [path for path in (*inputs["data"], *inputs["validation"]) if not Path(path).exists()]
    if gone:
        raise UserError(f"{name} was trained on {gone[0]}, which is not here", "Run this where its data are")
    share = options.get("validation", 0.0)
    rows = Reader(_text(name)).rows(inputs["data"], inputs["validation"], share, options["seed"])
    if not (only := options.get("only")):
        return rows
    kept = of_labelers(rows.validation, only) if rows.validation else []
    return Rows(of_labelers(rows.train, only), kept, rows.facts)


def compared(
    rows: Sequence[Example], encoder: TextEncoder
) -> tuple[list[Group], list[tuple[int, int, int]], list[float]]:
    """Groups of the compared responses, the pairs (better, worse, prompt) among all of them, and their weights."""
    groups: list[Group] = []
    pairs: list[tuple[int, int, int]] = []
    weights: list[float] = []
    at = 0
    for number, same in enumerate(by_responses(judgments([r for r in rows if isinstance(r, Comparison)], encoder))):
        groups.append(same[0].group)
        for judged in same:
            of = [(at + i, at + j, number) for i, j in better_pairs(judged.ranks, judged.share)]
            pairs += of
            weights += [judged.weight / max(len(of), 1)] * len(of)
        at += len(same[0].group.responses)
    return groups, pairs, weights


def translated(
    reward: LearnedReward | PessimisticReward, name: str, policy: TextPolicy, options: TextOptions, known: Known
) -> Reward:
    """The reward itself where it reads the policy's tokens; else through text, by its own tokenizer and template.

    ``known`` says which prompts the tokens are; a prompt that it does not know is taken as the text of its tokens.
    """
    tokenizer = load_tokenizer(name)
    check_size(tokenizer, reward.scorer.model, f"--reward {name}")
    mine, its = policy.tokenizer.get_vocab(), tokenizer.get_vocab()
    dialogues = any(not isinstance(prompt, str) for prompt, _ in known.values())
    same = all(its.get(token) == i for token, i in mine.items())
    if same and (not dialogues or tokenizer.chat_template == policy.tokenizer.chat_template):
        return reward
    encoder = text_encoder(tokenizer, reward.scorer.model, options)

    def score(groups: Sequence[Group]) -> Tensor:
        again = []
        for g in groups:
            given, _ = known.get(tuple(g.prompt)) or (policy.encoder.decode(g.prompt), {})
            prompt = given if isinstance(given, str) else tuple(Message(**m) for m in given)  # type: ignore[arg-type]
            ids = encoder.prompt(prompt) or [encoder.eos]
            room = encoder.max_length - len(ids)
            texts = [(policy.encoder.decode(r, prompt), r[-1] in policy.encoder.stop) for r in g.responses]
            again.append(Group(ids, [encoder.response(prompt, text, room, finished=end) for text, end in texts]))
        return reward(again)

    return score
