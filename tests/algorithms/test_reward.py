from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tokenizer, write_base, write_rows, write_seq2seq
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hearken.algorithms.reward_figures import calibrate, evaluate
from hearken.algorithms.reward_losses import losses
from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.reward_setup import load
from hearken.algorithms.stage import Inputs, train
from hearken.domains.text.data import Judged
from hearken.errors import UserError
from hearken.feedback.pairs import better_pairs
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_reward, new_reward
from hearken.models.scorers import RewardScorer
from hearken.rewards.learned import LearnedReward

OFF: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 3e-3, "batch_size": 8}


def transformers_score(folder: Path, prompt: str, response: str) -> float:
    """As anyone would read the folder: no code of ours."""
    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    ids = tok(prompt)["input_ids"] + tok(response)["input_ids"] + [tok.eos_token_id]
    with torch.no_grad():
        logit = model(torch.tensor([ids])).logits[0, 0].item()
    return logit * model.config.hearken_reward_gain + model.config.hearken_reward_bias


@pytest.mark.parametrize("pad", ["pad", "eos", "none"])
def test_our_score_is_transformers_logit(world, tmp_path: Path, pad: str) -> None:
    """Padded in a batch as well, where pad == EOS would make transformers read the token before EOS."""
    special = {"eos_token": "<eos>", "bos_token": "<bos>"} | {
        "pad": {"pad_token": "<pad>"},
        "eos": {"pad_token": "<eos>"},
    }.get(pad, {})
    base = write_base(tmp_path / "base", tokenizer(**special))
    out = train("reward", model=base, data=world.pairs, out=tmp_path / "rm", normalise="unit", **OFF).path
    tok, model = AutoTokenizer.from_pretrained(out), AutoModelForSequenceClassification.from_pretrained(out)
    assert tok.pad_token_id is not None and tok.pad_token_id != tok.eos_token_id
    assert model.config.pad_token_id == tok.pad_token_id and model.score.bias is None
    assert len(tok) <= model.get_input_embeddings().num_embeddings

    texts = [(" the fox sleeps happily", " owl"), (" home", " the bear runs in a forest sadly")]
    groups = [
        Group(tok("tell 1 the")["input_ids"], [[*tok(t)["input_ids"], tok.eos_token_id] for t in two]) for two in texts
    ]
    scores = LearnedReward(RewardScorer(load_reward(str(out))), 64)(groups)
    flat = [t for two in texts for t in two]
    for score, text in zip(scores.tolist(), flat, strict=True):
        assert score == pytest.approx(transformers_score(out, "tell 1 the", text), abs=1e-5)
    batch = tok.pad({"input_ids": [[*g.prompt, *r] for g in groups for r in g.responses]}, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[:, 0]
    want = logits * model.config.hearken_reward_gain + model.config.hearken_reward_bias
    torch.testing.assert_close(scores, want, rtol=0, atol=1e-5)


def test_the_head_at_the_start(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", hidden_size=1024, num_attention_heads=4, num_hidden_layers=1)
    model, _ = new_reward(str(base), seed=3)
    weight = model.score.weight
    assert model.score.bias is None and weight.shape == (1, 1024)
    assert weight.std().item() == pytest.approx(1025**-0.5, rel=0.1) and abs(weight.mean()) < 4 * 1025**-0.5 / 32
    again, other = (new_reward(str(base), seed=s)[0].score.weight for s in (3, 4))
    assert torch.equal(weight, again) and not torch.equal(weight, other)


@pytest.mark.slow
def test_reference_responses_score_zero(world, tmp_path: Path) -> None:
    out = train(
        "reward", model=world.base, data=world.pairs, out=tmp_path / "rm", references=world.demonstrations, **OFF
    )
    scores = [
        transformers_score(out.path, row["prompt"], row["completion"])
        for row in map(json.loads, world.demonstrations.read_text().splitlines())
    ]
    assert sum(scores) / len(scores) == pytest.approx(0, abs=1e-5)
    assert abs(out.metrics["reference_mean"]) < 1e-5


def test_unit_and_none(world) -> None:
    model, _ = new_reward(str(world.base), 0)
    scorer = RewardScorer(model)
    references = [Group([5, 6], [[7, 8], [9]]), Group([3], [[4, 5, 6]])]
    found = calibrate(scorer, references, RewardConfig(normalise="unit"))
    assert found["reference_mean"] == pytest.approx(0, abs=1e-5) and found["reference_sd"] == pytest.approx(1, abs=1e-4)
    found = calibrate(scorer, references, RewardConfig(normalise="none"))
    assert (scorer.gain, scorer.bias) == (1, 0) and found["reference_mean"] == pytest.approx(found["raw_mean"])


def test_a_sample_centres_the_scores(world) -> None:
    ready = load(Inputs(model=str(world.sft), data=(str(world.pairs),)), RewardConfig(seed=1))
    groups = [judged.group for judged in ready.data]
    assert len(groups) > 5
    whole = calibrate(ready.scorer, groups, RewardConfig(calibrate_on=0))
    some, again = (calibrate(ready.scorer, groups, RewardConfig(calibrate_on=5)) for _ in range(2))
    assert whole["reference_rows"] == len(groups) and some["reference_rows"] == 5
    assert some == again and some["raw_mean"] != whole["raw_mean"]
    assert some["reference_mean"] == pytest.approx(0, abs=1e-5)


def by_hand(scores: list[float], ranks: list[int], ties: str = "half") -> float:
    """Mean over all pairs of the ranked responses, written out."""
    total, pairs = 0.0, 0
    for i in range(len(ranks)):
        for j in range(i + 1, len(ranks)):
            if ranks[i] < 0 or ranks[j] < 0:
                continue
            pairs += 1
            a, b = (i, j) if ranks[i] <= ranks[j] else (j, i)
            better = -math.log(1 / (1 + math.exp(scores[b] - scores[a])))
            if ranks[i] != ranks[j]:
                total += better
            elif ties == "half":
                total += 0.5 * better + 0.5 * -math.log(1 / (1 + math.exp(scores[a] - scores[b])))
    return total / pairs


GROUP = Group([5, 6, 7], [[8, 9], [10], [11, 12, 13], [14]])


@pytest.fixture
def scorer(world) -> RewardScorer:
    return RewardScorer(new_reward(str(world.base), 0)[0])


@pytest.mark.parametrize("ties", ["half", "drop"])
@pytest.mark.parametrize("ranks", [(0, 1, 2, 3), (1, 0, 1, 2), (0, -1, 0, 1)])
def test_rankings(scorer: RewardScorer, ranks: tuple[int, ...], ties: str) -> None:
    with torch.no_grad():
        scores = scorer.raw(lay_out([GROUP])).tolist()
    # Beside a pair, so that the smaller one is padded.
    pair = Judged(Group([5], [[6], [7]]), "comparison", (1, 0), weight=3.0)
    found = losses(scorer, [pair, Judged(GROUP, "comparison", ranks)], RewardConfig(ties=ties))
    assert found[1].item() == pytest.approx(by_hand(scores, list(ranks), ties), abs=1e-5)
    with torch.no_grad():
        two = scorer.raw(lay_out([pair.group])).tolist()
    assert found[0].item() == pytest.approx(3 * by_hand(two, [1, 0]), abs=1e-5)


def test_other_judgments(scorer: RewardScorer) -> None:
    one, two = Group([5, 6], [[7, 8]]), Group([5], [[9], [3, 4]])
    with torch.no_grad():
        (a,), (b, c) = scorer.raw(lay_out([one])).tolist(), scorer.raw(lay_out([two])).tolist()
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    batch = [
        Judged(one, "rating", target=0.5),
        Judged(one, "thumb", target=1.0),
        Judged(one, "thumb", target=0.0, weight=2.0),
        Judged(two, "comparison", (0, 1), share=0.7),
        Judged(two, "comparison", (0, 1), strength=0.5),
    ]
    found = losses(scorer, batch, RewardConfig(margin=2.0)).tolist()
    want = [
        (a - 0.5) ** 2,
        -math.log(sigmoid(a)),
        -2 * math.log(1 - sigmoid(a)),
        -0.7 * math.log(sigmoid(b - c)) - 0.3 * math.log(sigmoid(c - b)),
        -math.log(sigmoid(b - c - 2 * 0.5)),
    ]
    assert found == pytest.approx(want, abs=1e-5)


def test_mean_pooling(world, tmp_path: Path) -> None:
    model, _ = new_reward(str(world.base), 0)
    model.config.hearken_pooling = "mean"
    scorer = RewardScorer(model)
    layout = lay_out([GROUP])
    with torch.no_grad():
        mine = scorer.raw(layout)
        for score, response in zip(mine, GROUP.responses, strict=True):
            hidden = scorer.hidden(lay_out([Group(GROUP.prompt, [response])]))
            assert score == pytest.approx(scorer.head(hidden)[3:, 0].mean().item(), abs=1e-5)
    out = train("reward", model=world.base, data=world.pairs, out=tmp_path / "rm", pooling="mean", **OFF).path
    assert RewardScorer(load_reward(str(out))).pooling == "mean", "the folder remembers"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kwise", "plackett_luce"])
def test_rankings_are_learned(world, tmp_path: Path, loss: str) -> None:
    options = OFF | {"epochs": 12, "lr": 1e-2, "loss": loss, "validation": world.rankings.with_name("held.jsonl")}
    rows = [json.loads(line) for line in world.rankings.read_text().splitlines()]
    write_rows(options["validation"], [row | {"prompt": row["prompt"] + " old"} for row in rows])
    artifact = train("reward", model=world.base, data=world.rankings, out=tmp_path / "rm", **options)
    found = artifact.metrics
    assert found["accuracy"] > 0.9 > 0.7 > found["length_accuracy"]
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]


def test_ratings_and_thumbs_are_learned(world, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(24):
        word = "happily" if i % 2 else "sadly"
        rows.append({"prompt": f"tell {i} the", "completion": f" fox sleeps {word}", "label": bool(i % 2)})
    thumbs = write_rows(tmp_path / "thumbs.jsonl", rows)
    rated = [
        {"prompt": r["prompt"], "completion": r["completion"], "ratings": {"overall": 5 if r["label"] else 1}}
        for r in rows
    ]
    ratings = write_rows(tmp_path / "ratings.jsonl", rated)
    for data in (thumbs, ratings):
        out = train("reward", model=world.base, data=data, out=tmp_path / data.stem, epochs=8, validation=0, **OFF).path
        good, bad = (transformers_score(out, "tell 99 the", f" fox sleeps {w}") for w in ("happily", "sadly"))
        assert good > bad + 0.5


def test_accuracy_counts_ordered_pairs(scorer: RewardScorer) -> None:
    with torch.no_grad():
        scores = scorer.raw(lay_out([GROUP])).tolist()
    order = sorted(range(4), key=lambda i: -scores[i])
    ranks = [0] * 4
    for place, i in enumerate(order):
        ranks[i] = min(place, 2)  # the last two are tied
    found = evaluate(scorer, [Judged(GROUP, "comparison", tuple(ranks), key="a")], 8192)
    assert found["accuracy"] == 1 and found["validation_pairs"] == 5
    reverse = tuple(3 - r for r in ranks)
    assert evaluate(scorer, [Judged(GROUP, "comparison", reverse, key="a")], 8192)["accuracy"] == 0
    assert better_pairs((0, -1, 0, 1)) == [(0, 3), (2, 3)]


def test_a_row_with_other_labels_is_refused(world, tmp_path: Path) -> None:
    from hearken.errors import UserError

    model = AutoModelForSequenceClassification.from_pretrained(world.base, num_labels=3)
    model.save_pretrained(tmp_path / "three")
    with pytest.raises(UserError, match="has 3 labels"):
        load_reward(str(tmp_path / "three"))


def test_skipped_validation(world) -> None:
    ready = load(Inputs(model=str(world.base), data=(str(world.pairs),)), RewardConfig(validation=0))
    assert ready.held_out == [] and evaluate(ready.scorer, [], 64) == {}


def attributed(tmp_path: Path) -> Path:
    """'happily' is helpful and not honest; whether it is about a fox is rated of every second response."""
    rows = []
    for i in range(24):
        for word, helpful in (("happily", 5), ("sadly", 1)):
            animal = "fox" if i % 2 else "bear"
            ratings = {"helpful": helpful, "honest": 6 - helpful} | ({"fox": 5 if i % 2 else 1} if i % 4 < 2 else {})
            rows.append({"prompt": f"tell {i} the", "completion": f" {animal} sings {word}", "ratings": ratings})
    return write_rows(tmp_path / "attributes.jsonl", rows)


def test_several_attributes_are_several_heads(world, tmp_path: Path) -> None:
    """Each head learns its own attribute; the score is their sum with the weights asked for, then with others."""
    wanted = {"helpful": 1.0, "fox": 0.5}
    made = train(
        "reward", model=world.base, data=attributed(tmp_path), out=tmp_path / "rm", weights=wanted,
        references=world.demonstrations, validation=0.25, **OFF | {"epochs": 10},
    )  # fmt: skip
    assert made.manifest["data"]["attributes"] == {"fox": 0.5, "helpful": 1.0, "honest": 0.0}
    assert all(made.metrics[f"correlation_{name}"] > 0.8 for name in ("helpful", "honest"))
    model, tok = AutoModelForSequenceClassification.from_pretrained(made.path), tokenizer()
    assert model.config.id2label == {0: "fox", 1: "helpful", 2: "honest"}
    prompt = tok("tell 1 the")["input_ids"]
    texts = [" fox sings happily", " fox sings sadly", " bear sings happily"]
    group = Group(prompt, [[*tok(t)["input_ids"], tok.eos_token_id] for t in texts])
    scorer = RewardScorer(load_reward(str(made.path)))
    with torch.no_grad():
        heads = torch.stack([model(torch.tensor([[*prompt, *r]])).logits[0] for r in group.responses])
        want = (heads @ torch.tensor([0.5, 1.0, 0.0])) * scorer.gain + scorer.bias
        scores = scorer(lay_out([group]))
        torch.testing.assert_close(scores, want, rtol=0, atol=1e-5)
        assert scores.argmax() == 0
        torch.testing.assert_close(scorer.heads(lay_out([group])), heads, rtol=0, atol=1e-5)
        scorer.weigh({"honest": 2.0})
        assert scorer(lay_out([group])).argmax() == 1
        means = model.config.hearken_attribute_means
        torch.testing.assert_close(scorer(lay_out([group])), 2 * (heads[:, 2] - means["honest"]), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="no attribute 'kind'"):
        scorer.weigh({"kind": 1.0})


def test_attribute_weights_are_checked_and_alike_by_default(world, tmp_path: Path) -> None:
    words = {"model": str(world.base), "data": (str(attributed(tmp_path)),)}
    assert load(Inputs(**words), RewardConfig()).facts["attributes"] == dict.fromkeys(
        ("fox", "helpful", "honest"), 1 / 3
    )
    for weights, message in (({"kind": 1}, "nobody rated 'kind'"), ({"fox": 0}, "every attribute has weight 0")):
        with pytest.raises(UserError, match=message):
            load(Inputs(**words), RewardConfig(weights=weights))
    with pytest.raises(UserError, match="these are no ratings"):
        load(Inputs(model=str(world.base), data=(str(world.pairs),)), RewardConfig(weights={"fox": 1}))


def test_comparisons_beside_attributes_train_the_combination(world, tmp_path: Path) -> None:
    rated, compared = str(attributed(tmp_path)), str(world.pairs)
    ready = load(Inputs(model=str(world.base), data=(rated, compared)), RewardConfig(weights={"helpful": 1}))
    pairs = [j for j in ready.data if j.kind == "comparison"][:4]
    losses(ready.scorer, pairs, RewardConfig()).sum().backward()
    grad = ready.scorer.output.weight.grad.norm(dim=1)
    assert grad[1] > 0 and grad[0] == grad[2] == 0, "the head of 'helpful' is the score"


def test_a_head_alone_is_the_optimum_that_scikit_learn_finds(world, tmp_path: Path) -> None:
    """Bradley–Terry with a ridge is a logistic regression on differences of transformers' own last hidden states."""
    linear = pytest.importorskip("sklearn.linear_model")
    base = write_base(tmp_path / "base", tokenizer())
    how: dict[str, Any] = {"trackers": "none", "precision": "fp32", "validation": 0.0, "pooling": "mean"}
    out = train("reward", model=base, data=world.pairs, out=tmp_path / "rm", head_only=True, ridge=0.5, **how).path
    tok = AutoTokenizer.from_pretrained(base)
    network = AutoModelForSequenceClassification.from_pretrained(out)
    before = AutoModelForCausalLM.from_pretrained(base)
    for name, weight in before.model.state_dict().items():
        assert torch.equal(network.model.state_dict()[name], weight), name

    def features(prompt: str, response: str) -> torch.Tensor:
        start, rest = tok(prompt)["input_ids"], [*tok(response)["input_ids"], tok.eos_token_id]
        with torch.no_grad():
            states = before.model(torch.tensor([[*start, *rest]])).last_hidden_state[0]
        return states[len(start) :].mean(0)

    rows = [json.loads(line) for line in Path(world.pairs).read_text("utf-8").splitlines()]
    both = torch.stack([torch.stack([features(r["prompt"], r[c]) for c in ("chosen", "rejected")]) for r in rows])
    scale = both.flatten(0, 1).std(0, correction=0)
    d = ((both[:, 0] - both[:, 1]) / scale).double().numpy()
    oracle = linear.LogisticRegression(C=1 / (0.5 * len(d)), fit_intercept=False, tol=1e-10, max_iter=10_000)
    oracle.fit([*d, *-d], [1] * len(d) + [0] * len(d), sample_weight=[0.5] * 2 * len(d))
    found = (network.score.weight[0] * scale).detach().double().numpy()
    assert found == pytest.approx(oracle.coef_[0], abs=2e-4)
    assert abs(oracle.coef_[0]).max() > 0.01


@pytest.mark.slow
def test_a_head_alone_chooses_its_ridge_by_folds_of_prompts_and_says_so(world, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", tokenizer())
    how: dict[str, Any] = {"trackers": "none", "validation": 0.0, "head_only": True}
    two = [train("reward", model=base, data=world.pairs, out=tmp_path / n, seed=3, **how) for n in ("a", "b")]
    tried = {k: v for k, v in two[0].metrics.items() if k.startswith("held_out_loss_")}
    assert len(tried) == 6
    assert f"held_out_loss_{two[0].metrics['ridge']:g}" == min(tried, key=lambda k: tried[k])
    weights = [AutoModelForSequenceClassification.from_pretrained(one.path).score.weight for one in two]
    assert torch.equal(*weights)  # nothing is drawn but the folds


@pytest.mark.parametrize("other", [{"lora": 4}, {"by": "group"}])
def test_a_head_alone_refuses_what_would_be_ignored(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="head_only"):
        RewardConfig(head_only=True, **other)
    with pytest.raises(UserError, match="ridge"):
        RewardConfig(ridge=1.0)


def test_a_head_alone_refuses_one_prompt_and_a_head_of_two_layers(world, tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "tell 1 the", "chosen": " fox sleeps", "rejected": " owl"}\n', "utf-8")
    how: dict[str, Any] = {"trackers": "none", "validation": 0.0, "head_only": True}
    base = write_base(tmp_path / "base", tokenizer())
    with pytest.raises(UserError, match="single prompt"):
        train("reward", model=base, data=one, out=tmp_path / "a", **how)
    assert train("reward", model=base, data=one, out=tmp_path / "b", ridge=1.0, **how).metrics["ridge"] == 1
    with pytest.raises(UserError, match="several layers"):
        train("reward", model=write_seq2seq(tmp_path / "t5", "t5"), data=one, out=tmp_path / "c", ridge=1.0, **how)
