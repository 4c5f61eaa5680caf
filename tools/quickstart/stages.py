"""Stages whose results are kept until something they depend on changes."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write


@dataclass(frozen=True)
class Stage:
    """A step of the quickstart that writes files.

    Attributes:
        name: unique name, also used for the stage's record on disk.
        work: writes the outputs.
        outputs: files and folders that only this stage writes.
        settings: JSON-serializable values that the outputs depend on.
        sources: files, and folders with *.py files, whose content the outputs depend on.
        after: names of the stages whose outputs this stage reads.
        resumes: whether `work` resumes from unfinished outputs; otherwise they are removed first.
    """

    name: str
    work: Callable[[], None]
    outputs: tuple[Path, ...]
    settings: Mapping[str, Any]
    sources: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    resumes: bool = False


class StageRunner:
    """Runner of stages that records in a folder which ones are finished."""

    def __init__(self, folder: Path) -> None:
        """Keep records in `folder`."""
        self.folder = folder
        self._fingerprints: dict[str, str] = {}

    def run(self, stage: Stage) -> None:
        """Run a stage unless it is finished with the same settings, sources and earlier stages.

        A stage that ends with an exception, including Ctrl-C, counts as unfinished.
        """
        fingerprint = self._fingerprint(stage)
        record = self._read(stage.name)
        same = record.get("fingerprint") == fingerprint
        complete = all(path.exists() for path in stage.outputs)
        if same and record["finished"] and complete:
            print(f"{stage.name}: kept from an earlier run", flush=True)
            return
        spent = 0.0
        if same and stage.resumes and not record["finished"]:
            spent = record["seconds"]
        else:
            self._write(stage.name, fingerprint, spent, finished=False)
            for path in stage.outputs:
                _remove(path)
        start = time.monotonic()
        finished = False
        try:
            stage.work()
            finished = True
        finally:
            seconds = spent + time.monotonic() - start
            self._write(stage.name, fingerprint, seconds, finished)

    def run_all(self, stages: Sequence[Stage], jobs: int, stop: Callable[[], None]) -> None:
        """Run stages in threads, each one after the stages named in its `after`.

        The first exception in a stage or in this thread, such as Ctrl-C, ends the run.

        Args:
            stages: in the order in which they should start; earlier stages must not run now.
            jobs: maximum number of stages at a time.
            stop: makes the stages that are running raise soon.
        """
        waiting = [*stages]
        running: dict[Future[None], Stage] = {}
        with ThreadPoolExecutor(jobs) as pool:
            try:
                while waiting or running:
                    unfinished = {stage.name for stage in (*waiting, *running.values())}
                    ready = [stage for stage in waiting if unfinished.isdisjoint(stage.after)]
                    for stage in ready[: jobs - len(running)]:
                        waiting.remove(stage)
                        running[pool.submit(self.run, stage)] = stage
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        future.result()
            except BaseException:
                stop()
                raise

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage, including those kept from earlier runs."""
        return {name: self._read(name)["seconds"] for name in self._fingerprints}

    def _fingerprint(self, stage: Stage) -> str:
        digest = hashlib.sha256(json.dumps(stage.settings, sort_keys=True).encode())
        for earlier in stage.after:
            digest.update(self._fingerprints[earlier].encode())
        for path in _files(stage.sources):
            digest.update(path.read_bytes())
        self._fingerprints[stage.name] = digest.hexdigest()
        return self._fingerprints[stage.name]

    def _record(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_')}.json"

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return json.loads(self._record(name).read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(
                f"{self._record(name)} is not valid JSON ({error}); remove it"
            ) from error

    def _write(self, name: str, fingerprint: str, seconds: float, finished: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._record(name), "w") as file:
            json.dump({"fingerprint": fingerprint, "finished": finished, "seconds": seconds}, file)


def _files(paths: Iterable[Path]) -> list[Path]:
    return [
        file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
    ]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
