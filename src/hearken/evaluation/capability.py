"""Has a policy forgotten what it could do? Perplexity of held-out text, and tasks in the manner of lm-eval.

A task is a small YAML file beside its data, with the keys that EleutherAI's lm-evaluation-harness gives them, so that
simple files of either work in both::

    task: capitals
    dataset_path: capitals.jsonl        # rows such as {"country": "France", "choices": ["Paris", "Rome"], "answer": 0}
    output_type: multiple_choice        # or generate_until, loglikelihood
    doc_to_text: "The capital of {{country}} is"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{answer}}"
"""

from __future__ import annotations

import ast
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from hearken.config import Options, read_yaml
from hearken.domains.base import Domain, find_domain
from hearken.domains.best_of import asked_of, label_of
from hearken.errors import UserError
from hearken.evaluation.results import EvaluationResult, Perplexity, PolicyResult, TaskScores
from hearken.feedback.examples import Document
from hearken.feedback.formats import read_as
from hearken.feedback.reading import ReadingOptions
from hearken.progress import progress
from hearken.statistics.intervals import clustered_wilson

if TYPE_CHECKING:
    from hearken.domains.text.loading import TextPolicy

MetricName = Literal["acc", "acc_norm", "exact_match", "perplexity"]
TOKENS = 8192

Row = dict[str, object]
"""Of a task's data: what its file says."""
Render = Callable[[str, Row], str]
"""(template, row) to text."""
OutputType = Literal["multiple_choice", "generate_until", "loglikelihood"]


class Generation(Options):
    """How answers are generated: greedily unless a temperature is given."""

    until: list[str] = ["\n\n"]
    """The answer ends where one of these begins."""
    max_gen_toks: int = Field(64, ge=1)
    """Most tokens of an answer."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the likeliest token."""
    do_sample: bool = False
    """Read for the harness's sake; the temperature decides."""

    @field_validator("until", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Metric(Options):
    """A name of the metric list; what else the harness says of it is read and needs nothing here."""

    metric: MetricName
    aggregation: str = "mean"
    higher_is_better: bool = True
    ignore_case: bool = False
    ignore_punctuation: bool = False


class Task(Options):
    """A task file. Templates are Jinja, over the columns of a row."""

    task: str = ""
    """Its name; the file's without one."""
    dataset_path: str = ""
    """JSONL file of the rows, beside the task file; ``json`` takes dataset_kwargs.data_files, as in the harness."""
    dataset_kwargs: dict[str, object] = {}
    """``data_files``: see above."""
    output_type: OutputType = "multiple_choice"
    """Choose the likeliest answer, generate one, or measure how likely the right one is."""
    doc_to_text: str
    """What the model reads."""
    doc_to_target: str | int
    """The right answer: its text, or the number of the choice."""
    doc_to_choice: str | list[str] | None = None
    """The choices: a template that gives a list, a list of templates, or the name of a column."""
    target_delimiter: str = " "
    """Between the text and an answer."""
    num_fewshot: int = Field(0, ge=0)
    """Solved examples before each question, drawn from the other rows."""
    fewshot_delimiter: str = "\n\n"
    """Between them."""
    generation_kwargs: Generation = Generation()
    """For generate_until."""
    metric_list: list[Metric] = []
    """Which figures to give; by default those of the output type."""
    limit: int | None = Field(None, ge=1)
    """Only so many rows."""
    # Of the harness, and of no consequence here:
    tag: object = None
    group: object = None
    dataset_name: object = None
    test_split: object = None
    validation_split: object = None
    training_split: object = None
    fewshot_split: object = None
    repeats: object = None
    should_decontaminate: object = None
    metadata: object = None


@dataclass(frozen=True)
class Question:
    """A row, rendered."""

    text: str
    choices: tuple[str, ...]
    """For generate_until the one right answer."""
    answer: int


@dataclass(frozen=True)
class Loaded:
    """A task and its questions."""

    name: str
    task: Task
    questions: tuple[Question, ...]


def load_task(path: str | Path, seed: int = 0) -> Loaded:
    """Read a task file and its rows, and render every question.

    Args:
        path: the YAML file.
        seed: draws the solved examples.

    Raises:
        UserError: what is wrong, in which file or row.
    """
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    path = Path(path)
    task = Task.parse(read_yaml(path), where=str(path))
    rows = _rows(path, task)[: task.limit]
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)

    def render(template: str, row: Row) -> str:
        if template in row and "{{" not in template:
            value = row[template]
            return value if isinstance(value, str) else json.dumps(value)
        return str(environment.from_string(template).render(row))

    solved: list[tuple[str, Question]] = []
    for number, row in enumerate(rows, 1):
        try:
            question = _question(task, row, render)
        except TemplateError as error:
            raise UserError(f"{path}: row {number}: {error}", f"Its columns are: {', '.join(row)}") from None
        except UserError as error:
            raise UserError(f"{path}: row {number}: {error.what}", error.hint) from None
        solved.append((question.text + task.target_delimiter + question.choices[question.answer], question))
    if task.num_fewshot >= len(solved):
        raise UserError(f"{path}: {task.num_fewshot} solved examples of {len(solved)} rows", "Lower num_fewshot")
    questions = []
    for number, (_, question) in enumerate(solved):
        others = [shown for i, (shown, _) in enumerate(solved) if i != number]
        drawn = random.Random(f"{seed}:{number}").sample(others, task.num_fewshot)
        text = task.fewshot_delimiter.join([*drawn, question.text])
        questions.append(Question(text, question.choices, question.answer))
    return Loaded(task.task or path.stem, task, tuple(questions))


def _rows(path: Path, task: Task) -> list[Row]:
    named = task.dataset_path
    if named in ("", "json"):
        files = task.dataset_kwargs.get("data_files", "")
        named = str(next(iter(files.values())) if isinstance(files, dict) and files else files or "")
    if not named:
        raise UserError(f"{path} names no data", "Set dataset_path to a JSONL file beside it")
    file = path.parent / named
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot read {file} ({error.strerror})", "dataset_path is a JSONL file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSONL: {error.msg}", "One JSON object a line") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file} has no rows" if not rows else f"{file}: a row is no object", "One JSON object a line")
    return rows


def _question(task: Task, row: Row, render: Render) -> Question:
    text, target = render(task.doc_to_text, row), task.doc_to_target
    said = str(target) if isinstance(target, int) else render(target, row)
    if task.output_type != "multiple_choice":
        return Question(text, (said,), 0)
    choices = _choices(task, row, render)
    if said in choices:
        return Question(text, choices, choices.index(said))
    if said.strip().isdecimal() and int(said) < len(choices):
        return Question(text, choices, int(said))
    raise UserError(
        f"the answer '{said}' is none of the choices {list(choices)}", "doc_to_target is a choice or its number"
    )


def _choices(task: Task, row: Row, render: Render) -> tuple[str, ...]:
    given = task.doc_to_choice
    if given is None:
        raise UserError("a multiple-choice task needs doc_to_choice", "Name the column, or write a list")
    if isinstance(given, list):
        found: object = [render(one, row) for one in given]
    elif isinstance(row.get(given), list):
        found = row[given]
    else:
        said = render(given, row)
        try:
            found = ast.literal_eval(said)
        except (ValueError, SyntaxError):
            raise UserError(f"doc_to_choice gives no list: {said[:60]}", "For example: '{{choices}}'") from None
    if not isinstance(found, list | tuple) or len(found) < 2:
        raise UserError("doc_to_choice gives fewer than two choices", "Give at least two")
    return tuple(str(one) for one in found)


# -- running ---------------------------------------------------------------------------------------------------------


def run_tasks(policy: str, tasks: Sequence[Loaded], domain: Domain | None = None) -> dict[str, TaskScores]:
    """Figures of a policy on tasks, by their names.

    ``acc``: the likeliest choice is right; ``acc_norm``: likeliest for each character (as in the harness);
    ``exact_match``: the generated answer, stripped, is the right one; ``perplexity``: of the right answer's tokens.

    Args:
        policy: a folder or Hub name.
        tasks: from `load_task`.
        domain: of the policy; text unless said otherwise.

    Raises:
        UserError: the policy is no language model.
    """
    opened = (domain or find_domain("text")).language_model(policy)
    found = {}
    for loaded in tasks:
        with progress(f"Task {loaded.name}", len(loaded.questions), "question") as bar:
            if loaded.task.output_type == "generate_until":
                figures = _generate(opened, loaded)
            else:
                figures = _rank(opened, loaded)
            bar.advance(len(loaded.questions))
        wanted = {m.metric for m in loaded.task.metric_list} or set(get_args(MetricName))
        found[loaded.name] = figures.but(**dict.fromkeys(set(get_args(MetricName)) - wanted))
    return found


def _rank(policy: TextPolicy, loaded: Loaded) -> TaskScores:
    """Sum of the log-probabilities of each choice after the question."""
    from hearken.models.layout import Group
    from hearken.training.forward import gather

    groups, owner = [], []
    for number, question in enumerate(loaded.questions):
        for choice in question.choices:
            context, answer = encode(policy, question.text, loaded.task.target_delimiter + choice)
            groups.append(Group(context, [answer]))
            owner.append(number)
    logprobs = gather(
        lambda layout: policy.scorer(layout).logprobs, groups, TOKENS, policy.scorer, "Capability"
    ).double()
    totals = logprobs.sum(1).cpu().numpy()
    right, normed, nats, tokens = [], [], 0.0, 0
    start = 0
    for question in loaded.questions:
        mine = totals[start : start + len(question.choices)]
        lengths = np.array([max(len(choice), 1) for choice in question.choices])
        right.append(float(int(np.argmax(mine)) == question.answer))
        normed.append(float(int(np.argmax(mine / lengths)) == question.answer))
        nats -= float(mine[question.answer])
        tokens += len(groups[start + question.answer].responses[0])
        start += len(question.choices)
    figures = TaskScores(perplexity=math.exp(min(nats / tokens, 700.0)), rows=len(loaded.questions))
    if loaded.task.output_type != "multiple_choice":
        return figures
    chance = sum(1 / len(q.choices) for q in loaded.questions) / len(loaded.questions)
    return figures.but(acc=clustered_wilson(right), acc_norm=clustered_wilson(normed), chance=chance)


def encode(policy: TextPolicy, text: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of a question and of the answer that follows it, cut at the front where both do not fit.

    Text and answer are tokenized together, and the answer is what is left of it behind the text's own tokens; spaces at
    the end of the text belong to the answer.

    Raises:
        UserError: the answer alone fills the context.
    """
    kept = text.rstrip(" ")
    answer = text[len(kept) :] + answer
    tokenizer, limit = policy.tokenizer, policy.encoder.max_length

    def ids(words: str) -> list[int]:
        found: list[int] = tokenizer(words, add_special_tokens=True, verbose=False)["input_ids"]
        return found[:-1] if found and found[-1] == policy.encoder.eos else found

    whole, context = ids(kept + answer), ids(kept)
    if not context:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else policy.encoder.eos
        context, whole = [start], [start, *whole]
    if len(whole) <= len(context):
        context, whole = whole[:-1] or context[:1], whole
    rest = whole[len(context) :]
    if len(rest) >= limit:
        raise UserError(f"an answer of {len(rest)} tokens leaves no room for its question", "Shorten the answers")
    return policy.encoder.cut(context, limit - len(rest)), rest


def _generate(policy: TextPolicy, loaded: Loaded) -> TaskScores:
    from hearken.rollout.sampler import SamplingParameters

    how = loaded.task.generation_kwargs
    room = policy.encoder.max_length - how.max_gen_toks
    if room < 1:
        raise UserError(f"max_gen_toks {how.max_gen_toks} fills the model's context", "Lower it")
    prompts = [policy.encoder.cut(encode(policy, q.text, " ")[0], room) for q in loaded.questions]
    parameters = SamplingParameters(max_new_tokens=how.max_gen_toks, temperature=how.temperature)
    answers = policy.sampler().sample(prompts, 1, parameters, range(len(prompts)))
    right = []
    for question, sample in zip(loaded.questions, answers, strict=True):
        said = policy.encoder.decode(sample.tokens)
        for end in how.until:
            said = said.partition(end)[0] if end else said
        right.append(float(said.strip() == question.choices[0].strip()))
    return TaskScores(exact_match=clustered_wilson(right), rows=len(right))


def texts_of(files: Sequence[str], reading: ReadingOptions | None = None) -> dict[str, list[str]]:
    """The documents of files of plain text, or of rows with a text column, by the file's name.

    Args:
        files: what to read.
        reading: how; their layout is told by their columns.

    Raises:
        UserError: a file without text.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        rows, _ = read_as(file, reading or ReadingOptions(), format="auto")
        name = file if Path(file).name in found else Path(file).name
        found[name] = [row.text for row in rows if isinstance(row, Document)]
        if not found[name]:
            raise UserError(f"{file} holds no plain text", "Give a .txt file, or rows with a text column")
    return found


def perplexities(
    policy: str, texts: Mapping[str, Sequence[str]], domain: Domain | None = None
) -> dict[str, Perplexity]:
    """Perplexities of texts by name.

    Args:
        policy: a folder or Hub name.
        texts: see `texts_of`.
        domain: as `run_tasks` takes it.
    """
    found, kind = {}, domain or find_domain("text")
    for name, documents in texts.items():
        nats, tokens = kind.nll(policy, documents)
        size = sum(len(text.encode()) for text in documents)
        found[name] = Perplexity(token=math.exp(nats / tokens), byte=math.exp(nats / size))
    return found


def with_capability(
    found: EvaluationResult, names: Sequence[str], texts: Mapping[str, Sequence[str]], tasks: Sequence[Loaded]
) -> EvaluationResult:
    """With perplexity and task scores of each policy; the best of n has none of its own."""
    policies = dict(found.policies)
    for name in dict.fromkeys(names):
        if asked_of(name).many == 1:
            policies[label_of(name)] = tried(policies[label_of(name)], name, texts, tasks, find_domain(found.domain))
    return found.but(policies=policies)


def tried(
    policy: PolicyResult, name: str, texts: Mapping[str, Sequence[str]], tasks: Sequence[Loaded], domain: Domain
) -> PolicyResult:
    """With perplexities of texts and scores on tasks, as far as there are any."""
    if texts:
        found = perplexities(name, texts, domain)
        policy = policy.but(perplexities=found, perplexity=next(iter(found.values())).token)
    return policy.but(tasks=run_tasks(name, tasks, domain)) if tasks else policy
