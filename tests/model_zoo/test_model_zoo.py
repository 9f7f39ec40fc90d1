"""vfnet_yolof.model_zoo: rows by name, and published weights from here, the cache or a server."""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import vfnet_yolof
from omegaconf import DictConfig
from PIL import Image
from tiny import shrink
from torch import nn
from vfnet_yolof import model_zoo
from vfnet_yolof.checkpoint import CheckpointError
from vfnet_yolof.cli.main import main
from vfnet_yolof.config import read as config_reader
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.model_zoo import files
from vfnet_yolof.model_zoo.files import find_weights
from vfnet_yolof.model_zoo.table import MMDETECTION, ROWS, Row, Weights

NAME = "vfnet_r50_fpn_1x"
ROW = f"vfnet/{NAME}"
PAGE = "https://page"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VFNET_YOLOF_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def tiny_config(name: str, trust: object = None) -> DictConfig:
    return shrink(load_config(name))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, str, nn.Module]:
    """Content and hash of a small stand-in for a published file, and the model that it fills."""
    monkeypatch.setattr(config_reader, "load_config", tiny_config)
    torch.manual_seed(1)
    model = model_zoo.get(NAME)
    path = tmp_path / "made.pth"
    torch.save({"model": model.state_dict(), "class_names": ["a", "b", "c"]}, path)
    content = path.read_bytes()
    path.unlink()
    return content, hashlib.sha256(content).hexdigest()[:8], model


class Handler(http.server.BaseHTTPRequestHandler):
    content = b""
    requests: list[str] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def use(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    monkeypatch.setitem(ROWS, ROW, Row(41.6, 41.6, weights))


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


class TestNames:
    @pytest.mark.parametrize("name", [NAME, ROW, f"{ROW}.py", f"configs/{ROW}.py"])
    def test_short_and_long(self, name: str) -> None:
        assert model_zoo.find_row(name) == ROW

    def test_an_error_names_the_nearest(self) -> None:
        with pytest.raises(KeyError, match="did you mean.*vfnet_r50_fpn_1x"):
            model_zoo.get_config("vfnet_r50_1x")

    def test_configurations_are_whole(self) -> None:
        config = model_zoo.get_config("gfl_r101_dcnv1_fpn_ms_2x")
        assert config.model.backbone.bottom_up.deform_version == 1
        assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= set(config)


class TestTable:
    def test_names_of_files_end_in_their_hash(self) -> None:
        for row in ROWS.values():
            if row.weights and row.weights.addresses:
                assert row.weights.file.endswith(f"-{row.weights.sha256}.pth")
                assert all(a.endswith(f"/{row.weights.file}") for a in row.weights.addresses)
            elif row.weights:
                assert row.weights.page.startswith("https://")

    def test_what_a_training_of_its_own_should_reach(self) -> None:
        assert ROWS["gfl/gfl_r101_fpn_ms_2x"].val == 44.9
        assert ROWS["gfl/gfl_r101_fpn_ms_2x"].weights_val == 44.7
        assert ROWS[ROW].weights_val == 41.6
        assert ROWS["atss/atss_r101_fpn_ms_2x"].weights_val is None


class TestWeights:
    def test_fetched_converted_and_loaded_once(self, published, server, cache, monkeypatch):
        content, digest, model = published
        Handler.content = content
        use(
            monkeypatch,
            Weights("made.pth", digest, (f"{server}/a/made.pth",), PAGE, MMDETECTION),
        )
        first = model_zoo.get(NAME, trained=True)
        assert all(torch.equal(v, first.state_dict()[k]) for k, v in model.state_dict().items())
        assert not first.training
        assert Handler.requests == ["/a/made.pth"]
        kept = left_in(cache)
        assert kept[0] == "made.pth"
        assert kept[1].startswith(NAME)
        assert len(kept) == 2
        changed = {p: p.stat().st_mtime_ns for p in cache.rglob("*.pth")}
        model_zoo.get(NAME, trained=True)
        assert Handler.requests == ["/a/made.pth"]
        assert {p: p.stat().st_mtime_ns for p in cache.rglob("*.pth")} == changed

    def test_a_local_file_comes_first(self, published, server, tmp_path, monkeypatch):
        content, digest, _ = published
        weights = Weights("made.pth", digest, (f"{server}/made.pth",), PAGE, MMDETECTION)
        use(monkeypatch, weights)
        (tmp_path / "made.pth").write_bytes(content)  # the working directory
        assert find_weights(weights) == Path("made.pth")
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "made.pth").write_bytes(content)
        assert find_weights(weights, [folder]) == folder / "made.pth"
        model_zoo.get(NAME, weights=folder)
        model_zoo.get(NAME, weights=folder / "made.pth")
        assert Handler.requests == []
        with pytest.raises(FileNotFoundError, match="nowhere"):
            model_zoo.get(NAME, weights=tmp_path / "nowhere")

    def test_what_the_other_detectron2_has_cached_is_read(self, tmp_path, cache, monkeypatch):
        """Frozen norms have batch counters in Detectron2's main branch, and none in 0.6."""

        def frozen_config(name: str, trust: object = None) -> DictConfig:
            config = tiny_config(name)
            config.model.backbone.bottom_up.norm = "BN"
            config.model.backbone.bottom_up.freeze_at = 2
            return config

        monkeypatch.setattr(config_reader, "load_config", frozen_config)
        source = tmp_path / "other.pth"
        torch.save({"model": model_zoo.get(NAME).state_dict()}, source)
        before = model_zoo.get(NAME, weights=source).state_dict()
        (converted,) = cache.rglob("*.pth")
        cached = torch.load(converted, weights_only=True)
        counter = "backbone.bottom_up.stem.conv1.norm.num_batches_tracked"
        if cached["model"].pop(counter, None) is None:
            cached["model"][counter] = torch.tensor(5)
        torch.save(cached, converted)
        again = model_zoo.get(NAME, weights=source).state_dict()
        assert again.keys() == before.keys()
        assert all(torch.equal(again[name], before[name]) for name in before)

    def test_without_weights_nothing_is_looked_for(self, published, cache, monkeypatch):
        use(monkeypatch, Weights("made.pth", "00000000", (), PAGE, MMDETECTION))
        assert not model_zoo.get(NAME).training
        assert left_in(cache) == []

    def test_another_file_of_that_name_is_refused(self, tmp_path):
        (tmp_path / "made.pth").write_bytes(b"something else")
        with pytest.raises(CheckpointError, match=r"not the published file.*starts with 12345678"):
            find_weights(Weights("made.pth", "12345678", (), PAGE, MMDETECTION))

    def test_what_comes_is_checked(self, server, cache):
        Handler.content = b"an error page"
        weights = Weights(
            "made.pth", "12345678", (f"{server}/made.pth",), "https://page", MMDETECTION
        )
        with pytest.raises(model_zoo.WeightsUnavailableError, match="SHA-256.*not 12345678"):
            find_weights(weights)
        assert left_in(cache) == []

    def test_the_next_address_is_tried(self, published, server, cache):
        content, digest, _ = published
        Handler.content = content
        addresses = ("http://127.0.0.1:1/made.pth", f"{server}/made.pth")
        path = find_weights(Weights("made.pth", digest, addresses, PAGE, MMDETECTION))
        assert path == cache / "made.pth"
        assert path.read_bytes() == content

    def test_no_weights_are_published(self):
        with pytest.raises(model_zoo.WeightsUnavailableError, match="no weights are published"):
            model_zoo.find_source("atss/atss_r101_fpn_ms_2x")

    def test_a_broken_connection_leaves_nothing(self, server, cache, monkeypatch):
        class Breaking:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def read(self, size):
                if not left_in(cache):
                    raise AssertionError("nothing is being written")
                raise ConnectionResetError("connection reset by peer")

        monkeypatch.setattr(files, "_open", lambda address, seconds: Breaking())
        weights = Weights(
            "made.pth", "12345678", (f"{server}/made.pth",), "https://page", MMDETECTION
        )
        with pytest.raises(model_zoo.WeightsUnavailableError, match="reset by peer"):
            find_weights(weights)
        assert left_in(cache) == []


class TestUnreachableHosts:
    FILE = "vfnet_r50_fpn_1x_coco_20201027-38db6f58.pth"

    def fails(self, cache: Path) -> float:
        start = time.monotonic()
        with pytest.raises(model_zoo.WeightsUnavailableError) as caught:
            model_zoo.get(NAME, trained=True)
        seconds = time.monotonic() - start
        message = str(caught.value)
        assert self.FILE in message
        assert "38db6f58" in message
        assert str(cache) in message
        assert message.count("http") >= 3  # both addresses and the page
        assert left_in(cache) == []
        return seconds

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr(config_reader, "load_config", tiny_config)

    def test_time_limit(self, cache, monkeypatch):
        assert files.ANSWER_SECONDS <= 12

        def hang(address, timeout):  # as the system does while it looks up a name
            time.sleep(5)

        monkeypatch.setattr(files, "ANSWER_SECONDS", 0.4)
        monkeypatch.setattr(files.urllib.request, "urlopen", hang)
        assert self.fails(cache) < 3

    def test_refused(self, cache, monkeypatch):
        def refuse(address, timeout):
            raise files.urllib.error.URLError(ConnectionRefusedError("refused"))

        monkeypatch.setattr(files.urllib.request, "urlopen", refuse)
        assert self.fails(cache) < 3


class TestPredictors:
    """A row's name is enough to predict with its published weights."""

    SMALL = "dataloader.test.mapper.augmentations=[]"

    @pytest.fixture
    def here(self, published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
        """The published file is in the working directory; it wants another threshold."""
        content, digest, model = published
        wanted = ("model.postprocessor.max_detections=7",)
        use(monkeypatch, Weights("made.pth", digest, (), PAGE, MMDETECTION, overrides=wanted))
        (tmp_path / "made.pth").write_bytes(content)
        return model

    def test_as_published(self, here: nn.Module) -> None:
        predictor = vfnet_yolof.from_zoo(NAME, optimized=False, overrides=[self.SMALL])
        state = predictor.model.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in here.state_dict().items())
        assert predictor.class_names == ["a", "b", "c"]
        assert predictor.model.postprocessor.max_detections == 7
        assert len(predictor.cfg.augmentations.augs) == 0

    def test_with_weights_of_ones_own(self, here: nn.Module, tmp_path: Path) -> None:
        own = {key: value + 1 for key, value in here.state_dict().items()}
        torch.save({"model": own}, tmp_path / "own.pth")
        predictor = vfnet_yolof.from_zoo(NAME, tmp_path / "own.pth", device="cpu")
        assert predictor.model.postprocessor.max_detections == 100

    def test_the_name_is_a_configs_too(self, here: nn.Module, tmp_path: Path) -> None:
        assert vfnet_yolof.Predictor(NAME, tmp_path / "made.pth").class_names == ["a", "b", "c"]

    def test_what_is_not_to_be_had(self, published, cache: Path, monkeypatch) -> None:
        use(monkeypatch, Weights("made.pth", "12345678", (), PAGE, MMDETECTION))
        with pytest.raises(model_zoo.WeightsUnavailableError, match=f"{PAGE}.*{cache}"):
            vfnet_yolof.from_zoo(NAME)
        with pytest.raises(KeyError, match="did you mean"):
            vfnet_yolof.from_zoo("vfnet_r50_1x")

    def test_on_the_command_line(self, here, tmp_path: Path, monkeypatch, capsys) -> None:
        Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
        arguments = ["predict", NAME, "a.png", "--output", "out", "--device", "cpu", self.SMALL]
        assert main(arguments) == 0
        assert "published weights: made.pth" in capsys.readouterr().out
        assert left_in(tmp_path / "out") == ["a.png"]
        use(monkeypatch, Weights("other.pth", "12345678", (), PAGE, MMDETECTION))
        assert main(arguments) == 2
        assert f"Get it from {PAGE}" in capsys.readouterr().err
        assert main([*arguments, "train.init_checkpoint=made.pth"]) == 0
        use(monkeypatch, None)
        assert main(arguments) == 2
        assert f"no weights are published for {ROW}" in capsys.readouterr().err
