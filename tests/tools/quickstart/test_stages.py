"""Which stages run again and which are kept."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from cat_seg.errors import UserError
from tools.quickstart.stages import Stage, StageRunner


class Steps:
    """Counts how often it worked; writes a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0
        self.fail = False

    def stage(self, **changes) -> Stage:
        described = {
            "name": "dataset",
            "work": self.work,
            "outputs": (self.folder / "out",),
            "settings": {"seed": 0},
        }
        return Stage(**(described | changes))

    def work(self) -> None:
        self.calls += 1
        output = self.folder / "out"
        output.mkdir(exist_ok=True)
        (output / f"file{self.calls}").touch()
        if self.fail:
            raise KeyboardInterrupt

    def files(self) -> list[str]:
        return sorted(file.name for file in (self.folder / "out").iterdir())


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


def run(steps: Steps, **changes) -> StageRunner:
    runner = StageRunner(steps.folder / "stages")
    runner.run(steps.stage(**changes))
    return runner


def test_a_finished_stage_is_kept(steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    run(steps)
    run(steps)
    assert steps.calls == 1
    assert "dataset: kept" in capsys.readouterr().out


def test_other_settings_start_from_nothing(steps: Steps) -> None:
    run(steps)
    run(steps, settings={"seed": 1})
    assert steps.files() == ["file2"]


def test_a_changed_source_runs_it_again(steps: Steps) -> None:
    folder = steps.folder / "code"
    folder.mkdir()
    (folder / "a.py").write_text("one")
    (folder / "note.txt").write_text("one")
    run(steps, sources=(folder,))
    (folder / "note.txt").write_text("two")
    run(steps, sources=(folder,))
    assert steps.calls == 1
    (folder / "a.py").write_text("two")
    run(steps, sources=(folder,))
    assert steps.calls == 2


def test_missing_outputs_are_made_again(steps: Steps) -> None:
    run(steps)
    (steps.folder / "out" / "file1").unlink()
    (steps.folder / "out").rmdir()
    run(steps)
    assert steps.files() == ["file2"]


def test_half_written_outputs_are_removed(steps: Steps) -> None:
    steps.fail = True
    with pytest.raises(KeyboardInterrupt):
        run(steps)
    steps.fail = False
    run(steps)
    assert steps.files() == ["file2"]


def test_a_stage_that_resumes_keeps_them(steps: Steps) -> None:
    steps.fail = True
    with pytest.raises(KeyboardInterrupt):
        run(steps, resumes=True)
    steps.fail = False
    runner = run(steps, resumes=True)
    assert steps.files() == ["file1", "file2"]
    assert runner.seconds()["dataset"] > 0


def test_it_does_not_resume_with_other_settings(steps: Steps) -> None:
    steps.fail = True
    with pytest.raises(KeyboardInterrupt):
        run(steps, resumes=True)
    steps.fail = False
    run(steps, resumes=True, settings={"seed": 1})
    assert steps.files() == ["file2"]


def test_a_stage_follows_those_before_it(steps: Steps) -> None:
    later = []

    def both(seed: int) -> None:
        runner = StageRunner(steps.folder / "stages")
        runner.run(steps.stage(settings={"seed": seed}))
        runner.run(Stage("clip", lambda: later.append(seed), (), {"steps": 1}, after=("dataset",)))

    both(0)
    both(0)
    both(1)
    assert later == [0, 1]


def test_a_broken_record_is_named(steps: Steps) -> None:
    run(steps)
    record = steps.folder / "stages" / "dataset.json"
    record.write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json.*remove it"):
        run(steps)


def stages_of(work, *links: tuple[str, tuple[str, ...]]) -> list[Stage]:
    return [Stage(name, partial(work, name), (), {}, after=after) for name, after in links]


def test_stages_run_at_the_same_time_but_after_those_they_need(tmp_path: Path) -> None:
    ran, both = [], threading.Barrier(2, timeout=10)

    def work(name: str) -> None:
        if name in ("b", "c"):
            both.wait()  # passes only if the two run at the same time
        ran.append(name)

    links = ("d", ("b", "c")), ("a", ()), ("b", ("a",)), ("c", ("a",))
    stages = stages_of(work, *links)
    stages.append(stages.pop(0))
    StageRunner(tmp_path).run_all(stages, 2, stop=lambda: None)
    assert ran[0] == "a" and ran[-1] == "d" and set(ran) == set("abcd")


def test_a_failure_stops_the_others(tmp_path: Path) -> None:
    stopped, ran = threading.Event(), []

    def work(name: str) -> None:
        ran.append(name)
        if name == "fails":
            raise UserError("no such thing")
        assert stopped.wait(10)
        raise KeyboardInterrupt

    stages = stages_of(work, ("fails", ()), ("runs", ()), ("waits", ()))
    with pytest.raises(UserError, match="no such thing"):
        StageRunner(tmp_path).run_all(stages, 2, stopped.set)
    assert set(ran) == {"fails", "runs"}
    assert json.loads((tmp_path / "runs.json").read_text())["finished"] is False
