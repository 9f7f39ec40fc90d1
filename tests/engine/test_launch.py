"""Several processes: own ones on the CPU, and those of torchrun and Slurm."""

import os
import tempfile

import pytest
import torch
from engine_toy import report_ranks
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.engine import launch as launch_module
from vfnet_yolof.engine.launch import Ranks, launch, ranks_from_environment

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}


def test_ranks_of_torchrun():
    assert ranks_from_environment(TORCHRUN) == Ranks(3, 8, 1, 2, "env://")
    with pytest.raises(ConfigError, match="torchrun.*LOCAL_RANK"):
        ranks_from_environment({k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"})


def test_ranks_of_slurm():
    given = {**SLURM, "MASTER_ADDR": "gpu07"}
    assert ranks_from_environment(given) == Ranks(5, 8, 1, 4, "tcp://gpu07:23456")
    given["MASTER_PORT"] = "9"
    assert ranks_from_environment(given).init_method == "tcp://gpu07:9"
    assert ranks_from_environment(given, "tcp://a:1").init_method == "tcp://a:1"
    for tasks in ("4,3", "4(x3)", "5,3", "8"):
        with pytest.raises(ConfigError, match="same number"):
            ranks_from_environment({**given, "SLURM_STEP_TASKS_PER_NODE": tasks})
    with pytest.raises(ConfigError, match="srun.*SLURM_LOCALID"):
        ranks_from_environment({k: v for k, v in given.items() if k != "SLURM_LOCALID"})


def test_slurm_is_told_where_its_processes_meet():
    with pytest.raises(ConfigError, match=r"export MASTER_ADDR=\$\(scontrol.*; or give --dist-url"):
        ranks_from_environment(SLURM)
    one = {**SLURM, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "8"}
    assert ranks_from_environment(one) == Ranks(5, 8, 1, 8, "tcp://127.0.0.1:23456")


def test_a_process_alone_has_no_ranks():
    assert ranks_from_environment({}) is None
    # the script of a batch job: it is one process, whatever the job may start
    batch = {k: v for k, v in SLURM.items() if not k.startswith("SLURM_STEP")}
    assert ranks_from_environment(batch) is None


def test_one_process_runs_here():
    assert launch(os.getpid) == os.getpid()


def test_more_gpus_than_there_are():
    with pytest.raises(ConfigError, match="--num-processes"):
        launch(print, num_gpus=torch.cuda.device_count() + 2)


@pytest.mark.slow
def test_a_status_comes_back_and_every_process_knows_its_place(tmp_path):
    with pytest.raises(SystemExit) as ended:
        launch(report_ranks, (str(tmp_path),), num_gpus=0, num_processes=2)
    assert ended.value.code == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0 of 2, 0 of 2", "1 of 2, 1 of 2"]


@pytest.mark.slow
def test_processes_of_one_machine_need_no_port(tmp_path, monkeypatch):
    """A free port may be somebody else's before it is opened; they meet in a file instead."""
    places = []
    spawn = launch_module.mp.spawn

    def watched(function, nprocs, args):
        places.append(args[0].init_method)
        spawn(function, nprocs=nprocs, args=args)

    seen, folder = tmp_path / "seen", tmp_path / "a folder"
    seen.mkdir()
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(launch_module.mp, "spawn", watched)
    with pytest.raises(SystemExit):
        launch(report_ranks, (str(seen),), num_gpus=0, num_processes=2)
    assert len(list(seen.iterdir())) == 2
    assert places[0].startswith(f"file://{folder}/")
    assert not list(folder.iterdir())  # and nothing of it is left


@pytest.mark.parametrize("name", ["a#b", "a?b"])
def test_a_folder_that_no_address_can_name(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"neither # nor \?: .*TMPDIR"):
        launch(print, num_gpus=0, num_processes=2)


@pytest.mark.slow
def test_a_mistake_ends_several_processes_with_one_line(toy):
    done = toy.start("--num-gpus", "0", "--num-processes", "2", "train.max_itr=3")
    assert done.returncode == 2
    assert "error: Unknown key train.max_itr. Did you mean train.max_iter" in done.stderr
    assert "Traceback" not in done.stderr


def train_on(toy, processes):
    exact = ["model.norm=False", "model.dropout=0.0", "train.ema.enabled=True"]
    return toy.run("--num-gpus", "0", "--num-processes", str(processes), *exact)


def test_two_processes_train_like_one_on_the_joined_batch(make_toy):
    one, two = make_toy("one"), make_toy("two")
    assert train_on(one, 1) == 0
    assert train_on(two, 2) == 0
    a, b = one.load(), two.load()
    assert b["trainer"]["schedule"]["world_size"] == 2
    assert len(b["trainer"]["rng"]) == 2
    for key in ("model", "ema"):
        for name, value in a[key].items():
            assert torch.allclose(value, b[key][name], atol=1e-6), name


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_at_the_same_iteration(toy):
    arguments = ("--num-gpus", "0", "--num-processes", "2")
    done = toy.start(*arguments, TOY_CTRL_C_AT="6", prepared=False)
    assert done.returncode == 130, done.stderr[-2000:]
    tagged = (toy.output_dir / "last_checkpoint").read_text()
    iteration = int(tagged.removeprefix("model_").removesuffix(".pth"))
    assert iteration in (5, 6)
    assert len(toy.load(f"model_{iteration:07d}")["trainer"]["rng"]) == 2


@pytest.mark.slow
def test_torchrun_starts_it_too(toy):
    done = toy.start("--num-gpus", "0", "train.max_iter=2", torchrun=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert toy.load()["trainer"]["schedule"]["world_size"] == 2


@pytest.mark.slow
def test_srun_starts_it_too(toy):
    """Its variables, as two processes of one step have them."""
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_JOB_ID": str(os.getpid()),
    }
    step["SLURM_STEP_TASKS_PER_NODE"] = "2"
    processes = [
        toy.begin("--num-gpus", "0", "train.max_iter=2", SLURM_PROCID=n, SLURM_LOCALID=n, **step)
        for n in "01"
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    assert toy.load()["trainer"]["schedule"]["world_size"] == 2


@pytest.mark.slow
def test_torchrun_starts_it_again_after_a_process_was_killed(toy):
    killed = {"TOY_RANK": "1", "TOY_KILL_ONCE_AT": "6"}
    done = toy.start("--num-gpus", "0", "--resume", torchrun=2, restarts=1, **killed)
    assert done.returncode == 0, done.stderr[-2000:]
    assert toy.load()["iteration"] == 11
    assert "Resuming from" in toy.log()
