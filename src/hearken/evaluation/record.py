"""What the records of this folder have in common."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of what stands in a result: immutable, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def but(self, **changes: object) -> Self:
        """A copy with other values in some fields, checked as in a new one."""
        return type(self).model_validate({**dict(self), **changes})
