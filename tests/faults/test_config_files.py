"""Configurations in YAML are data: nothing that they name is run unless the user says so."""

from __future__ import annotations

import argparse
import inspect
import math
import re
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig
from vfnet_yolof.analysis.training_images import save_training_pictures
from vfnet_yolof.cli.training import command_line
from vfnet_yolof.config.allowed_targets import ALLOWED_TARGETS
from vfnet_yolof.config.inference import read_inference_config
from vfnet_yolof.config.options import ConfigError
from vfnet_yolof.config.packaged import config_dir, config_names, is_yacs_file, load_config
from vfnet_yolof.config.read import check_interpolations
from vfnet_yolof.config.yacs import components, load_yacs
from vfnet_yolof.config.yaml_files import (
    Trust,
    add_trust_arguments,
    check_targets,
    load_yaml,
    trust_from,
)

MARK = "a file that hostile configurations would make"
YACS = "_BASE_: {base}\nMODEL:\n  META_ARCHITECTURE: VFNet\n"


@pytest.fixture
def mark(tmp_path: Path):
    """The path that hostile files write to; it must not exist at the end."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "code of a configuration was run"


def hostile(kind: str, mark: Path) -> str:
    """Text of a configuration that would make the file ``mark``."""
    call = f'!!python/object/apply:os.system ["touch {mark}"]'
    return {
        "lazy": f"model: {call}\ntrain: {{}}\n",
        "lazy new": f'model: !!python/object/new:os.system ["touch {mark}"]\n',
        "lazy name": f"model: {{_target_: !!python/name:os.system '', command: touch {mark}}}\n",
        "yacs": f"MODEL: {{WEIGHTS: {call}}}\n",
        "module": "MODEL: {WEIGHTS: !!python/module:antigravity ''}\n",
    }[kind]


@pytest.mark.parametrize("kind", ["lazy", "lazy new", "lazy name", "yacs", "module"])
def test_tags_of_python_are_refused_in_training_and_prediction(tmp_path, mark, capsys, kind):
    file = tmp_path / "config.yaml"
    file.write_text(hostile(kind, mark))
    with pytest.raises(ValueError, match=r"config\.yaml, line 1: .*read as data"):
        read_inference_config(file)
    assert command_line(["--config-file", str(file), "--num-gpus", "0"]) == 2
    assert "read as data" in capsys.readouterr().err


def test_files_that_others_inherit_from_are_read_as_data_too(tmp_path, mark):
    (tmp_path / "base.yaml").write_text(hostile("yacs", mark))
    file = tmp_path / "child.yaml"
    file.write_text(YACS.format(base="base.yaml"))
    with pytest.raises(ConfigError, match=r"base\.yaml, line 1"):
        load_yacs(str(file))


def lazy_file(tmp_path: Path, model: str) -> Path:
    file = tmp_path / "saved.yaml"
    augmentations = "dataloader: {test: {mapper: {augmentations: [], image_format: RGB}}}"
    file.write_text(f"model: {model}\n{augmentations}\n")
    return file


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "torch.hub.load",  # why whole packages are not allowed
        "torch.load",
        "torch.nn.modules.module.torch.hub.load",  # what a module has imported is not its own
        "torch.optim.adam._fused_adam",
        "vfnet_yolof.data.loader.os.system",
        "vfnet_yolof.engine.launch.launch",
        "detectron2.config.instantiate",
        "builtins.eval",
        "not a name",
        "${train.x}",
    ],
)
def test_a_target_must_be_known_to_be_harmless(tmp_path, target):
    file = lazy_file(tmp_path, f'{{_target_: "{target}", command: "true"}}')
    with pytest.raises(ValueError, match=r"saved\.yaml: model\._target_ names .*--allow"):
        load_config(file)


def test_a_target_that_is_itself_a_call_is_refused(tmp_path):
    file = lazy_file(tmp_path, "{_target_: {_target_: torch.nn.ReLU}}")
    with pytest.raises(ValueError, match="model._target_ names"):
        load_config(file)


@pytest.mark.parametrize(
    "value",
    [
        "${oc.create:'{_target_: os.system, command: ls}'}",
        "${oc.env:HOME}",
        "x ${ oc.decode :'1'} y",
        "${${train.which}:1}",
        "${unclosed",
    ],
)
def test_interpolations_that_call_functions_are_refused(tmp_path, value):
    file = lazy_file(tmp_path, f'{{_target_: torch.nn.Linear, in_features: "{value}"}}')
    with pytest.raises(ValueError, match="only references to other keys"):
        load_config(file)


def test_what_the_user_allows_is_taken(tmp_path):
    file = lazy_file(tmp_path, "{_target_: fractions.Fraction, numerator: 1}")
    for trust in (Trust(("fractions",)), Trust(("fractions.Fraction",)), Trust(everything=True)):
        assert load_config(file, trust).model.numerator == 1
    with pytest.raises(ValueError, match="fractions.Fraction"):
        load_config(file, Trust(("fraction", "fractions.Fractio")))


def test_functions_that_are_handed_over_must_be_allowed_too(tmp_path):
    file = lazy_file(tmp_path, "{_target_: torch.nn.ReLU, hook: !!python/name:math.sqrt ''}")
    with pytest.raises(ValueError, match=r"line 1: the tag names math\.sqrt.*--allow math\.sqrt"):
        load_config(file)
    assert load_config(file, Trust(("math",))).model.hook is math.sqrt


def test_a_trusted_file_may_do_what_it_wants(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("MODEL: {WEIGHTS: !!python/object/apply:os.path.join [a, b]}\n")
    assert load_yacs(str(file), trust=Trust(everything=True)).MODEL.WEIGHTS == "a/b"


def test_the_arguments_of_the_tools():
    parser = argparse.ArgumentParser()
    add_trust_arguments(parser)
    given = parser.parse_args(["--allow", "a.b", "--allow", "c"])
    assert trust_from(given) == Trust(("a.b", "c"))
    assert trust_from(parser.parse_args(["--trust-config"])).everything
    assert trust_from(parser.parse_args([])) == Trust()


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.SiLU",
        "torch.nn.modules.conv.Conv2d",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.StepLR",
        "vfnet_yolof.modeling.meta_arch.VFNet",
        "vfnet_yolof.modeling.meta_arch.vfnet.VFNet",
        "detectron2.data.transforms.RandomFlip",
    ],
)
def test_usual_targets_are_found_by_all_their_names(target):
    check_targets({"a": [{"_target_": target}]}, "file", Trust())


def targets(node) -> set[str]:
    """Canonical names of all that a configuration calls."""
    found: set[str] = set()
    if isinstance(node, DictConfig):
        for key in node:
            child = node._get_node(key)
            if key == "_target_":
                value = child._value() if hasattr(child, "_value") else child
                found.add(value if isinstance(value, str) else qualified(value))
            elif not child._is_interpolation():
                found |= targets(child)
    elif isinstance(node, ListConfig):
        for child in node._iter_ex(resolve=False):
            found |= targets(child)
    return found


def qualified(target) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def test_the_list_has_what_the_packaged_configurations_call_and_nothing_that_is_gone():
    used: set[str] = set()
    for name in config_names():
        path = str(config_dir() / name)
        used |= targets(components(load_yacs(path)) if is_yacs_file(path) else load_config(path))
    from detectron2.utils.registry import locate

    # Detectron2's main branch names a dataclass by the package that offers it.
    own = {qualified(locate(n)) for n in used if not n.startswith("torch.")}
    assert own - ALLOWED_TARGETS == set()
    for name in sorted(ALLOWED_TARGETS):
        assert qualified(locate(name)) == name, name
        assert inspect.isclass(locate(name)) or inspect.isfunction(locate(name))


def test_a_saved_configuration_is_read_as_it_was(tmp_path):
    cfg = load_config("gfl/gfl_r50_fpn_1x.py")
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    LazyConfig.save(load_config(tmp_path / "config.yaml"), str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()


DEEP = "[" * 5000 + "]" * 5000
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a\n- b\n", "a configuration is a mapping"),
        ("just text", "a configuration is a mapping"),
        ("a: [1", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' occurs twice"),
        ("a: &x [*x]\n", "contains itself"),
        (f"a: {DEEP}\n", "nested too deeply"),
        (LAUGHS, "more than 1000000 values"),
        ("a: \x00", "not valid YAML"),
        (b"a: \xff\xfe", "not UTF-8"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, message):
    file = tmp_path / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        is_yacs_file(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(ValueError, match="no regular file"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("child.yaml", "_BASE_ leads back to child.yaml"),
        ("https://example.com/base.yaml", "files on this machine"),
        ("{a: b}", "files on this machine"),
        ("5", "files on this machine"),
    ],
)
def test_bases_that_cannot_be_followed(tmp_path, base, message):
    file = tmp_path / "child.yaml"
    file.write_text(YACS.format(base=f"[{base}]"))
    with pytest.raises(ConfigError, match=message):
        load_yacs(str(file))


def test_a_base_that_is_missing(tmp_path):
    file = tmp_path / "child.yaml"
    file.write_text(YACS.format(base="gone.yaml"))
    with pytest.raises(FileNotFoundError, match=r"child\.yaml: _BASE_ names gone\.yaml"):
        load_yacs(str(file))


def test_a_python_configuration_that_fails_is_named_with_its_line(tmp_path):
    file = tmp_path / "config.py"
    file.write_text("model = dict()\nmodel.depth = undefined\n")
    with pytest.raises(ValueError, match=r"config\.py, line 2: NameError: .*undefined"):
        load_config(file)
    file.write_text("model = (\n")
    with pytest.raises(ValueError, match=r"config\.py: SyntaxError"):
        load_config(file)


def test_references_without_an_aim_are_found_before_anything_is_built():
    cfg = load_config("vfnet/vfnet_small.py")
    check_interpolations(cfg)
    cfg.dataloader.train.total_batch_size = "${train.not_there}"
    with pytest.raises(ConfigError, match=r"dataloader\.train\.total_batch_size is .*not_there"):
        check_interpolations(cfg)


REST = {
    "train": "{}",
    "optimizer": "{}",
    "lr_multiplier": "{}",
    "dataloader": "{train: {}, test: {mapper: {augmentations: [], image_format: RGB}}}",
}
LINEAR = "model: {_target_: torch.nn.Linear, in_features: 1, out_features: %s}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {_target_: torch.nn.Linear, nonsense: 3}", "unexpected keyword argument"),
        ("model: {_target_: torch.nn.Linear}", "missing 2 required"),
        (LINEAR % "10000000000000", "memory"),
        (LINEAR % "'???'", "Missing mandatory value: model.out_features"),
        (LINEAR % "'${nope.x}'", "Interpolation key 'nope.x' not found"),
        (LINEAR % "'${model.out_features}'", "Recursive interpolation"),
        (LINEAR % "2001-13-45", "a value cannot be read: month must be in"),
        (LINEAR % ("9" * 5000), "a value cannot be read: Exceeds the limit"),
        ("model: '${nope}'", "Interpolation key 'nope' not found"),
        ("model: just text", "model must be a mapping"),
        ("model: [1, 2]", "model must be a mapping"),
        ("model: null", "model must be a mapping"),
        ("model: {a: 1}", "not a model; it needs a _target_"),
        ("model: {!!binary X3RhcmdldF8=: os.system}", "line 1: a key must be a word"),
        ("model: {null: 1}", "Incompatible key type 'NoneType'"),
        ("model: {[a, b]: 1}", "line 1: a key must be a word"),
        ("MODEL: {META_ARCHITECTURE: os.system}", "os.system"),
        ("MODEL: 5", "config.yaml: MODEL must be a mapping of keys to values, got 5"),
        ("MODEL: {RESNETS: 5}", "config.yaml: MODEL.RESNETS must be a mapping of keys to"),
        ("VERSION: banana\nMODEL: {}", "config.yaml: VERSION must be a whole number"),
        ("_BASE_: 7\nMODEL: {META_ARCHITECTURE: VFNet}", "_BASE_ must name files"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_sentence(tmp_path, capsys, text, message):
    file = tmp_path / "config.yaml"
    rest = "".join(f"{key}: {value}\n" for key, value in REST.items())
    file.write_text(text + "\n" + ("" if "MODEL" in text else rest))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_inference_config(file).build_model()
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    output = f"--output-dir={tmp_path / 'run'}"
    assert command_line(["--config-file", str(file), "--num-gpus", "0", output]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("train", "[1]", "train must be a mapping"),
        ("train", "null", "train must be a mapping"),
        ("train", "{output_dir: '${nope}'}", "train.output_dir cannot be resolved"),
        ("dataloader", "hello", "dataloader must be a mapping"),
        ("optimizer", "3", "optimizer must be a mapping"),
        ("optimizer", "{}", "optimizer: Missing key params"),
    ],
)
def test_sections_that_are_none(tmp_path, capsys, section, value, message):
    file = tmp_path / "config.yaml"
    parts = {**REST, "model": "{_target_: torch.nn.Linear, in_features: 1, out_features: 1}"}
    file.write_text("".join(f"{k}: {v}\n" for k, v in {**parts, section: value}.items()))
    output = f"--output-dir={tmp_path / 'run'}"
    assert command_line(["--config-file", str(file), "--num-gpus", "0", output]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_pictures_of_a_configuration_without_training_data(tmp_path):
    cfg = load_config(lazy_file(tmp_path, "{_target_: torch.nn.ReLU}"))
    with pytest.raises(ValueError, match="no training data to show: Missing key train"):
        save_training_pictures(cfg, tmp_path / "pictures")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--output-dir=", "--output is empty"),
        ("train.output_dir=", "train.output_dir is empty"),
        ("train.output_dir=${nope}", "train.output_dir cannot be resolved"),
    ],
)
def test_an_output_folder_without_a_name(capsys, argument, message):
    """As of a shell variable that is not set: nothing is written to the folder of the config."""
    assert command_line(["--config-file", "vfnet/vfnet_small_shapes.py", argument]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
