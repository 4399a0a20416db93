"""Models that answer an AI labeler's questions: behind any OpenAI-compatible server, or loaded here by transformers."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.models.gguf import gguf_file, plain
from hearken.training.artifact import hash_files

CHOICE_TOKENS = 4
"""Most tokens of an answer that is one letter."""
_READ = (".json", ".jinja", ".model", ".txt", ".safetensors", ".bin")
_OURS = ("manifest.json", "card.json")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge said.

    Attributes:
        text: its words.
        choices: log-probability of each of the tokens that could have come first, where the judge tells; stripped.
        prompt_tokens, completion_tokens: as counted by the judge; 0 where it does not say, or the reply was cached.
    """

    text: str
    choices: dict[str, float] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Judge(Protocol):
    """Answers a dialogue."""

    @property
    def name(self) -> str:
        """Of the model, for people."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from every judge that might answer otherwise."""
        ...

    def ask(self, dialogue: Sequence[Message], max_tokens: int) -> Reply:
        """The reply to a dialogue; called from several threads at once."""
        ...

    def choose(self, dialogue: Sequence[Message], options: Sequence[str]) -> Reply:
        """A reply that is one of ``options``, with their log-probabilities where the judge tells them."""
        ...


class ServerJudge:
    """A model behind an OpenAI-compatible server (vLLM, llama.cpp, a hosted one).

    Requests that fail for the moment (429, 5xx, time-outs) are made again, later and later, as the server asks; the
    pace is kept below ``per_minute``.

    Args:
        url: up to and with ``/v1``.
        model: as the server calls it.
        key: sent as a bearer token; taken from the environment, never stored.
        timeout: seconds a request may take.
        retries: tries after the first.
        per_minute: most requests a minute; 0 for no limit.
        wait: sleeps; tests pass their own.
    """

    def __init__(
        self, url: str, model: str, key: str = "", *, timeout: float = 60.0, retries: int = 5, per_minute: float = 0.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.url, self.model, self.key = url.rstrip("/"), model, key
        self.timeout, self.retries, self.per_minute, self.wait = timeout, retries, per_minute, wait
        self._next = 0.0
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model

    @property
    def identity(self) -> str:
        """The server's address and the model's name there."""
        return f"{self.url} {self.model}"

    def ask(self, dialogue: Sequence[Message], max_tokens: int) -> Reply:
        """The reply to a dialogue."""
        return self._reply({"max_tokens": max_tokens}, dialogue)

    def choose(self, dialogue: Sequence[Message], options: Sequence[str]) -> Reply:
        """A reply of a few tokens, with the first one's log-probabilities where the server tells them."""
        return self._reply({"max_tokens": CHOICE_TOKENS, "logprobs": True, "top_logprobs": 20}, dialogue)

    def _reply(self, request: dict[str, Any], dialogue: Sequence[Message]) -> Reply:
        messages = [{"role": m.role, "content": m.content} for m in dialogue]
        answer = self._post(request | {"model": self.model, "temperature": 0.0, "messages": messages})
        try:
            choice = answer["choices"][0]
            text = str(choice["message"]["content"] or "")
            first = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs") or []
            usage = answer.get("usage") or {}
            return Reply(
                text, best_of_each((str(t["token"]), float(t["logprob"])) for t in first) or None,
                int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0),
            )  # fmt: skip
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise UserError(
                f"{self.url} does not answer like an OpenAI-compatible server: {json.dumps(answer)[:120]}",
                "Check the base URL; it usually ends in /v1",
            ) from None

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        trouble = ""
        for attempt in range(self.retries + 1):
            self._pace()
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                trouble = f"HTTP {error.code}: {error.read()[:200].decode('utf-8', 'replace')}"
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    hint = "Check the key (OPENAI_API_KEY)" if error.code in (401, 403) else "Check model and base URL"
                    raise UserError(f"{self.url} refuses ({trouble})", hint) from None
                pause = _seconds(error.headers.get("Retry-After"))
            except (urllib.error.URLError, TimeoutError, ConnectionError, json.JSONDecodeError) as error:
                trouble, pause = str(getattr(error, "reason", error)), None
            if attempt < self.retries:
                self.wait(min(2.0**attempt, 60.0) if pause is None else pause)
        raise UserError(
            f"{self.url} did not answer in {self.retries + 1} tries ({trouble})",
            "Is it running? What was judged so far is kept: run the same command again",
        )

    def _pace(self) -> None:
        if not self.per_minute:
            return
        with self._lock:
            now = time.monotonic()
            at = max(self._next, now)
            self._next = at + 60.0 / self.per_minute
        if at > now:
            self.wait(at - now)


class LocalJudge:
    """A transformers model in this process: a folder or a Hub name.

    A choice is not sampled: the options' own log-probabilities after the question are compared.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        from hearken.domains.base import find_domain
        from hearken.training.options import TextOptions

        self._name = name
        options = TextOptions(long_prompts="truncate")
        self.policy = find_domain("text").language_model(name, text=options, device=device)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Of the model."""
        return Path(self._name).name

    @cached_property
    def identity(self) -> str:
        """A hash of a folder's weights, configuration and tokenizer; of a Hub model, its name and commit."""
        folder = Path(plain(self._name))
        if not folder.is_dir():
            return f"{self._name}@{getattr(self.policy.scorer.model.config, '_commit_hash', None)}"
        files = sorted(p for p in folder.iterdir() if p.suffix in _READ and p.name not in _OURS)
        return str(hash_files(tuple(map(str, files))))

    def ask(self, dialogue: Sequence[Message], max_tokens: int) -> Reply:
        """The model's most likely reply."""
        from hearken.rollout.sampler import SamplingParameters

        room = self.policy.encoder.max_length // 2
        how = SamplingParameters(max_new_tokens=min(max_tokens, room), temperature=0.0)
        encoder, said = self.policy.encoder, tuple(dialogue)
        asked = encoder.prompt(said) or []
        with self._lock:
            (one,) = self.policy.sampler().sample([asked or [encoder.eos]], 1, how, [0])
        text = encoder.decode(one.tokens, said)
        return Reply(text, prompt_tokens=len(asked), completion_tokens=len(one.tokens))

    def choose(self, dialogue: Sequence[Message], options: Sequence[str]) -> Reply:
        """The likeliest option, with the log-probabilities of all."""
        import torch

        from hearken.models.layout import Group, lay_out

        encoder, scorer = self.policy.encoder, self.policy.scorer
        prompt = encoder.prompt(tuple(dialogue)) or [encoder.eos]
        group = Group(prompt, [encoder.response(tuple(dialogue), o, 8, finished=False) for o in options])
        with self._lock, torch.no_grad():
            found = scorer(lay_out([group], scorer.device)).logprobs.sum(-1).tolist()
        choices = dict(zip(options, found, strict=True))
        best = max(choices, key=lambda o: choices[o])
        written = len(group.responses[list(options).index(best)])
        return Reply(best, choices, prompt_tokens=len(prompt), completion_tokens=written)


class CachedJudge:
    """Remembers replies in a folder, by what was asked of whom: an interrupted or repeated run asks nothing twice.

    Each reply is kept with what it took (see `spent`).

    Args:
        judge: who answers.
        folder: of the replies.
        price_in: of a million tokens read.
        price_out: of a million tokens written.
    """

    def __init__(self, judge: Judge, folder: Path, price_in: float = 0.0, price_out: float = 0.0) -> None:
        self.judge, self.folder, self.price_in, self.price_out = judge, folder, price_in, price_out

    @property
    def name(self) -> str:
        """Of the model."""
        return self.judge.name

    @property
    def identity(self) -> str:
        """The judge's own."""
        return self.judge.identity

    def ask(self, dialogue: Sequence[Message], max_tokens: int) -> Reply:
        """The reply to a dialogue."""
        return self._known(dialogue, ["ask", max_tokens], lambda: self.judge.ask(dialogue, max_tokens))

    def choose(self, dialogue: Sequence[Message], options: Sequence[str]) -> Reply:
        """A reply that is one of ``options``."""
        return self._known(dialogue, ["choose", *options], lambda: self.judge.choose(dialogue, options))

    def _known(self, dialogue: Sequence[Message], how: list[Any], make: Callable[[], Reply]) -> Reply:
        words = [self.identity, how, [list(m.to_row().values()) for m in dialogue]]
        path = self.folder / f"{hashlib.sha256(json.dumps(words).encode()).hexdigest()}.json"
        if path.is_file():
            kept = json.loads(path.read_text("utf-8"))
            return Reply(kept["text"], kept["choices"])
        reply = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        price = (reply.prompt_tokens * self.price_in + reply.completion_tokens * self.price_out) / 1e6
        partial.write_text(json.dumps(asdict(reply) | {"price": price}), "utf-8")
        os.replace(partial, path)
        return reply


@dataclass(frozen=True)
class Spent:
    """What the replies of a `CachedJudge` took."""

    requests: int = 0
    prompt_tokens: int = 0
    """As the server counted them; a model in this process counts none."""
    completion_tokens: int = 0
    price: float = 0.0
    """In the currency of the prices that held when they were asked for; 0 where none were given."""


def spent(folder: Path) -> Spent:
    """The sum over the replies kept in a folder, each of which was asked for once."""
    kept = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    tokens_in, tokens_out, price = (
        sum(one.get(key, 0) for one in kept) for key in ("prompt_tokens", "completion_tokens", "price")
    )
    return Spent(len(kept), tokens_in, tokens_out, price)


def open_judge(model: str, url: str = "", *, per_minute: float = 0.0, device: str = "auto") -> Judge:
    """The judge that ``--judge`` names: behind a server where a base URL is given or set, else loaded here.

    The URL may stand in ``HEARKEN_JUDGE_URL`` or ``OPENAI_BASE_URL``, the key in ``OPENAI_API_KEY``.

    Raises:
        UserError: no model is named.
    """
    if not model:
        raise UserError("no judge is named", "Add --judge MODEL (a folder, a Hub name, or the server's model)")
    if ((Path(model) / "config.json").is_file() or gguf_file(model)) and not url:
        return LocalJudge(model, device)
    url = url or os.environ.get("HEARKEN_JUDGE_URL", "") or os.environ.get("OPENAI_BASE_URL", "")
    if url:
        return ServerJudge(url, model, os.environ.get("OPENAI_API_KEY", ""), per_minute=per_minute)
    return LocalJudge(model, device)


def best_of_each(tokens: Any) -> dict[str, float]:
    """(token, log-probability) pairs with tokens that differ only in spaces added up: " A" and "A" are one answer."""
    found: dict[str, float] = {}
    for token, logprob in tokens:
        word = token.strip()
        if word:
            old = found.get(word, -math.inf)
            high = max(old, logprob)
            found[word] = high + math.log(math.exp(old - high) + math.exp(logprob - high))
    return found


def _seconds(text: str | None) -> float | None:
    try:
        return min(max(float(text), 0.0), 600.0) if text else None
    except ValueError:
        return None
