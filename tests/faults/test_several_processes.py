"""However a run of several processes ends, all of them do, and its weights are there."""

import os
import signal
import time

import pytest

CPU = ("--num-gpus", "0")
TWO = (*CPU, "--num-processes", "2")
LONG = ("train.max_iter=200000", "train.eval_period=0", "train.checkpointer.period=50")

pytestmark = pytest.mark.slow


def stop(process, toy, signum, send=os.kill):
    """Send a signal to the launcher when the run has come to its first checkpoints."""
    deadline = time.monotonic() + 120
    while not (toy.output_dir / "last_checkpoint").exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    send(process.pid, signum)
    start = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert time.monotonic() - start < 50  # nothing that it has started outlives it
    return out, err


def assert_resumable(toy):
    last = toy.load(toy.tagged())
    assert len(last["trainer"]["rng"]) == 2
    assert toy.tagged() == f"model_{last['iteration']:07d}"
    more = [f"train.max_iter={last['iteration'] + 3}", "train.eval_period=0"]
    assert toy.start(*TWO, "--resume", *more).returncode == 0


def test_torchrun_passes_sigterm_on(toy):
    process = toy.begin(*CPU, *LONG, torchrun=2)
    out, err = stop(process, toy, signal.SIGTERM)
    assert "Interrupted at iteration" in out, err[-3000:]
    assert_resumable(toy)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_so_does_the_launcher_of_the_project(toy, signum):
    process = toy.begin(*TWO, *LONG, prepared=signum != signal.SIGTERM)  # one from nothing
    out, err = stop(process, toy, signum)
    assert process.returncode == 128 + signum, err[-3000:]
    assert "Interrupted at iteration" in out
    assert_resumable(toy)


def test_a_signal_to_the_whole_group_leaves_workers_alive_until_the_end(toy):
    """As Slurm sends it: the iteration that is being finished needs its workers."""
    process = toy.begin(*CPU, *LONG, "dataloader.train.num_workers=2")
    out, err = stop(process, toy, signal.SIGTERM, os.killpg)
    assert process.returncode == 143, err[-3000:]
    assert "Traceback" not in err
    assert "Interrupted at iteration" in out


def test_a_signal_to_one_process_stops_all(toy):
    done = toy.start(*TWO, "train.eval_period=0", TOY_TERM_AT="6", TOY_RANK="1")
    assert done.returncode == 143, done.stderr[-3000:]
    assert_resumable(toy)


@pytest.mark.parametrize("torchrun", [0, 2])
def test_an_error_on_one_process_ends_all_and_the_state_is_saved(toy, torchrun):
    """Nobody waits for the process that has gone: the main one saves what it knows alone."""
    arguments = CPU if torchrun else TWO
    start = time.monotonic()
    done = toy.start(
        *(*arguments, "train.eval_period=0", "train.checkpointer.period=100"),
        torchrun=torchrun,
        TOY_RAISE_AT="6",
        TOY_RANK="1",
    )
    assert done.returncode != 0
    assert "no such luck" in done.stderr
    assert time.monotonic() - start < 200  # the time limit of collectives is 30 minutes
    last = toy.load(toy.tagged())
    assert last["iteration"] == 4
    assert len(last["trainer"]["rng"]) == 1  # the other's random numbers are lost with it
    assert toy.start(*TWO, "--resume", "train.eval_period=0").returncode == 0
    assert "with the random numbers of 1" in toy.log()


def test_a_broken_picture_on_one_process_is_told_to_all(toy):
    done = toy.start(*TWO, "train.eval_period=0", TOY_BROKEN="toy_11.png")
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "Could not load toy_11.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert_resumable(toy)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_evaluation_that_fails_on_one_process(toy, rank):
    done = toy.start(*TWO, TOY_EVALUATION_FAILS=rank)
    assert done.returncode == 3, done.stderr[-3000:]
    assert "error: The evaluation after training failed: " in done.stderr
    assert "a field that nobody expected" in done.stderr
    assert toy.load()["iteration"] == 11
    assert "failed (3 so far)" in toy.log()


def test_a_killed_process_is_named(toy):
    done = toy.start(*TWO, "train.eval_period=0", TOY_KILL_AT="6", TOY_RANK="1")
    assert done.returncode == 137
    assert "error: The process of rank 1 (pid " in done.stderr
    assert toy.load(toy.tagged())["iteration"] == 4


def test_a_checkpoint_that_the_main_process_cannot_write_ends_all(toy):
    (toy.output_dir / "model_0000007.pth").mkdir(parents=True)
    done = toy.start(*TWO, "train.eval_period=0")
    assert done.returncode == 4, done.stderr[-3000:]
    assert done.stderr.count("error: ") == 1
    assert toy.tagged() == "model_0000003"
