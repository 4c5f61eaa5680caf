"""Everything imports where Python has no more than it has on Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cat_seg.utils.paths import REPO_ROOT

# Libraries have builds of their own for Windows, so they are imported before anything is removed.
REMOVE_POSIX = """
import ast, importlib, multiprocessing.connection, multiprocessing.context, os, pathlib, signal, sys

POSIX_MODULES = "fcntl grp posix pty pwd resource syslog termios tty".split()
POSIX_NAMES = {
    os: "fork forkpty register_at_fork sched_getaffinity setsid killpg getpgid getuid geteuid"
    " getgid uname mkfifo nice wait3 statvfs fchmod chown O_DIRECTORY O_NOFOLLOW".split(),
    signal: "SIGHUP SIGUSR1 SIGUSR2 SIGKILL SIGSTOP SIGCONT SIGQUIT SIGPIPE SIGALRM SIGBUS SIGCHLD"
    " SIG_BLOCK SIG_UNBLOCK SIG_SETMASK pthread_sigmask pthread_kill alarm setitimer".split(),
    multiprocessing.context: "ForkContext ForkProcess ForkServerContext ForkServerProcess".split(),
}

# The page needs gradio, which is not in this environment.
sources = [s for s in pathlib.Path("cat_seg").rglob("*.py") if "app" not in s.parts]
for source in sources:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            if name.split(".")[0] not in ["cat_seg", "_typeshed", *POSIX_MODULES]:
                importlib.import_module(name)

for module, names in POSIX_NAMES.items():
    for name in names:
        delattr(module, name)
sys.modules.update(dict.fromkeys(POSIX_MODULES))
multiprocessing.connection.PipeConnection = multiprocessing.connection.Connection
sys.platform = "win32"
"""
IMPORT_ALL = """
import pkgutil
import cat_seg
for module in pkgutil.walk_packages(cat_seg.__path__, "cat_seg."):
    if not module.name.endswith("__main__") and not module.name.startswith("cat_seg.app"):
        importlib.import_module(module.name)
print("imported", sum(name.startswith("cat_seg") for name in sys.modules))
"""
USE = """
from pathlib import Path
from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.files import atomic_write, exclusive_lock
from cat_seg.utils.parallel import cores, run_in_processes

@one_line_errors
def main(folder):
    with exclusive_lock(folder), atomic_write(folder / "text", "w") as file:
        file.write("".join(str(n) for _, n in run_in_processes(abs, [-1, -2], 1)))
        try:
            exclusive_lock(folder).__enter__()
        except UserError as error:
            print(error)
    with exclusive_lock(folder):
        print((folder / "text").read_text(), cores() >= 1)

main(Path(sys.argv[1]))
"""


def test_every_module_imports_and_one_process_works(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REMOVE_POSIX + IMPORT_ALL + USE, str(tmp_path)],
        cwd=REPO_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported, refused, used = done.stdout.splitlines()
    assert int(imported.removeprefix("imported ")) > 100
    assert refused == f"another process is writing to {tmp_path}; wait until it finishes"
    assert used == "12 True"
