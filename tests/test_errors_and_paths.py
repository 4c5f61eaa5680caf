"""One-line errors, and where relative paths point to."""

from __future__ import annotations

import os
import pickle
import signal

import pytest

from cat_seg.errors import (
    UserError,
    WorkerDied,
    explain,
    fail,
    one_line_errors,
    printable,
    user_errors,
    worker_death,
)
from cat_seg.utils.files import atomic_write
from cat_seg.utils.paths import REPO_ROOT, resolve
from cat_seg.utils.processes import STOPPING


def test_fail_prints_one_line_and_exits_with_2(capsys):
    with pytest.raises(SystemExit) as exit_info:
        fail("no file a.json")
    assert exit_info.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no file a.json\n"
    assert captured.out == ""


def test_entry_point_ends_with_the_error_line(capsys):
    @one_line_errors
    def main():
        raise UserError("MODEL.DEVICE: no GPU here")

    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error: MODEL.DEVICE: no GPU here\n"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Ünï—код名.png", "Ünï—код名.png"),
        (os.fsdecode(b"bad_\xff_byte"), r"bad_\udcff_byte"),
        ("\ud83d", r"\ud83d"),
        ("a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
    ],
)
def test_any_file_name_is_printed_in_one_line(name, written):
    assert printable(name) == printable(written) == written
    error = UserError(f"cannot read {name}")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == f"cannot read {written}"
    assert len(str(error).encode().splitlines()) == 1


def test_entry_point_passes_arguments_and_result_on():
    @one_line_errors
    def main(first, *, second):
        """What it does."""
        return first + second

    assert main(1, second=2) == 3
    assert main.__name__ == "main" and main.__doc__ == "What it does."


def test_other_errors_keep_their_traceback():
    @one_line_errors
    def main():
        raise ValueError("a defect, not an input")

    with pytest.raises(ValueError, match="a defect") as error:
        main()
    assert not isinstance(error.value, UserError)


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


WORKER = "DataLoader worker (pid 7) is killed by signal: "
LOST = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no GPU here"), "no GPU here"),
        (RuntimeError(f"{WORKER}Killed. "), "a data worker was killed (signal 9), most likely"),
        (RuntimeError(f"{WORKER}Killed: 9. "), "a data worker was killed (signal 9), most likely"),
        (
            RuntimeError(f"{WORKER}Bus error. It is possible"),
            "because shared memory ran out; lower",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "ended unexpectedly"),
        (
            chained(UserError("cannot write x"), RuntimeError(f"{WORKER}Terminated. ")),
            "a data worker was killed (signal 15); ",
        ),
        (
            chained(
                WorkerDied("a data worker was killed (signal 9)"),
                RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            ),
            "a data worker was killed (signal 9)",
        ),
        (MemoryError(), "out of memory (MemoryError); in training, lower SOLVER.IMS_PER_BATCH, "),
        (
            RuntimeError("CUDA out of memory. Tried\nto allocate 2 GiB"),
            "(CUDA out of memory. Tried",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "lower TEST.IMS_PER_BATCH or"),
        (OSError(12, "Cannot allocate memory"), "out of memory ("),
        (OSError(28, "No space left on device", "log.txt"), "device: 'log.txt'; free some space"),
        (
            PermissionError(13, "Permission denied", "out"),
            "Permission denied: 'out'; free some space",
        ),
        (RuntimeError(LOST), "lost the connection to another process of this run ("),
        (ValueError("a defect"), None),
        (FileNotFoundError(2, "No such file"), None),
        (RuntimeError("a defect"), None),
    ],
)
def test_what_is_no_bug_is_explained_in_one_line(error, line):
    found = explain(error)
    assert (found is None) == (line is None)
    if line is not None:
        assert line in found
        assert "\n" not in found


@pytest.mark.parametrize(
    ("error", "codes", "line"),
    [
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), [0, -9], "signal 9"),
        (ConnectionResetError(104, "Connection reset by peer"), [-15], "signal 15"),
        (EOFError(), [1, -9], "signal 9"),
        (EOFError(), [1], None),
        (ConnectionResetError(), [], None),
        (RuntimeError("a defect"), [-9], None),
    ],
)
def test_a_worker_that_broke_off_is_known_by_its_exit_code(error, codes, line):
    found = worker_death(error, codes)
    assert (found is None) == (line is None)
    assert line is None or f"was killed ({line})" in found


def test_running_out_of_memory_ends_in_one_line(capsys):
    @one_line_errors
    def main():
        bytearray(1 << 60)

    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory (MemoryError); ")


@pytest.mark.parametrize(
    ("signum", "line"),
    [
        (signal.SIGINT, "Ctrl-C"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGUSR1, "SIGUSR1"),
        (signal.SIGHUP, "SIGHUP"),
    ],
)
def test_a_signal_ends_an_entry_point_in_one_line_and_files_are_cleaned_up(
    tmp_path, capsys, signum, line
):
    @one_line_errors
    def main():
        with atomic_write(tmp_path / "file", "w"):
            os.kill(os.getpid(), signum)

    before = [signal.getsignal(s) for s in (*STOPPING, signal.SIGHUP)]
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 128 + signum
    assert capsys.readouterr().err == f"stopped by {line}\n"
    assert not list(tmp_path.iterdir())
    assert before == [signal.getsignal(s) for s in (*STOPPING, signal.SIGHUP)]


def test_what_is_ignored_stays_ignored():
    """As under nohup."""

    @one_line_errors
    def main():
        os.kill(os.getpid(), signal.SIGHUP)
        return "went on"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main() == "went on"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_absolute_and_existing_paths_stay(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert resolve(str(tmp_path / "absent")) == tmp_path / "absent"
    # What is here goes before what the repository has under the same name.
    assert resolve("configs/config.yaml").resolve() == tmp_path / "configs" / "config.yaml"


def test_relative_paths_also_resolve_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("configs/config.yaml") == REPO_ROOT / "configs" / "config.yaml"
    assert (REPO_ROOT / "cat_seg" / "utils" / "paths.py").is_file()


def test_a_path_that_is_nowhere_stays_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(resolve("no/such.json")) == "no/such.json"


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/weights.pth") == tmp_path / "weights.pth"


def test_an_error_about_an_argument_names_the_key_that_sets_it():
    told = r"^MODEL\.SIDE: side must be even; it is 3$"
    with (
        pytest.raises(UserError, match=told),
        user_errors(width="MODEL.WIDTH", side="MODEL.SIDE"),
    ):
        raise ValueError("side must be even; it is 3")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("height must be even; it is 3"),
        ValueError("math domain error"),
        ValueError(),
        TypeError("side must be a number"),
        UserError("side.json: no such file"),
    ],
)
def test_other_errors_pass_unchanged(error):
    with pytest.raises(type(error)) as caught, user_errors(side="MODEL.SIDE"):
        raise error
    assert caught.value is error
