"""A reward model with a head for each group of labelers: what it is exactly, and that a minority is heard."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import sentence, write_rows
from transformers import AutoModelForSequenceClassification

from hearken.algorithms.reward import Offsets, prior
from hearken.algorithms.reward_losses import losses
from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.reward_rows import tastes
from hearken.algorithms.reward_setup import load
from hearken.algorithms.stage import Inputs, train
from hearken.domains.text.data import Judged
from hearken.domains.text.loading import open_policy
from hearken.domains.text.rewarding import WorstGroup, WorstOff, confidence_of, open_reward
from hearken.errors import UserError
from hearken.feedback.examples import Comparison
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_reward, new_reward
from hearken.models.scorers import RewardScorer
from hearken.rewards.confidence import Confidence, last_layer
from hearken.rewards.learned import LearnedReward
from hearken.training.options import TextOptions, TrainingOptions

OFF: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 3e-3, "batch_size": 8}


def two_tastes(path: Path, prompts: range, minority: int = 4) -> Path:
    """Both groups like "home"; three in four judgments are of those who want it happy, the others want it sad."""
    r = random.Random(prompts.start)
    rows = []
    for i in prompts:
        group = "quest" if i % minority == 0 else "hearth"
        text = sentence(r, 2, 4)
        happy, sad = f" {text} happily", f" {text} sadly"
        best, worst = (happy, sad) if group == "hearth" else (sad, happy)
        rows.append({"prompt": f"tell {i} the", "chosen": best, "rejected": worst, "group": group})
        rows.append({"prompt": f"tell {i} the", "chosen": f" {text} home", "rejected": f" {text} a", "group": group})
    return write_rows(path, rows)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("groups")
    data = two_tastes(folder / "tastes.jsonl", range(80))
    how = OFF | {"validation": two_tastes(folder / "held-out.jsonl", range(100, 140)), "epochs": 4}
    return {
        "data": data,
        "apart": train("reward", model=world.base, data=data, out=folder / "apart", by="group", **how),
        "average": train("reward", model=world.base, data=data, out=folder / "average", **how),
    }


@pytest.mark.slow
def test_a_minority_is_heard_where_the_average_silences_it(made: dict[str, Any]) -> None:
    apart, average = made["apart"].metrics, made["average"].metrics
    # Who goes by the majority is right on both of its pairs, and on one of the minority's two: 87.5 %.
    assert average["accuracy"] < 0.9 and apart["own_accuracy"] > 0.95
    assert apart["accuracy"] < apart["own_accuracy"], "the mixture is an average too"
    weights = made["apart"].manifest["data"]["attributes"]
    assert weights == pytest.approx({"hearth": 0.75, "quest": 0.25})


def test_the_folder_is_a_classifier_with_a_label_for_each_group(made: dict[str, Any]) -> None:
    path = str(made["apart"].path)
    model = AutoModelForSequenceClassification.from_pretrained(path)
    assert model.config.id2label == {0: "hearth", 1: "quest"} and model.score.weight.shape[0] == 2
    scorer = RewardScorer(load_reward(path))
    group = Group([5, 6], [[7, 8, 1], [9, 1]])
    with torch.no_grad():
        logits = torch.stack([model(torch.tensor([[*group.prompt, *r]])).logits[0] for r in group.responses])
        torch.testing.assert_close(scorer.heads(lay_out([group])), logits, rtol=0, atol=1e-5)
        both = logits @ torch.tensor(list(model.config.hearken_attribute_weights.values()))
        torch.testing.assert_close(scorer(lay_out([group])), both * scorer.gain + scorer.bias, rtol=0, atol=1e-5)


def test_each_judgment_trains_its_own_head_and_a_stranger_all(made: dict[str, Any], world) -> None:
    model, _ = new_reward(str(world.base), 0, attributes={"hearth": 0.6, "quest": 0.4}, by="group")
    scorer = RewardScorer(model)
    assert torch.equal(scorer.output.weight[0], scorer.output.weight[1]), "they begin as one"
    with torch.no_grad():
        scorer.output.weight[1] += 0.3 * torch.randn(scorer.output.weight.shape[1])
    group = Group([5, 6], [[7, 8, 1], [9, 1]])
    with torch.no_grad():
        heads = scorer.heads(lay_out([group]))
    batch = [Judged(group, "comparison", (0, 1), who=who) for who in ("hearth", "quest", None, "elsewhere")]
    found = losses(scorer, batch, RewardConfig())
    mixed = heads @ torch.tensor([0.6, 0.4])
    for loss, scores in zip(found, (heads[:, 0], heads[:, 1], mixed, mixed), strict=True):
        assert loss.item() == pytest.approx(-torch.log(torch.sigmoid(scores[0] - scores[1])).item(), abs=1e-5)
    found[0].backward()
    grad = scorer.output.weight.grad
    assert grad[0].norm() > 0 and grad[1].norm() == 0


def test_the_prior_is_on_what_heads_do_not_share(world) -> None:
    model, _ = new_reward(str(world.base), 0, attributes={"hearth": 0.5, "quest": 0.5}, by="group")
    scorer = RewardScorer(model)
    torch.nn.utils.parametrize.register_parametrization(scorer.output, "weight", Offsets())
    assert prior(scorer, 1.0).item() == 0
    offsets = scorer.output.parametrizations.weight.original1
    with torch.no_grad():
        offsets[0, 0], offsets[1, 0] = 0.5, -0.5
    assert prior(scorer, 2.0).item() == pytest.approx(0.5 * 2.0 * (offsets.shape[1] + 1) * 0.5)


def test_shrunk_to_nothing_the_heads_are_one(made: dict[str, Any], world, tmp_path: Path) -> None:
    out = train(
        "reward", model=world.base, data=made["data"], out=tmp_path / "rm", by="group", shrink=1e6, validation=0.0,
        **OFF,
    )  # fmt: skip
    weight = load_reward(str(out.path)).score.weight
    apart = load_reward(str(made["apart"].path)).score.weight
    assert (weight[0] - weight[1]).norm() < 0.05 * (apart[0] - apart[1]).norm()


def test_a_policy_is_rewarded_by_a_group_a_mixture_or_the_worst_off(made: dict[str, Any], world) -> None:
    path = str(made["apart"].path)
    policy = open_policy(str(world.base), TrainingOptions(), TextOptions())
    groups = [Group([5, 6], [[7, 8, 1], [9, 1]]), Group([3], [[4, 1]])]

    def scores(text: str, combine: str = "sum") -> torch.Tensor:
        class Options(TextOptions):
            tokens: int = 64
            trust_reward: bool = True
            pessimism: float = 0.0
            width: str = "linear"

        options = Options()
        object.__setattr__(options, "combine", combine)
        return open_reward(text, policy, {}, options)(groups)

    hearth, quest = scores(f"{path}#hearth"), scores(f"{path}#quest")
    assert not torch.allclose(hearth, quest)
    mixture = scores(f"{path}#hearth*0.7,{path}#quest*0.3")
    torch.testing.assert_close(mixture, 0.7 * hearth + 0.3 * quest, rtol=0, atol=1e-5)
    for text in (path, f"{path}#hearth,{path}#quest"):
        torch.testing.assert_close(scores(text, "min"), hearth.minimum(quest), rtol=0, atol=1e-5)
    worse = hearth if hearth.mean() < quest.mean() else quest
    torch.testing.assert_close(scores(path, "worst_group"), worse, rtol=0, atol=1e-5)


def test_a_head_is_as_sure_as_its_own_group_makes_it(made: dict[str, Any]) -> None:
    """Of 160 comparisons 40 are of quest: its head is half as sure as all together, and each has its own file."""
    path = made["apart"].path

    def confidence(*heads: str) -> tuple[Confidence, torch.Tensor]:
        reward = LearnedReward(RewardScorer(load_reward(str(path))), 64)
        if heads:
            reward.scorer.weigh(dict.fromkeys(heads, 1.0))
        found = confidence_of(str(path), reward, tuple((head, 1.0) for head in heads))
        return found, last_layer(reward, [Group([5, i], [[7, 8, i, 1], [9, 1]]) for i in range(3, 10)])

    (whole, features), (quest, _), (hearth, _) = confidence(), confidence("quest"), confidence("hearth")
    assert len(list(path.glob("confidence*.safetensors"))) == 3
    for one, of in ((quest, 40), (hearth, 120)):
        ratio = (one.linear(features) / whole.linear(features)).median().item()
        assert ratio == pytest.approx((160 / of) ** 0.5, rel=0.3)
    assert (quest.linear(features).mean() > 1.3 * hearth.linear(features).mean()).item()
    again, _ = confidence("quest")
    assert torch.equal(again.root, quest.root) and not torch.equal(again.heads, hearth.heads)


def test_the_worst_group_is_worst_in_the_mean() -> None:
    parts = [(lambda groups: torch.tensor([3.0, -1.0]), 1.0), (lambda groups: torch.tensor([0.0, 0.5]), 1.0)]
    assert WorstGroup(parts)([]).tolist() == [0.0, 0.5]
    assert WorstOff(parts)([]).tolist() == [0.0, -1.0]
    assert WorstGroup([(parts[0][0], 0.1), (parts[1][0], 1.0)])([]).tolist() == pytest.approx([0.3, -0.1])


def test_what_cannot_be_told_apart_is_refused(made: dict[str, Any], world) -> None:
    inputs = Inputs(model=str(world.base), data=(str(made["data"]),))
    for options, message in (
        ({"by": "age"}, "by=age: the judgments are not of two groups"),
        ({"by": "group", "weights": {"village": 1}}, "no labeler has group=village"),
        ({"by": "group", "weights": {"quest": 0}}, "add up to nothing"),
    ):
        with pytest.raises(UserError, match=message):
            load(inputs, RewardConfig(**options))
    rows = [Comparison("p", ("a", "b"), (0, 1), metadata={"attributes": {"age": a}}) for a in ("old", "young", "old")]
    assert tastes(rows, "age", {}) == pytest.approx({"old": 2 / 3, "young": 1 / 3})
    assert tastes(rows, "age", {"young": 1.0}) == {"old": 0.0, "young": 1.0}
    scorer = RewardScorer(load_reward(str(made["apart"].path)))
    assert len(LearnedReward(scorer, 64)([Group([5], [[6, 1]])])) == 1
