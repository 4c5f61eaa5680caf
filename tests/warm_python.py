"""A stand-in for the interpreter: runs scripts in forks of a server that has the imports done.

Importing PyTorch and detectron2 takes longer than the miniature jobs that tests run.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

# They import PyTorch and detectron2.
WARM = ("cat_seg.cli.train", "cat_seg.cli.evaluate", "cat_seg.cli.results")
CLIENT = """#!{python} -SE
import json, os, signal, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
socket.send_fds(server, [b"x"], [0, 1, 2])
stream = server.makefile("rw")
job = {{"argv": sys.argv[1:], "folder": os.getcwd(), "environ": dict(os.environ)}}
print(json.dumps(job), file=stream, flush=True)
pid = int(stream.readline())
for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, lambda signum, frame: os.kill(pid, signum))
sys.exit(int(stream.readline()))
"""


@contextmanager
def warm_python() -> Iterator[Path]:
    """Start a server; gives the program to run in the place of the interpreter.

    It passes on its arguments (a script, -c or -m), environment, folder, standard streams and
    signals, and ends with the exit status of what it ran.
    """
    with TemporaryDirectory() as folder:
        client, path = Path(folder, "python"), Path(folder, "socket")
        client.write_text(CLIENT.format(python=sys.executable, socket=str(path)))
        client.chmod(0o755)
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(path)]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout.readline() == b"ready\n"
                yield client
            finally:
                server.terminate()


def serve(path: str) -> None:
    """Run each job in a process of its own, until this process is ended.

    Jobs may start further jobs, so none waits for another.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes below
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                _serve_one(connection)


def _serve_one(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rw") as stream:
        job = json.loads(stream.readline())
        pid = os.fork()
        if pid == 0:
            _run(job, streams)
        for number in streams:
            os.close(number)
        print(pid, file=stream, flush=True)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(code if code >= 0 else 128 - code, file=stream, flush=True)
    os._exit(0)


def _run(job: dict, streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    status = 1
    try:
        script, *arguments = job["argv"]
        if script == "-c":
            sys.argv = [script, *arguments[1:]]
            exec(arguments[0], {"__name__": "__main__"})
        elif script == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [script, *arguments]
            sys.path[0] = str(Path(script).parent)
            runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    for module in WARM:
        importlib.import_module(module)
    serve(sys.argv[1])
