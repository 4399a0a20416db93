"""A training run opens, steps and finishes; callbacks look at it between its steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from hearken.algorithms.stage import Inputs
from hearken.errors import Pause, UserError
from hearken.models.layout import Group
from hearken.training.optimiser import NonFiniteGradient
from hearken.training.options import TrainingOptions
from hearken.training.run import Callback, Interruption, Run


class CountOptions(TrainingOptions):
    """Of a run that counts."""

    stage: ClassVar[str] = "count"
    trackers: str = "none"
    device: str = "cpu"
    checkpoint_seconds: float = 1e9


class Count:
    """What is trained."""

    value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Seen(Callback):
    """Writes down when it is called."""

    name = "seen"

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self.at, self.error, self.ends = at, error, False

    def before(self, step: int, *, last: bool = False) -> dict[str, float]:
        self.calls.append(f"{'last' if last else 'before'} {step}")
        if step == self.at and self.error is not None:
            raise self.error
        return {"look": float(step)} if step % 2 == 0 else {}

    def after(self, step: int) -> None:
        self.calls.append(f"after {step}")

    @property
    def stop(self) -> bool:
        return self.ends

    def finish(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"looks": len(self.calls)}, {"who": "seen"}


def go(out: Path, count: Count, *callbacks: Callback, total: int = 4, spoil: int | None = None) -> Any:
    with Run(Inputs("base"), CountOptions(), out, {"count": count}, callbacks=callbacks) as run:
        for step in run.steps(total):
            groups = [Group([step], [[1]])]
            for _ in run.microbatches(groups, type("S", (), {"width": 1, "device": torch.device("cpu")})()):
                loss = torch.tensor(float("nan") if step == spoil else 1.0, requires_grad=True)
                run.backward(loss)
            count.value += 1
            run.log(loss=step)
        return run.finish(lambda folder: (folder / "model").write_text(str(count.value)), data={}, metrics={})


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]


def test_callbacks_look_before_after_and_at_the_end(tmp_path: Path) -> None:
    seen = Seen()
    made = go(tmp_path, Count(), seen)
    between = [call for step in range(4) for call in (f"before {step}", f"after {step}")]
    assert seen.calls == [*between, "last 4"]
    assert [row.get("look") for row in rows(tmp_path)] == [0, None, 2, None, 4], "in the row of its step"
    assert made.kind == "count" and made.metrics == {"looks": 9} and made.manifest["data"] == {"who": "seen"}
    assert (tmp_path / "model").read_text() == "4" and not (tmp_path / "run/checkpoint.pt").exists()


def test_a_callback_ends_a_run(tmp_path: Path) -> None:
    seen, count = Seen(), Count()
    seen.ends = True
    made = go(tmp_path, count, seen)
    assert seen.calls == ["before 0"] and count.value == 0 and rows(tmp_path) == [{"step": 0, "look": 0}]
    assert made.metrics == {"looks": 1}


@pytest.mark.parametrize("error", [Pause("later"), Interruption("the labeler is away", "again")])
def test_what_was_learnt_is_saved_where_a_step_cannot_begin(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        go(tmp_path, Count(), Seen(2, error))
    count, seen = Count(), Seen()
    go(tmp_path, count, seen)
    assert count.value == 4 and seen.calls[0] == "before 2", "from where it stood"
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_pause_after_a_change_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    class Late(Seen):
        def after(self, step: int) -> None:
            if step == 2:
                raise Pause("later")

    with pytest.raises(Pause):
        go(tmp_path, Count(), Late())
    assert not (tmp_path / "run/checkpoint.pt").exists(), "the step is made again, whole"


def test_a_number_that_is_not_finite_names_the_batch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="COUNT stopped before an update: the loss is nan at step 1"):
        go(tmp_path, Count(), spoil=1)
    bad = json.loads((tmp_path / "run/bad-batch-step-1.json").read_text())
    assert bad["groups"] == [{"prompt": [1], "responses": [[1]]}]
    with (
        pytest.raises(UserError, match="scored"),
        Run(Inputs(), CountOptions(), tmp_path / "other", {}) as run,
    ):
        run.microbatches([Group([5], [[5]])], type("S", (), {"width": 1, "device": torch.device("cpu")})())
        raise NonFiniteGradient("scored NaN", [Group([9], [[8]])])
    bad = json.loads((tmp_path / "other/run/bad-batch-step-0.json").read_text())
    assert bad["groups"] == [{"prompt": [9], "responses": [[8]]}], "what was scored, not what was learnt from before"


def test_another_versions_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Pause):
        go(tmp_path, Count(), Seen(1, Pause("later")))
    with pytest.raises(UserError, match="begun by another version"):
        go(tmp_path, Count())


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(Pause):
        go(tmp_path, Count(), Seen(1, Pause("later")))
    file = tmp_path / "run/checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged.*--overwrite"):
        go(tmp_path, Count(), Seen(9))
