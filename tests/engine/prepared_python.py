"""Processes of Python that begin where the imports of a training end.

Importing takes some seconds, and hundreds of tests end a process in one way or another. A server,
one for each process that runs tests, imports once and forks; it has no threads that a fork would
lose. A keeper between the server and each process waits for it and tells how it ended. Processes
that such a process starts by ``torch.multiprocessing.spawn`` are forked, too; tests that call
``launch`` themselves, or the commands below torchrun, start theirs from nothing.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import IO

from torch import multiprocessing

SERVER = os.path.abspath(__file__)
PREPARED = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # what libraries read at once


class Prepared:
    """What tests use of a ``subprocess.Popen`` with pipes for text; a session of its own."""

    def __init__(self, program: str, arguments: list[str], environment: dict[str, str]) -> None:
        pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, and what the keeper tells
        request = {
            "program": program,
            "arguments": arguments,
            "environment": {**os.environ, **PREPARED, **environment},
            "folder": os.getcwd(),
        }
        server, text = _server(), json.dumps(request).encode()
        server.sendall(len(text).to_bytes(8, "big"))
        socket.send_fds(server, [text[:1]], [write for _, write in pipes])
        server.sendall(text[1:])
        for _, write in pipes:
            os.close(write)
        self.stdout, self.stderr, self._keeper = (os.fdopen(read) for read, _ in pipes)
        self.args = [program, *arguments]
        self.pid = int(self._keeper.readline())
        self.returncode: int | None = None
        self._waiting = threading.Thread(target=self._wait, daemon=True)
        self._waiting.start()

    def _wait(self) -> None:
        status = int(self._keeper.readline())
        self.returncode = os.waitstatus_to_exitcode(status)
        self._keeper.close()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._waiting.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All output, once the process and all that write there have ended."""
        texts = {}

        def read(name: str, stream: IO[str]) -> None:
            texts[name] = stream.read()
            stream.close()

        ends = None if timeout is None else time.monotonic() + timeout
        readers = [
            threading.Thread(target=read, args=(name, getattr(self, name)), daemon=True)
            for name in ("stdout", "stderr")
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if ends is None else max(0.0, ends - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if ends is None else max(1.0, ends - time.monotonic()))
        return texts["stdout"], texts["stderr"]


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, SERVER, str(theirs.fileno())],
        env={
            **os.environ,
            **PREPARED,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # which ends it; before the line above, as the last comes first
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork for each request until the other side is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while length := requests.recv(8, socket.MSG_WAITALL):
        first, descriptors, _, _ = socket.recv_fds(requests, 1, 3)
        rest = requests.recv(int.from_bytes(length, "big") - 1, socket.MSG_WAITALL)
        if os.fork() == 0:
            requests.close()
            _keep(descriptors, json.loads(first + rest))
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(descriptors: list[int], request: dict) -> None:
    """Fork again, and tell of the process's number and its end; only the process itself returns."""
    stdout, stderr, told = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ready, go = os.pipe()
    pid = os.fork()
    if pid:
        for descriptor in (stdout, stderr, ready):
            os.close(descriptor)
        os.write(told, f"{pid}\n".encode())
        os.close(go)
        _, status = os.waitpid(pid, 0)
        os.write(told, f"{status}\n".encode())
        os._exit(0)
    os.close(go)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    os.setsid()
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    paths = os.environ["PYTHONPATH"]
    os.environ.clear()
    os.environ.update({**request["environment"], "PYTHONPATH": paths})
    os.chdir(request["folder"])
    sys.argv = [request["program"], *request["arguments"]]
    multiprocessing.spawn = _forked
    runpy.run_path(request["program"], run_name="__main__")


def _forked(function: Callable[..., object], args: tuple = (), nprocs: int = 1) -> None:
    """In the place of ``torch.multiprocessing.spawn``."""
    multiprocessing.start_processes(_unhandled, (function, args), nprocs, start_method="fork")


def _unhandled(rank: int, function: Callable[..., object], args: tuple) -> None:
    """Call it without the handlers of the process that has forked, as in a new one."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    function(rank, *args)


if __name__ == "__main__":
    for name in (
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "torch.utils.tensorboard",
        "vfnet_yolof.cli.training",
    ):
        importlib.import_module(name)

    _serve(socket.socket(fileno=int(sys.argv[1])))
