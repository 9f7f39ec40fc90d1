"""The only place that knows how Detectron2 0.6 differs from its main branch."""

from __future__ import annotations

import torch.distributed as dist
from detectron2.utils import comm


def create_local_process_group(processes_per_machine: int) -> None:
    """Tell ``detectron2.utils.comm`` which processes are on this machine.

    The default process group must exist and have the same number of processes on every machine,
    with consecutive ranks. Release 0.6 does this inside of ``launch`` only.

    Raises:
        ValueError: the processes cannot be shared equally.
    """
    world_size = dist.get_world_size()
    if processes_per_machine <= 0 or world_size % processes_per_machine:
        raise ValueError(
            f"{world_size} processes cannot be on machines of {processes_per_machine} each."
        )
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    for first in range(0, world_size, processes_per_machine):
        ranks = list(range(first, first + processes_per_machine))
        group = dist.new_group(ranks)  # every process must take part in making every group
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
