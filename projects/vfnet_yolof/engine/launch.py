"""Starting processes: own ones, torchrun's or Slurm's; on GPUs or on CPUs."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from torch import multiprocessing as mp

from ..config.options import ConfigError
from ..utils import threads
from ..utils.compat import create_local_process_group
from .ending import EXIT_SIGNAL, handled, signal_name

logger = logging.getLogger(f"detectron2.{__name__}")

TIMEOUT = timedelta(minutes=30)


class Ranks(NamedTuple):
    """Place of this process among those that somebody else has started."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    init_method: str


def ranks_from_environment(
    env: Mapping[str, str] = os.environ, dist_url: str = "auto"
) -> Ranks | None:
    """What torchrun or srun says about this process; None if it was started alone.

    Args:
        dist_url: where processes that srun has started meet; "auto": at ``MASTER_ADDR``.

    Raises:
        ConfigError: the variables are incomplete.
    """
    if "RANK" in env and "WORLD_SIZE" in env:
        _require(env, "torchrun", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        world = int(env["WORLD_SIZE"])
        local = int(env.get("LOCAL_WORLD_SIZE", world))
        return Ranks(int(env["RANK"]), world, int(env["LOCAL_RANK"]), local, "env://")
    # In a batch script SLURM_NTASKS is set for the one process of the script, too; the variables
    # of the step are not.
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", "1")))
    in_step = "SLURM_STEP_NUM_TASKS" in env or "SLURM_STEP_ID" in env
    if "SLURM_PROCID" not in env or tasks <= 1 or not in_step:
        return None
    _require(env, "srun", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES", "SLURM_STEP_TASKS_PER_NODE")
    rank, local_rank = int(env["SLURM_PROCID"]), int(env["SLURM_LOCALID"])
    nodes = int(env["SLURM_STEP_NUM_NODES"])
    local, spec = tasks // nodes, env["SLURM_STEP_TASKS_PER_NODE"]
    if spec != (f"{local}(x{nodes})" if nodes > 1 else f"{local}"):
        raise ConfigError(f"All nodes must run the same number of tasks; Slurm has {spec}.")
    if dist_url == "auto":
        dist_url = _slurm_url(env, nodes)
    return Ranks(rank, tasks, local_rank, local, dist_url)


def _require(env: Mapping[str, str], starter: str, *names: str) -> None:
    missing = [n for n in names if n not in env]
    if missing:
        raise ConfigError(f"Started by {starter}, but {', '.join(missing)} is not set.")


def _slurm_url(env: Mapping[str, str], nodes: int) -> str:
    address = env.get("MASTER_ADDR") or ("127.0.0.1" if nodes == 1 else "")
    if not address:
        raise ConfigError(
            f"Started by srun on {nodes} machines, but MASTER_ADDR, where they meet, is not set. "
            'Before srun: export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | '
            "head -n1); or give --dist-url tcp://<first machine>:<port>."
        )
    # Jobs that share a machine have ports of their own, below 32768, from where on Linux gives them
    # to whoever asks for any.
    port = env.get("MASTER_PORT") or str(20000 + int(env.get("SLURM_JOB_ID", "0")) % 12000)
    return f"tcp://{address}:{port}"


def launch(
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    *,
    num_gpus: int = 1,
    num_processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> Any:
    """Call ``function(*args)`` in as many processes as asked for and wait for them.

    With variables of torchrun or srun in the environment, this is one of their processes and
    starts no others; ``num_gpus`` 0 means the CPU here, too. Otherwise there are ``num_gpus``
    processes per machine, one per GPU, or ``num_processes`` on the CPU.

    Returns:
        what ``function`` returns where it runs in this process, else None.

    Raises:
        ConfigError: more GPUs asked for than there are, or nowhere to meet.
        SystemExit: with a process's status, if it ended with one.
    """
    ranks = ranks_from_environment(dist_url=dist_url)
    if ranks is not None:
        use_cuda = num_gpus > 0 and torch.cuda.is_available()
        return _run_as_rank(ranks, function, args, use_cuda=use_cuda)
    if num_gpus > 1 and num_gpus > torch.cuda.device_count():
        raise ConfigError(
            f"--num-gpus {num_gpus}: there are {torch.cuda.device_count()}. "
            "For several processes on the CPU use --num-gpus 0 --num-processes N."
        )
    if num_processes > 1 and num_gpus > 0 and torch.cuda.is_available():
        raise ConfigError("--num-processes is for the CPU; add --num-gpus 0, or use --num-gpus.")
    on_cpu = num_gpus == 0 or not torch.cuda.is_available()
    per_machine = num_processes if on_cpu else num_gpus
    if per_machine * num_machines == 1:
        return function(*args)
    if dist_url == "auto" and num_machines > 1:
        raise ConfigError("Several machines need --dist-url tcp://<first machine>:<port>.")
    with _meeting_place(dist_url) as place, handled(_pass_on):
        try:
            if on_cpu:
                world, first = per_machine * num_machines, per_machine * machine_rank
                ranks = Ranks(first, world, 0, per_machine, place)
                mp.spawn(_cpu_worker, nprocs=per_machine, args=(ranks, function, args))
            else:
                detectron2_launch(
                    _exit_with_status,
                    per_machine,
                    num_machines=num_machines,
                    machine_rank=machine_rank,
                    dist_url=place,
                    args=(function, args),
                )
        except mp.ProcessExitedException as error:
            raise SystemExit(_status_of(error, machine_rank * per_machine)) from None
    return None


@contextlib.contextmanager
def _meeting_place(dist_url: str) -> Iterator[str]:
    """Where processes meet; "auto": in a file, those of one machine.

    A port that was free when it was looked for may be somebody else's when it is opened.
    """
    if dist_url != "auto":
        yield dist_url
        return
    with tempfile.TemporaryDirectory(prefix="vfnet_yolof_", ignore_cleanup_errors=True) as folder:
        # not as_uri(): PyTorch takes the path as it stands, a space included
        path = (Path(folder).resolve() / "store").as_posix()
        if not {"#", "?"}.isdisjoint(path):  # which end the path of an address
            raise ConfigError(
                f"Processes meet in the folder for temporary files, whose name must have neither "
                f"# nor ?: {tempfile.gettempdir()}. Name another one by TMPDIR, or give "
                "--dist-url tcp://127.0.0.1:<port>."
            )
        yield f"file:///{path.lstrip('/')}"


def _status_of(error: mp.ProcessExitedException, first_rank: int) -> int:
    """Exit status after the end of one of the processes; says which, if a signal ended it."""
    if error.exit_code >= 0:  # it has told the reason itself
        return error.exit_code
    number = -error.exit_code
    hint = ""
    if number == signal.SIGKILL:
        hint = " Often that is the system, whose memory was used up: a smaller batch needs less."
    print(
        f"error: The process of rank {first_rank + error.error_index} (pid {error.error_pid}) was "
        f"killed by {signal_name(number)}, and the others were ended with it.{hint} "
        "--resume continues from the last checkpoint.",
        file=sys.stderr,
    )
    return EXIT_SIGNAL + number


had_gloo = False  # whether this process has been one of several on the CPU: see leave()


def _run_as_rank(
    ranks: Ranks, function: Callable[..., Any], args: tuple[Any, ...], *, use_cuda: bool
) -> Any:
    if use_cuda:
        # Slurm may show each task its own GPU only.
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    _join(ranks, "nccl" if use_cuda else "gloo")
    try:
        result = function(*args)
        if not use_cuda:
            dist.barrier()  # nobody leaves while others still talk to it
        return result
    finally:
        dist.destroy_process_group()
        global had_gloo
        had_gloo = had_gloo or not use_cuda


def _join(ranks: Ranks, backend: str) -> None:
    """Meet the other processes."""
    dist.init_process_group(
        backend,
        store=_store(ranks),
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=TIMEOUT,
    )
    create_local_process_group(ranks.local_world_size)


def _store(ranks: Ranks) -> dist.Store:
    """Where the processes find each other.

    torchrun may keep one store through its restarts (``--max-restarts``), in which the addresses of
    the processes that have ended are left: each attempt gets keys of its own.
    """
    rendezvous = dist.rendezvous(ranks.init_method, ranks.rank, ranks.world_size, timeout=TIMEOUT)
    store, _, _ = next(iter(rendezvous))
    store.set_timeout(TIMEOUT)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"attempt_{attempt}", store)


def _cpu_worker(
    local_rank: int, first: Ranks, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """first: the place of the process of this machine whose ``local_rank`` is 0."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threads.share_among(first.local_world_size)
    _join(first._replace(rank=first.rank + local_rank, local_rank=local_rank), "gloo")
    try:
        status = function(*args)
    except SystemExit as error:
        leave(error.code if isinstance(error.code, int) else 1)
    dist.barrier()  # nobody leaves while others still talk to it
    dist.destroy_process_group()
    leave(status if isinstance(status, int) else 0)


def leave(status: int) -> NoReturn:
    """End this process at once: while Python is torn down, gloo's threads may abort it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _exit_with_status(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    status = function(*args)
    if isinstance(status, int) and status:
        raise SystemExit(status)


def _pass_on(signum: int, frame: Any) -> None:
    """The processes that were started decide what a signal means; this one waits for them.

    The terminal sends Ctrl-C to all of them by itself; they take two within a second for one.
    """
    for process in multiprocessing.active_children():
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signum)
