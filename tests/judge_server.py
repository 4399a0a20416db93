"""An OpenAI-compatible endpoint for tests: over a tiny model, or a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Answer = Callable[[dict[str, Any]], tuple[int, Any]]
"""A request's body to a status and a body (or raw bytes)."""


def reply(text: str, choices: dict[str, float] | None = None) -> dict[str, Any]:
    top = [{"token": token, "logprob": value} for token, value in (choices or {}).items()]
    logprobs = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]} if choices else None
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "logprobs": logprobs}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 1},
    }


def over(folder: Path) -> Answer:
    """What a causal language model says: greedily, with the likeliest first tokens where they are asked for."""
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        ids = tok(written(body["messages"]), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            said = model.generate(ids, max_new_tokens=body["max_tokens"], do_sample=False)[0, ids.shape[1] :]
            top = torch.log_softmax(model(ids).logits[0, -1], -1).topk(body.get("top_logprobs", 1))
        choices = {tok.decode([i]): value for i, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)}
        return 200, reply(tok.decode(said), choices if body.get("logprobs") else None)

    return answer


def written(messages: list[dict[str, str]]) -> str:
    """A dialogue as text, up to where the answer begins."""
    return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"


@contextmanager
def serve(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The base URL, and the requests as they come."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            status, content = answer(body)
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
