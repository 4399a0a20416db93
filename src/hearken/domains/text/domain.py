"""Text: policies are language models, a response is a text. Torch is loaded by what needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hearken.domains.base import SCORES, Details, Domain, Drawn, Facts, Measured, Published, Scorer, mean
from hearken.domains.best_of import BestOf, best_of_name
from hearken.feedback.examples import Comparison, Content, Example
from hearken.feedback.media import MediaFolder
from hearken.feedback.records import ItemKind
from hearken.models import names
from hearken.models.gguf import gguf_file
from hearken.rewards.terms import parse_terms
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.intervals import Interval

if TYPE_CHECKING:
    from hearken.domains.text.loading import TextPolicy
    from hearken.domains.text.sampling import Sampled


class Text(Domain):
    """The first domain."""

    name = "text"
    kinds = get_args(ItemKind)
    offers = frozenset({"chat", "ai"})

    def recognises(self, model: str) -> bool:
        """Whether it is a folder of transformers or an adapter's, or a GGUF file."""
        return any((Path(model) / file).is_file() for file in names.CONFIGS) or gguf_file(model) is not None

    def check_model(self, name: str, flag: str = "--model") -> None:
        """See `models.names.check_model`."""
        names.check_model(name, flag)

    def check_reward(self, name: str) -> None:
        """See `models.names.check_reward`."""
        names.check_reward(name)

    def sample(
        self, policy: str, prompts: Sequence[Content], k: int, how: SamplingParameters, seed: int, files: MediaFolder,
        *, facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """See `sampling.sample`."""
        from hearken.domains.text.sampling import open_frozen, sample

        for part in sample(open_frozen(policy, reserve=how.max_new_tokens), prompts, k, how, seed):
            yield [drawn(one) for one in part]

    def best_of(
        self, policy: str, prompts: Sequence[Content], k: int, how: SamplingParameters, seed: int, files: MediaFolder,
        choice: BestOf, *, facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """See `sampling.best_of`."""
        from hearken.domains.text.sampling import best_of, open_frozen

        opened, known = open_frozen(policy, reserve=how.max_new_tokens), facts or {}
        for part in best_of(opened, prompts, k, choice, how, seed, [known.get(prompt, {}) for prompt in prompts]):
            yield [drawn(one) for one in part]

    def scorer(self, reward: str, files: MediaFolder, facts: Facts | None = None) -> Scorer:
        """A reward model's `measuring.Judge`, or several terms added up."""
        from hearken.domains.text.measuring import ByReward, Judge

        terms = parse_terms(reward)
        if len(terms) == 1 and terms[0].kind == "model" and terms[0].weight == 1 and not terms[0].attributes:
            return Judge(terms[0].name)
        return ByReward(reward, facts or {})

    def measure(
        self, policy: str, reference: str, prompts: Sequence[Content], how: SamplingParameters, seed: int,
        files: MediaFolder, *, choice: BestOf | None = None, facts: Facts | None = None,
    ) -> Measured:  # fmt: skip
        """KL, length, entropy and the share that ended by itself: see `measuring.measure`."""
        from hearken.domains.text.drift import entropy
        from hearken.domains.text.measuring import measure

        name = f"{best_of_name(choice.n, choice.pessimism, choice.width)}@{policy}" if choice else policy
        seen = measure(name, reference, prompts, how, seed, by=choice.reward if choice else None, metadata=facts)
        figures = {
            "kl": mean(seen.kl, prompts), "length": mean(seen.lengths, prompts),
            "eos_share": mean([float(ended) for ended in seen.finished], prompts),
        }  # fmt: skip
        if choice is None:
            figures["entropy"] = entropy(seen.entropy, seen.lengths, prompts)
        return Measured(tuple(seen.texts), tuple(seen.finished), figures, tuple(seen.kl))

    def compare(
        self, prompts: Sequence[Content], responses: Sequence[str], before: Sequence[str], files: MediaFolder
    ) -> dict[str, Any]:
        """How far its texts drifted from the baseline's: see `drift.drift`."""
        from hearken.domains.text.drift import drift

        moved = drift(prompts, responses, before)
        return {
            "distinct_1": moved.distinct_1[1], "distinct_2": moved.distinct_2[1], "distinct_3": moved.distinct_3[1],
            "self_bleu": moved.self_bleu[1], "repetition": moved.repetition[1], "length_drift": moved.length,
            "phrases": tuple(phrase._asdict() for phrase in moved.phrases),
        }  # fmt: skip

    def trained_on(self, reward: str) -> list[Example]:
        """See `rewarding.trained_on`."""
        from hearken.domains.text.rewarding import trained_on

        return trained_on(reward)

    def held_out_from(self, reward: str) -> list[Example]:
        """See `rewarding.held_out_from`."""
        from hearken.domains.text.rewarding import held_out_from

        return held_out_from(reward)

    def details(self, reward: str, scorer: Any, files: MediaFolder) -> Details:
        """Features of the last layer, bootstrapped heads, heads of groups."""
        from hearken.domains.text.details import TextDetails

        return TextDetails(reward, scorer)

    def published(self, folder: Path, name: str, *, reward: bool) -> Published:
        """A model of transformers, or an adapter of PEFT."""
        kind = "SequenceClassification" if reward else "CausalLM"
        score = "# score = logit * model.config.hearken_reward_gain + model.config.hearken_reward_bias\n"
        load = (
            f"```python\nfrom transformers import AutoModelFor{kind}, AutoTokenizer\n\n"
            f'model = AutoModelFor{kind}.from_pretrained("{name}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n{score if reward else ""}```\n'
        )
        library = "peft" if (folder / "adapter_config.json").exists() else "transformers"
        if reward:
            use = (
                "To rank or score responses to prompts like those it was fitted on, and to train policies under a KL "
                f"penalty. {SCORES}"
            )
            return Published(library=library, task="text-classification", on_hub=True, load=load, use=use)
        return Published(
            library=library, task="text-generation", on_hub=True, load=load,
            use="To answer prompts like those it was trained on, and to study learning from feedback.",
            limits=("It was not tested for safety or truth. It may say what is false or harmful.",),
        )  # fmt: skip

    def language_model(self, name: str, **more: Any) -> TextPolicy:
        """The policy itself: see `sampling.open_frozen`."""
        from hearken.domains.text.sampling import open_frozen

        return open_frozen(name, **more)

    def nll(self, policy: str, documents: Sequence[str]) -> tuple[float, int]:
        """See `measuring.text_nll`."""
        from hearken.domains.text.measuring import text_nll

        return text_nll(policy, documents)

    def likelihood_change(self, policy: str, reference: str, rows: Sequence[Comparison]) -> tuple[Interval, Interval]:
        """See `drift.likelihood_change`."""
        from hearken.domains.text.drift import likelihood_change

        return likelihood_change(policy, reference, rows)

    def talker(self, newest: Any) -> Any:
        """See `talk.Talker`."""
        from hearken.domains.text.talk import Talker

        return Talker(newest)


def drawn(one: Sampled) -> Drawn:
    """A sampled text as every domain has its responses."""
    metadata = {"tokenizer": one.tokenizer} if one.tokenizer else {}
    return Drawn(one.prompt, one.text, one.seed, one.number, one.finish_reason, tuple(one.tokens), metadata)


DOMAIN = Text()
