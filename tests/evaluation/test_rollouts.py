from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearken.errors import UserError
from hearken.evaluation import rollouts
from hearken.report.rollouts import render_rollouts


def row(step: int, score: float, text: str, **more: object) -> dict:
    return {"step": step, "prompt": "Say.", "completion": text, "score": score, "kl": score / 2, **more}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "ppo" / "run"
    folder.mkdir(parents=True)
    rows = [
        row(i // 4, float(i), f"word {i} " + "x " * i, tokens=i + 5, finish_reason="length" if i == 9 else "stop")
        for i in range(12)
    ]
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 3, "pro')
    return tmp_path / "ppo"


def test_they_are_found_by_artifact_run_or_file(run: Path) -> None:
    file = run / "run" / "rollouts.jsonl"
    assert rollouts.find(run) == rollouts.find(run / "run") == rollouts.find(file) == file
    assert rollouts.find(run / "nothing") is None and rollouts.find(Path(__file__)) is None


def test_extremes_and_spreads(run: Path) -> None:
    found = rollouts.browse(run / "run" / "rollouts.jsonl", top=2, bottom=1)
    assert [r.reward for r in found.top] == [11, 10] and [r.reward for r in found.bottom] == [0]
    assert found.total == found.matching == 12, "the line that was being written is left out"
    assert (found.spreads["length"].low, found.spreads["length"].high) == (5, 16)
    assert sum(found.spreads["kl"].counts) == 12
    assert found.reward_length == pytest.approx(1) and found.unfinished == pytest.approx(1 / 12)


def test_filters(run: Path) -> None:
    file = run / "run" / "rollouts.jsonl"

    def rewards(**how: object) -> list[float]:
        return [r.reward for r in rollouts.browse(file, top=0, bottom=99, **how).bottom]  # type: ignore[arg-type]

    assert rewards(steps="1") == [4, 5, 6, 7]
    assert rewards(steps="1-") == list(range(4, 12))
    assert rewards(steps="last") == [8, 9, 10, 11]
    assert rewards(steps="0-1", grep="WORD 5") == [5]
    assert rewards(unfinished=True) == [9]
    for how, message in (({"grep": "nowhere"}, "none of the 12"), ({"steps": "x-y"}, "names no steps")):
        with pytest.raises(UserError, match=message):
            rewards(**how)


def test_older_files_count_words_and_broken_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rollouts.jsonl"
    file.write_text(json.dumps(row(0, 1.0, "three words here")) + "\n")
    (one,) = rollouts.read(file)
    assert (one.length, one.finish_reason) == (3, "")
    assert rollouts.browse(file).spreads["reward"].low == 1, "a single value has a spread too"
    separated = row(0, 1.0, "a line\u2028separator\x85")
    file.write_text(json.dumps(separated, ensure_ascii=False) + "\n" + json.dumps(row(1, 2.0, "b")) + "\n", "utf-8")
    assert [r.completion for r in rollouts.read(file)] == [separated["completion"], "b"]
    file.write_text("{}\n" + json.dumps(row(0, 1.0, "a")) + "\n")
    with pytest.raises(UserError, match="line 1"):
        rollouts.read(file)
    file.write_text("")
    with pytest.raises(UserError, match="no rollouts"):
        rollouts.read(file)


def test_a_run_without_a_reference_has_no_kl(run: Path) -> None:
    file = run / "run" / "rollouts.jsonl"
    rows = [{k: v for k, v in row(i, float(i), f"word {i}").items() if k != "kl"} for i in range(4)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = rollouts.browse(file)
    assert set(found.spreads) == {"reward", "length"} and found.reward_kl is None and found.top[0].kl is None
    assert render_rollouts(found, file).count("<svg") == 3
    with pytest.raises(UserError, match="does not say the kl"):
        rollouts.browse(file, sort="kl")


def test_the_page_shows_hostile_responses_as_text(run: Path) -> None:
    file = run / "run" / "rollouts.jsonl"
    bad = row(3, 99.0, "<script>alert(1)</script> {{ 7 * 7 }}\x1b[31m", tokens=4)
    file.write_text(file.read_text().rpartition("\n")[0] + "\n" + json.dumps(bad) + "\n")
    html = render_rollouts(rollouts.browse(file), file)
    assert "&lt;script&gt;" in html and "<script" not in html and "{{ 7 * 7 }}" in html and "\x1b" not in html
    assert html.count("<svg") == 5 and "default-src 'none'" in html
