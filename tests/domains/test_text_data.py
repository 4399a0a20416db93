from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from domains.families import family
from tiny_models import tokenizer, write_base, write_rows

from hearken.algorithms.dpo import comparisons
from hearken.algorithms.dpo_options import DPOConfig
from hearken.algorithms.thumbs import opinions
from hearken.domains.text.data import Reader, best, demonstrations, encoded, judgments, prompts
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.rewarding import Known, open_reward, prompt_facts, translated
from hearken.errors import UserError
from hearken.feedback.examples import (
    CUT,
    SAMPLED,
    Comparison,
    Demonstration,
    Document,
    Message,
    PromptOnly,
    Rating,
    Thumb,
    content_key,
)
from hearken.models.loading import new_reward, save
from hearken.training.options import TextOptions

ENCODER = TextEncoder(tokenizer(), 2048, long_prompts="truncate")
DATA = Path(os.environ.get("HEARKEN_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))


def reader(**options) -> Reader:
    return Reader(TextOptions(**options))


def test_rows_are_split_by_prompt_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 40}", "completion": f"c{i}", "judgment": i} for i in range(80)]
    path = write_rows(tmp_path / "a.jsonl", [*rows, rows[0]])
    with pytest.warns(UserWarning, match="left out 1 rows that stand there twice"):
        found = reader().rows([str(path)], [], 0.25, 0)
    assert (found.facts["duplicates_removed"], found.facts["repeated_votes"]) == (1, 0)
    assert found.facts["rows"] + found.facts["validation_rows"] == 80
    assert not {r.prompt for r in found.train} & {r.prompt for r in found.validation}
    assert len(found.facts["hash"]) == 64 and found.facts["files"] == [str(path)]
    again = reader().rows([str(path)], [], 0.25, 0)
    assert [r.prompt for r in again.train] == [r.prompt for r in found.train]
    with pytest.raises(UserError, match="in the training data"):
        reader().rows([str(path)], [str(path)], 0, 0)


@pytest.mark.parametrize("labelers", [(None,) * 4, ("ana", "bo", "cy", "di")])
def test_three_votes_against_one_are_three_against_one(tmp_path: Path, labelers: tuple[str | None, ...]) -> None:
    """In the pairs of DPO and of reward models, and in KTO's thumbs."""
    votes = [("a", "b")] * 3 + [("b", "a")]
    rows = [
        {"prompt": "p", "chosen": chosen, "rejected": rejected} | ({"labeler": who} if who else {})
        for (chosen, rejected), who in zip(votes, labelers, strict=True)
    ]
    path = write_rows(tmp_path / "votes.jsonl", rows)
    if labelers[0] is None:
        with pytest.warns(UserWarning, match="2 of 4 judgments say what one before them says.*each counts as a vote"):
            found = reader().rows([str(path)], [], 0, 0)
    else:
        found = reader().rows([str(path)], [], 0, 0)
    compared = comparisons(judgments(found.train, ENCODER), DPOConfig())
    judged = compared.rows
    first = ENCODER.group("p", ["a"]).responses[0]
    assert sum(j.group.responses[j.ranks.index(0)] == first for j in judged) == 3 and len(judged) == 4
    thumbs = opinions(judged, 0, 64).rows
    assert sum(t.label == (t.group.responses[0] == first) for t in thumbs) == 6 and len(thumbs) == 8
    assert not any(compared.left_out.values())


def test_rows_that_contradict_each_other_are_refused_where_a_function_reads_them(tmp_path: Path) -> None:
    rows = [{"prompt": "one", "answer": 1, "id": 1}, {"prompt": "two", "answer": 2}, {"prompt": "two", "answer": 2}]
    first = write_rows(tmp_path / "a.jsonl", rows)
    second = write_rows(tmp_path / "b.jsonl", [{"prompt": "new"}, {"prompt": "one", "answer": 3, "id": 1}])
    policy: Any = SimpleNamespace(encoder=ENCODER, scorer=SimpleNamespace(device="cpu"))
    options = SimpleNamespace(trust_reward=False, pessimism=0.0, width="linear", combine="sum")

    def known(*paths: Path) -> Known:
        found = reader().rows([str(path) for path in paths], [], 0, 0).train
        return prompt_facts(found, *prompts(found, ENCODER))

    alone, both = known(first), known(first, second)
    assert [facts for _, facts in alone.values()] == [{"answer": 1, "id": 1}, {"answer": 2}]
    assert callable(open_reward("rule:answer", policy, alone, options))
    told = r"a\.jsonl, row 1 and .*b\.jsonl, row 2 have the same prompt, but not the same answer\. .*keep the right row"
    with pytest.raises(UserError, match=told):
        open_reward("rule:answer", policy, both, options)
    assert next(facts for _, facts in both.values()) == {"answer": 1, "id": 1}, "a reward model does not mind"


def test_a_response_that_was_cut_has_no_end() -> None:
    cut = {CUT: [content_key(" sings")]}
    row = Comparison("the fox", (" runs", " sings"), (1, 0), metadata=cut)
    (group,) = encoded(row, ENCODER)
    assert [r[-1] == ENCODER.eos for r in group.responses] == [True, False]
    assert demonstrations([row], ENCODER)[0].responses == [group.responses[1]]
    assert judgments([Thumb("the fox", " sings", True, metadata=cut)], ENCODER)[0].group.responses[0][-1] != ENCODER.eos


def test_what_was_sampled_is_trained_where_its_text_is_written_otherwise() -> None:
    word = ENCODER.tokenizer(" forest")["input_ids"]
    letters = [i for c in " forest" for i in ENCODER.tokenizer(c)["input_ids"]] + [ENCODER.eos]
    text = ENCODER.decode(letters)
    assert text == " forest" and len(word) < len(letters) - 1
    assert not ENCODER.writes("the", text, letters) and ENCODER.writes("the", text, [*word, ENCODER.eos])
    kept = {content_key(text): {"tokenizer": ENCODER.fingerprint, "ids": letters}}
    row = Comparison("the", (text, " owl"), (0, 1), metadata={SAMPLED: kept})
    (group,) = encoded(row, ENCODER)
    assert group.responses[0] == letters and group.responses[1][-1] == ENCODER.eos
    assert demonstrations([row], ENCODER)[0].responses == [letters]
    other = TextEncoder(family("byte-level"), 100)
    assert encoded(row, other) == encoded(Comparison("the", (text, " owl"), (0, 1)), other), "not its tokens"


def test_the_best_response_is_a_demonstration() -> None:
    row = Comparison("the fox", (" runs", " sings", " sleeps"), (1, None, 0))
    assert best(row) == " sleeps"
    (group,) = demonstrations([row], ENCODER)
    assert ENCODER.decode(group.responses[0]) == " sleeps"


def test_kinds_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"row 2 is a rating.*not something to imitate"):
        demonstrations([Demonstration("a", "b"), Rating("a", "b", {"x": 3})], ENCODER)
    with pytest.raises(UserError, match="row 1 is a demonstration, not a judgment"):
        judgments([Demonstration("a", "b")], ENCODER)
    with pytest.raises(UserError, match="plain text, not a prompt"):
        prompts([Document("text")], ENCODER)


def test_prompts_are_distinct_and_of_any_kind() -> None:
    rows = [PromptOnly("a"), Thumb("a", "x", True), Demonstration("b", "y"), PromptOnly((Message("user", "a"),))]
    contents, ids = prompts(rows, ENCODER)
    assert contents == ["a", "b", (Message("user", "a"),)] and len(ids) == 3


def test_judgments() -> None:
    rows = [
        Comparison("a", ("x", "y", "z"), (0, None, 1), weight=2.0),
        Rating("a", "x", {"one": 5, "two": 2}, low=1, high=5),
        Thumb("a", "x", False),
        Comparison("a", ("x", "y"), (0, 1), strength=0.5, share=0.8),
    ]
    ranking, rating, thumb, pair = judgments(rows, ENCODER)
    assert ranking.ranks == (0, -1, 1) and ranking.weight == 2 and len(ranking.group.responses) == 3
    assert rating.target == pytest.approx(0.25) and thumb.target == 0
    assert (pair.strength, pair.share, pair.key) == (0.5, 0.8, "a")


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA} (set HEARKEN_SHARED_DATA)")


@needs_data
def test_real_pairs_with_empty_responses() -> None:
    files = sorted(
        p for p in DATA.rglob("*") if "harmless" in str(p).lower() and p.suffix in (".gz", ".jsonl", ".parquet")
    )
    if not files:
        pytest.skip("no HH-harmless file")
    with pytest.raises(UserError, match="empty"):
        reader().read([str(files[0])])
    made = reader(on_bad="skip")
    with pytest.warns(UserWarning, match="skipped"):
        rows = made.read([str(files[0])])
    assert len(rows) > 1000 and "is empty" in made.skipped[str(files[0])]
    assert len(judgments(rows[:20], ENCODER)) == 20


def test_a_reward_model_of_another_kind_reads_the_dialogue_by_its_own_template(tmp_path: Path) -> None:
    theirs = family("sp normalizer", "llama2")
    write_base(tmp_path / "base", theirs, context=200)
    network, tokenizer = new_reward(str(tmp_path / "base"), 0)
    save(network, tokenizer, tmp_path / "rm")
    seen: list[Any] = []

    class Catch:
        scorer = SimpleNamespace(model=network)

        def __call__(self, groups: list[Any]) -> None:
            seen.extend(groups)

    own = family("byte-level", "chatml")
    encoder = TextEncoder(own, 200)
    policy: Any = SimpleNamespace(encoder=encoder, tokenizer=own)
    prompt = (Message("user", "Name a bird."), Message("assistant", "A bat </s>?"), Message("user", "Again"))
    rows = [PromptOnly(prompt)]
    known = prompt_facts(rows, *prompts(rows, encoder))
    group = encoder.group(prompt, ["A wren.", "A fox"], finished=[True, False])
    assert group is not None
    translated(Catch(), str(tmp_path / "rm"), policy, TextOptions(), known)([group])  # type: ignore[arg-type]
    want = TextEncoder(tokenizer, 200).group(prompt, ["A wren.", "A fox"], finished=[True, False])
    assert seen == [want]
