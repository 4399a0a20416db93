"""``hearken train STAGE``: the group of the stages' commands. A stage's own is made when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class StageCommand(TyperCommand):
    """Help in plain sections: to draw sixty options in boxes takes longer than all the rest."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """One section a panel."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class StageGroup(TyperGroup):
    """Makes a stage's command when it is asked for, so that no other command pays for it."""

    listing = False
    words: tuple[str, ...] = ()
    """What stands behind the stage's name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As any group does; a name that several domains have is that of the domain in use."""
        self.words = tuple(args[1:])
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all stages."""
        from hearken.algorithms.stage import stages

        return list(dict.fromkeys(stage.name for stage in stages()))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list of stages: their options are not needed for it, and not made."""
        self.listing = True
        super().format_help(ctx, formatter)
        self.listing = False

    def _domain(self, name: str) -> str:
        """That of the model that is named, or of the project here; empty where one domain alone has the stage."""
        from hearken.algorithms.stage import stages

        if len({stage.domain for stage in stages() if stage.name == name}) < 2:
            return ""
        if model := self._value("--model"):
            from hearken.domains.base import domain_of

            return domain_of(model).name
        if Path("hearken.yaml").is_file():
            from hearken.loop.project import Project

            return Project(Path()).domain.name
        return ""

    def _value(self, name: str) -> str:
        """What stands behind a flag, in either way of writing it."""
        for word, following in zip(self.words, (*self.words[1:], ""), strict=False):
            flag, equals, value = word.partition("=")
            if flag == name:
                return value if equals else following
        return ""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of one stage, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        from hearken.algorithms.stage import find_stage
        from hearken.cli.stages import example, make_command

        maker = typer.Typer(add_completion=False, rich_markup_mode=None)
        plain: dict[str, Any] = {"cls": StageCommand, "context_settings": {"max_content_width": 120}}
        stage = find_stage(cmd_name, self._domain(cmd_name))
        body = (lambda: None) if self.listing else make_command(stage)
        maker.command(cmd_name, **plain, help=stage.summary, epilog=f"Example:  {example(stage)}")(body)
        return typer.main.get_command(maker)


def register(app: typer.Typer) -> None:
    """Add ``train`` with one command for each stage."""
    group = typer.Typer(
        cls=StageGroup,
        no_args_is_help=True,
        help="Train a stage: models and files in, a folder out.",
        epilog="By what you have: demonstrations: sft. Comparisons: dpo, or reward and then ppo or rloo. Thumbs: kto. "
        "Ratings: reward, then as before. A rule or a function: grpo or rloo. No sampling: ilql. "
        "By what it may cost: one model in memory: simpo, orpo; no critic: rloo, grpo; less still: --lora 16. "
        "By the goal: labels that are often wrong: dpo --loss robust; nearly unanimous: ipo; only the best kept: rft; "
        "the most from each sample: ppo. More: docs/choosing.md.  Example:  hearken train sft --help",
    )
    group.callback()(lambda: None)
    app.add_typer(group, name="train")
