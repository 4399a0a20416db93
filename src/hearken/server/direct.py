"""Routes for what is asked many times a second: claims and answers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

Body = TypeVar("Body", bound=BaseModel)


class Direct(APIRoute):
    """A route for a function ``(request, who, body)`` that returns its response; documented like any other.

    Who is asking, what is asked and the work itself take one change of threads. FastAPI's own handler takes one for
    each of them and walks through the dependencies anew each time, which costs more than storing a judgment.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What is called with each request."""
        endpoint: Callable[..., Response] = self.endpoint
        hints = get_type_hints(endpoint, include_extras=True)
        _, asking, asked = inspect.signature(endpoint).parameters
        (depends,), model = hints[asking].__metadata__, hints[asked]

        def work(request: Request, raw: bytes) -> Response:
            return endpoint(request, depends.dependency(request), read(model, request, raw))

        async def handle(request: Request) -> Response:
            return await run_in_threadpool(work, request, await request.body())

        return handle


def read(model: type[Body], request: Request, raw: bytes) -> Body:
    """The body of a request.

    Raises:
        RequestValidationError: it is not JSON, or not what ``model`` says.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _invalid("the body is not sent as application/json")
    try:
        return model.model_validate(json.loads(raw))
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in wrong]) from None
    except (ValueError, RecursionError):
        raise _invalid("the body is not JSON") from None


def _invalid(what: str) -> RequestValidationError:
    return RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": what, "input": {}}])
