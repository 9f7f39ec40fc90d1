"""However a run ends, its weights are there, and an evaluation never costs any."""

import errno
import json
import os
import signal
import tempfile

import pytest
import torch
from engine_toy import ToyEvaluator
from toy_runs import FOLDER, REPOSITORY


@pytest.fixture
def at_call(monkeypatch):
    """Let a method do something else first, at one of its calls."""

    def change(owner, name, number, action):
        original, calls = getattr(owner, name), []

        def called(self, *args, **kwargs):
            calls.append(self)
            if len(calls) == number:
                action()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, called)

    return change


def fail(error):
    def action():
        raise error

    return action


def assert_same_run(a, b):
    """Weights, momentum, averages and what the hooks know are equal bit for bit."""
    a, b = a.load(), b.load()
    assert a["iteration"] == b["iteration"] == 11
    for key in ("model", "ema"):
        for name in a.get(key, {}):
            assert torch.equal(a[key][name], b[key][name]), name
    a, b = a["trainer"], b["trainer"]
    for one, other in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
    assert a["hooks"].get("BestCheckpointHook") == b["hooks"].get("BestCheckpointHook")


def error_line(capsys):
    """The one sentence that a user gets."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


class TestEvaluationFails:
    unexpected = TypeError("a field that nobody expected")

    def test_in_the_middle_training_goes_on_as_if_it_had_not_been_tried(self, make_toy, at_call):
        calm, disturbed = make_toy("calm"), make_toy("disturbed")
        assert calm.run("train.eval_period=0") == 0
        at_call(ToyEvaluator, "process", 9, fail(self.unexpected))  # in the second evaluation
        assert disturbed.run("train.val_loss.enabled=True") == 0
        a, b = calm.load()["model"], disturbed.load()["model"]
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert "Evaluation after iteration 7 failed (1 so far): TypeError: a field" in (
            disturbed.log()
        )
        lines = [
            json.loads(x) for x in (disturbed.output_dir / "metrics.json").read_text().splitlines()
        ]
        scores = {x["iteration"]: x.get("toy/score") for x in lines if "val_loss/loss_box" in x}
        assert scores.keys() == {3, 7, 12}
        assert [k for k, score in scores.items() if score is None] == [7]
        assert {x["failed_evaluations"] for x in lines if "failed_evaluations" in x} == {1}

    def test_at_the_end_the_weights_are_there_and_the_status_tells(self, toy, at_call, capsys):
        at_call(ToyEvaluator, "evaluate", 3, fail(OSError(28, "No space left on device")))
        assert toy.run() == 3
        message = error_line(capsys)
        assert message.startswith("error: The evaluation after training failed: OSError:")
        assert "No space left on device" in message
        assert f"its weights are in {toy.output_dir}/model_final.pth" in message
        assert toy.load()["iteration"] == 11
        assert (
            toy.run("--eval-only", f"train.init_checkpoint={toy.output_dir}/model_final.pth") == 0
        )
        assert toy.run("--resume") == 0  # makes up for it

    def test_a_picture_that_only_the_evaluation_finds_broken(self, toy, monkeypatch, capsys):
        """Not among the sixteen that are decoded at the start."""
        monkeypatch.setenv("TOY_BROKEN", "toy_39.png")
        assert toy.run("dataloader.test.dataset.size=40") == 3
        assert "Could not load toy_39.png (record 39): OSError: image file is" in error_line(capsys)
        assert toy.load()["iteration"] == 11
        assert "failed (3 so far)" in toy.log()

    def test_a_broken_picture_in_the_sample_is_refused_at_the_start(self, toy, monkeypatch, capsys):
        monkeypatch.setenv("TOY_BROKEN", "toy_4.png")
        assert toy.run("dataloader.train.dataset.size=4") == 2
        message = error_line(capsys)
        assert "dataloader.test: 1 of 6 images cannot be evaluated on: toy_4.png" in message
        assert not list(toy.output_dir.glob("*.pth"))

    def test_an_evaluator_that_cannot_be_built_is_refused_at_the_start(
        self, toy, monkeypatch, capsys
    ):
        def init(self):
            raise ValueError("no such data set")

        monkeypatch.setattr(ToyEvaluator, "__init__", init)
        assert toy.run() == 2
        assert "dataloader.evaluator: no such data set" in error_line(capsys)

    def test_that_of_the_averaged_weights(self, toy, at_call, capsys):
        swa = ["train.swa.enabled=True", "train.swa.cycles=2", "train.eval_period=0"]
        at_call(ToyEvaluator, "evaluate", 2, fail(self.unexpected))
        assert toy.run(*swa) == 3
        assert "TypeError: a field that nobody expected" in error_line(capsys)
        assert toy.load("model_swa")["swa_parts"] == 2
        assert toy.load()["iteration"] == 11

    def test_killed_in_an_evaluation_the_run_makes_up_for_it(self, make_toy, at_call):
        class Killed(BaseException):
            """As SIGKILL: nobody is told."""

        options = ["train.ema.enabled=True", "train.checkpointer.period=100"]
        whole, killed = make_toy("whole"), make_toy("killed")
        assert whole.run(*options) == 0
        at_call(ToyEvaluator, "process", 9, fail(Killed()))
        with pytest.raises(Killed):
            killed.run(*options)
        assert killed.tagged() == "model_0000007"
        assert killed.run("--resume", *options) == 0
        assert "before its evaluation after iteration 7: now" in killed.log()
        assert_same_run(whole, killed)
        # what was written because of an evaluation alone has made room
        assert sorted(p.name for p in killed.output_dir.glob("model_0*.pth")) == []


class TestStepFails:
    """The state before the failing step is saved, and goes on bit for bit."""

    options = ("train.eval_period=5", "train.checkpointer.period=100", "train.ema.enabled=True")

    def whole(self, make_toy):
        toy = make_toy("whole")
        assert toy.run(*self.options) == 0
        return toy

    def test_a_loss_that_is_not_finite(self, make_toy, monkeypatch, capsys):
        whole, failed = self.whole(make_toy), make_toy("failed")
        monkeypatch.setenv("TOY_NAN_AT", "8")
        assert failed.run(*self.options) == 1
        assert "Non-finite loss at iteration 7" in error_line(capsys)
        assert failed.tagged() == "model_0000006"
        monkeypatch.delenv("TOY_NAN_AT")
        assert failed.run("--resume", *self.options) == 0
        assert_same_run(whole, failed)

    def test_an_error_in_the_model(self, make_toy, monkeypatch, capsys):
        """After batch norm and dropout have had their part."""
        whole, failed = self.whole(make_toy), make_toy("failed")
        monkeypatch.setenv("TOY_RAISE_AT", "8")
        assert failed.run(*self.options) == 1
        assert "Iteration 7 failed with RuntimeError: no such luck" in error_line(capsys)
        assert "The state after iteration 6 is saved" in failed.log()
        monkeypatch.delenv("TOY_RAISE_AT")
        assert failed.run("--resume", *self.options) == 0
        assert_same_run(whole, failed)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_broken_picture(self, make_toy, monkeypatch, capsys, workers):
        options = [*self.options, f"dataloader.train.num_workers={workers}"]
        whole, failed = self.whole(make_toy), make_toy("failed")
        # the last that this seed shows: the eleventh of twelve, in the third batch
        monkeypatch.setenv("TOY_BROKEN", "toy_11.png")
        assert failed.run(*options, "dataloader.test.dataset.size=6") == 1
        assert "Could not load toy_11.png" in error_line(capsys)
        monkeypatch.delenv("TOY_BROKEN")
        assert int(failed.tagged().removeprefix("model_")) < 11
        assert failed.run("--resume", *options) == 0
        assert_same_run(whole, failed)

    def test_an_error_while_weights_change_saves_nothing(self, toy, at_call):
        at_call(torch.optim.SGD, "step", 8, fail(MemoryError()))
        assert toy.run(*self.options) == 1
        assert "The weights were being changed when it happened" in toy.log()
        assert toy.tagged() == "model_0000004"

    def test_weights_that_are_not_finite_are_not_saved_over_sound_ones(self, toy, monkeypatch):
        original, steps = torch.optim.SGD.step, []

        def step(optimizer, *args):
            original(optimizer, *args)
            steps.append(optimizer)
            if len(steps) == 6:
                optimizer.param_groups[0]["params"][0].data.fill_(float("inf"))

        monkeypatch.setattr(torch.optim.SGD, "step", step)
        monkeypatch.setenv("TOY_RAISE_AT", "7")
        assert toy.run(*self.options) == 1
        assert "The state before the error was not saved: A weight became infinite" in toy.log()
        assert toy.tagged() == "model_0000004"


class TestSignals:
    @pytest.mark.parametrize("name", ["TERM", "HUP", "USR1"])
    def test_they_do_what_ctrl_c_does(self, make_toy, name):
        whole, stopped = make_toy("whole"), make_toy("stopped")
        number = getattr(signal, f"SIG{name}")
        before = signal.signal(number, signal.SIG_DFL)  # under nohup a new process ignores SIGHUP
        try:
            process = stopped.start(**{f"TOY_{name}_AT": "6"})
        finally:
            signal.signal(number, before)
        assert process.returncode == 128 + number, process.stderr[-2000:]
        assert "Traceback" not in process.stderr
        assert f"Interrupted at iteration 6; continue with --resume (SIG{name})" in process.stdout
        assert stopped.tagged() == "model_0000005"
        assert whole.run() == 0
        assert stopped.run("--resume") == 0
        assert_same_run(whole, stopped)

    def test_in_an_evaluation(self, make_toy, at_call):
        """It is given up, and made up for when the run is resumed."""
        whole, stopped = make_toy("whole"), make_toy("stopped")
        assert whole.run() == 0
        before = signal.getsignal(signal.SIGTERM)
        at_call(ToyEvaluator, "process", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert stopped.run() == 143
        assert signal.getsignal(signal.SIGTERM) is before
        assert stopped.tagged() == "model_0000007"
        assert "The evaluation was given up" in stopped.log()
        assert stopped.run("--resume") == 0
        assert_same_run(whole, stopped)

    def test_in_the_last_evaluation(self, toy, at_call):
        at_call(ToyEvaluator, "process", 13, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert toy.run() == 138
        assert toy.tagged() == "model_final"
        assert toy.load()["trainer"]["hooks"]["BestCheckpointHook"]["seen_iteration"] == 7
        assert toy.run("--resume") == 0
        assert toy.load()["trainer"]["hooks"]["BestCheckpointHook"]["seen_iteration"] == 11

    def test_a_second_ctrl_c_stops_at_once_and_nothing_else_does(self):
        from vfnet_yolof.engine.ending import StopRequest

        asked = []
        request = StopRequest(lambda: asked.append(True))
        request(signal.SIGTERM, None)
        request(signal.SIGTERM, None)
        request(signal.SIGINT, None)  # the same wish, passed on by a launcher
        assert asked == [True]
        assert request.signum == signal.SIGTERM
        request._at -= 2.0
        request(signal.SIGHUP, None)
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            request(signal.SIGINT, None)
        signal.signal(signal.SIGINT, before)

    def test_a_ctrl_c_while_python_is_torn_down_changes_nothing(self, toy, tmp_path):
        """Python runs ``sitecustomize`` first, so that what it registers comes last."""
        late = "import atexit, os, time\n"
        late += "def stop():\n    os.kill(os.getpid(), 2)\n    time.sleep(0.1)\n"
        late += "atexit.register(stop)\n"
        (tmp_path / "sitecustomize.py").write_text(late)
        paths = [str(tmp_path), *(str(x) for x in (REPOSITORY / "projects", FOLDER))]
        done = toy.start("train.max_iter=2", "train.eval_period=0", PYTHONPATH=":".join(paths))
        assert done.returncode == 0
        assert "Traceback" not in done.stderr

    def test_below_nohup_a_closed_terminal_stops_nothing(self):
        from vfnet_yolof.engine.ending import STOPPING, handled

        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with handled(lambda signum, frame: None):
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                assert callable(signal.getsignal(signal.SIGTERM))
        finally:
            signal.signal(signal.SIGHUP, before)
        assert signal.SIGUSR1 in STOPPING


class TestOutput:
    def test_a_file_in_the_place_of_the_folder(self, toy, capsys):
        toy.output_dir.write_text("mine")
        assert toy.run() == 4
        assert error_line(capsys) == f"error: Cannot write {toy.output_dir}: File exists."
        assert toy.output_dir.read_text() == "mine"

    def test_a_file_in_the_place_of_a_folder_above(self, toy, capsys):
        toy.output_dir.write_text("mine")
        toy.output_dir = toy.output_dir / "deeper" / "run"
        assert toy.run() == 4
        message = error_line(capsys)
        assert str(toy.output_dir) in message
        assert "Not a directory" in message

    @pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
    def test_a_folder_that_cannot_be_written_to(self, toy, monkeypatch, capsys, code):
        """Whatever its permissions say: the administrator may write where a file system may not."""

        def refuse(*args, **kwargs):
            raise OSError(code, os.strerror(code), str(toy.output_dir / "probe"))

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
        assert toy.run() == 4
        message = error_line(capsys)
        assert message.startswith(f"error: Cannot write {toy.output_dir}: {os.strerror(code)}")
        assert list(toy.output_dir.iterdir()) == []

    def test_a_folder_in_the_place_of_a_checkpoint(self, toy, capsys):
        """Found when it is to be written: what there was before stays what to go on from."""
        (toy.output_dir / "model_0000007.pth").mkdir(parents=True)
        assert toy.run() == 4
        message = error_line(capsys)
        assert f"{toy.output_dir}/model_0000007.pth" in message
        assert "Is a directory" in message or "cannot be written" in message
        assert toy.tagged() == "model_0000003"
        assert not list(toy.output_dir.glob("*.tmp"))

    def test_a_full_disk(self, make_toy):
        """A limit on the size of files stands for it: the write fails half way."""
        toy = make_toy()
        assert toy.run("train.max_iter=4", "train.eval_period=0") == 0
        old = (toy.output_dir / "model_final.pth").read_bytes()
        limit = len(old) // 2 // 1024
        command = f'ulimit -f {limit}; exec "$0" "$@"'
        process = toy.start("--resume", "train.eval_period=0", shell=command)
        assert process.returncode == 4, process.stderr[-2000:]
        lines = process.stderr.strip().splitlines()
        assert not any("Traceback" in line for line in lines)
        assert lines[-1].startswith("error: ")
        assert "model_0000007.pth" in lines[-1]
        assert "too large" in lines[-1].lower() or "larger than" in lines[-1]
        assert (toy.output_dir / "model_final.pth").read_bytes() == old
        assert toy.tagged() == "model_final"
        assert not list(toy.output_dir.glob("*.tmp"))
        assert toy.run("--resume", "train.eval_period=0") == 0
