"""Videos and cameras: drawn frame by frame, and what cannot be opened is named."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from demo_inputs import read_video, write_video
from vfnet_yolof import Predictor
from vfnet_yolof.inference.demo import InputError, collect_inputs, run_on_camera, run_on_files


def test_video(predictor: Predictor, tmp_path: Path):
    video = write_video(tmp_path / "street.avi", frames=5)
    result = run_on_files(predictor, collect_inputs([video]), tmp_path / "out")
    assert result.written == [tmp_path / "out" / "street.mp4"]
    assert read_video(result.written[0]) == (5, pytest.approx(12.5), (8 * 96, 8 * 64))
    assert result.num_images == 5
    assert {r["frame"] for r in result.records} == set(range(5))
    assert {r["file_name"] for r in result.records} == {"street.avi"}
    assert list((tmp_path / "out").iterdir()) == result.written


def test_video_stops_after_max_frames(predictor: Predictor, tmp_path: Path):
    video = write_video(tmp_path / "street.mp4", frames=5)
    result = run_on_files(predictor, collect_inputs([video]), tmp_path / "out", max_frames=4)
    assert read_video(result.written[0])[0] == 4


def test_broken_video_is_named(predictor: Predictor, tmp_path: Path):
    video = tmp_path / "broken.mp4"
    video.write_bytes(b"no video")
    result = run_on_files(predictor, collect_inputs([video]), tmp_path / "out")
    assert result.failures == [
        (str(video), "cannot open broken.mp4: not a video that OpenCV reads")
    ]
    assert not result.written


class Camera:
    """Three frames, then Ctrl-C."""

    def __init__(self, number):
        self.frames = [np.zeros((64, 96, 3), np.uint8)] * 3 if number == 7 else []
        self.opened = number == 7

    def isOpened(self):
        return self.opened

    def get(self, _):
        return 0.0

    def read(self):
        if not self.frames:
            raise KeyboardInterrupt
        return True, self.frames.pop()

    def release(self):
        self.opened = False


def test_camera_is_recorded_until_interrupted(predictor: Predictor, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(predictor, "batch_size", 1)
    result = run_on_camera(predictor, 7, tmp_path)
    with pytest.raises(InputError, match="cannot open camera 5"):
        run_on_camera(predictor, 5, tmp_path)
    monkeypatch.undo()
    assert result.num_images == 3
    assert read_video(tmp_path / "camera_7.mp4") == (3, pytest.approx(25.0), (8 * 96, 8 * 64))
