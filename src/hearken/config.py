"""Typed options: what every stage's options share, and the project's own schema (``hearken.yaml``)."""

from __future__ import annotations

import difflib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hearken.errors import UserError


class Options(BaseModel):
    """Base of all options. Unknown keys are refused, and the nearest right key is named."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "options") -> Self:
        """Validate ``values`` (e.g. a YAML section merged with command-line options).

        Raises:
            UserError: an unknown key (naming the nearest one) or a value of the wrong type or range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                near = difflib.get_close_matches(str(first["loc"][-1]), cls.model_fields, n=1, cutoff=0.4)
                hint = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(sorted(cls.model_fields))}"
                raise UserError(f"{where}: unknown key '{key}'", hint) from None
            value = f" (got {first['input']!r})" if first["loc"] else ""
            raise UserError(f"{where}: {key or 'value'}: {first['msg']}{value}") from None
