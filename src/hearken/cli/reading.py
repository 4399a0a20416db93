"""The options of a command that reads example files: those of `ReadingOptions`, as ``hearken train`` has them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from hearken.feedback.reading import ReadingOptions


class ReadingCommand(TyperCommand):
    """A command that takes `ReadingOptions` besides its own; its function asks `reading` for them.

    They are made when the command is asked for: pydantic is not needed at the door.
    """

    _more: list[Any] | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters, the reading options, and --help."""
        if self._more is None:
            from hearken.cli.stages import options_of
            from hearken.feedback.reading import ReadingOptions

            self._more = options_of(ReadingOptions)
        *own, last = super().get_params(ctx)
        return [*own, *self._more, last]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what was given for `reading`: the function has no parameters of these names."""
        rest = super().parse_args(ctx, args)
        from hearken.feedback.reading import ReadingOptions

        given = {name: ctx.params.pop(name, None) for name in ReadingOptions.model_fields}
        ctx.meta[__name__] = {name: value for name, value in given.items() if value is not None}
        return rest


def reading(ctx: typer.Context) -> ReadingOptions:
    """The reading options that a `ReadingCommand` was given.

    Raises:
        UserError: a value that is none.
    """
    from hearken.feedback.reading import ReadingOptions

    return ReadingOptions.parse(ctx.meta[__name__], where=f"hearken {ctx.info_name}")
