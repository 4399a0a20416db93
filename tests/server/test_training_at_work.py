"""The owner's page says which training is at work, also while its log is being written."""

from __future__ import annotations

import os
from pathlib import Path

from hearken.feedback.media import MediaFolder
from hearken.server.owner import LATELY, at_work
from hearken.training.artifact import MANIFEST


def test_the_training_that_wrote_last_is_at_work(tmp_path: Path) -> None:
    files = MediaFolder(tmp_path)
    assert at_work(None) is None and at_work(files) is None
    log = tmp_path / "artifacts" / "r01-ppo" / "run" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    for torn in ("", '{"step": 1, "pre'):
        log.write_text(torn)
        assert at_work(files) is None, "no row is whole yet"
    log.write_text('{"step": 1, "predicted": 2.5, "labels": 30}\n{"step": 2, "pred')
    found = at_work(files)
    assert found is not None and (found.name, found.step, found.labels, found.reward) == ("r01-ppo", 1, 30, 2.5)
    past = log.stat().st_mtime - LATELY - 1
    os.utime(log, (past, past))
    assert at_work(files) is None, "it was interrupted"
    os.utime(log)
    (log.parents[1] / MANIFEST).write_text("{}")
    assert at_work(files) is None, "it has finished"
