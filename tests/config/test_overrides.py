"""``key=value``: what exists can be set, what does not is named with what was meant."""

import pytest
import torch
from detectron2.config import LazyCall as L
from engine_toy import ToyDetector
from omegaconf import OmegaConf
from vfnet_yolof.config.options import TRAIN_DEFAULTS, ConfigError, complete_train_options
from vfnet_yolof.config.overrides import apply_overrides
from vfnet_yolof.config.packaged import load_config
from vfnet_yolof.solver import get_optimizer_params


@pytest.fixture
def cfg():
    content = {
        "train": TRAIN_DEFAULTS,
        "model": L(ToyDetector)(num_classes=3),
        "optimizer": L(torch.optim.SGD)(
            params=L(get_optimizer_params)(base_lr="${..lr}", lr_factors={}),
            lr=0.01,
            momentum=0.9,
        ),
        "data": {"names": "shapes_train", "sizes": [480, 800], "steps": [{"size": 1}]},
    }
    return OmegaConf.create(content, flags={"allow_objects": True})


def test_values_take_the_type_of_what_they_replace(cfg):
    lines = apply_overrides(
        cfg,
        [
            "train.max_iter=9e4",
            "optimizer.lr=1",
            "train.output_dir=2024",
            "train.amp.enabled=true",
            "train.seed=7",
            "train.checkpointer.max_to_keep=null",
            "data.sizes=[640]",
            "data.names=[a,b]",
            "data.steps.0.size=2",
        ],
    )
    assert lines[0] == "train.max_iter: 90000 -> 90000"
    assert lines[6] == "data.sizes: [480, 800] -> [640]"
    assert type(cfg.train.max_iter) is int
    assert type(cfg.optimizer.lr) is float
    assert cfg.optimizer.params.base_lr == 1.0  # the interpolation is still one
    assert cfg.train.output_dir == "2024"
    assert cfg.train.amp.enabled is True
    assert cfg.train.checkpointer.max_to_keep is None
    assert (cfg.data.sizes, cfg.data.names, cfg.data.steps[0].size) == ([640], ["a", "b"], 2)


@pytest.mark.parametrize(
    "text",
    [
        *("a,b", "1e3", "0x10", "1_000", "true", "über/猫", "a=b", "runs(1)", "[old]", "{x}", "#1"),
        *("it's", 'say "hi"', " spaced ", "a:b", "range(1,3)", "glob(*)", "C:\\runs", "@x", ""),
    ],
)
def test_where_the_config_has_text_any_text_can_be_given(cfg, text):
    apply_overrides(cfg, [f"train.output_dir={text}"])
    assert cfg.train.output_dir == text


def test_quotes_around_a_text_and_references_mean_what_they_mean_elsewhere(cfg):
    quoted = [
        "train.output_dir='a, b'",
        'train.init_checkpoint="x y"',
        "data.names=${train.device}",
    ]
    apply_overrides(cfg, quoted)
    assert (cfg.train.output_dir, cfg.train.init_checkpoint) == ("a, b", "x y")
    assert cfg.data.names == cfg.train.device


@pytest.mark.parametrize("value", ["1,2", "choice(1,2)", "range(1,3)", "glob(*)", "interval(0,1)"])
def test_sweeps_are_refused_by_name(cfg, value):
    with pytest.raises(ConfigError, match="is a sweep over several values"):
        apply_overrides(cfg, [f"train.max_iter={value}"])


def test_parameters_that_the_config_leaves_at_their_default(cfg):
    apply_overrides(cfg, ["model.dropout=0.1", "optimizer.nesterov=True"])
    assert cfg.model.dropout == 0.1
    assert cfg.optimizer.nesterov is True
    with pytest.raises(ConfigError, match=r"model\.dropuot\. Did you mean model\.dropout"):
        apply_overrides(cfg, ["model.dropuot=0.1"])
    with pytest.raises(ConfigError, match=r"model\.dropout=much: float expected"):
        apply_overrides(cfg, ["model.dropout=much"])


def test_an_argument_that_is_an_empty_dict_takes_any_key(cfg):
    apply_overrides(cfg, ["optimizer.params.lr_factors.conv=0.5"])
    assert cfg.optimizer.params.lr_factors == {"conv": 0.5}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=3", r"Unknown key train\.max_itr\. Did you mean train\.max_iter"),
        ("trian.max_iter=3", r"Unknown key trian\.max_iter\. Did you mean train\.max_iter"),
        ("max_iter=3", r"Unknown key max_iter\. Did you mean train\.max_iter"),
        ("model.nmu_classes=3", r"Did you mean model\.num_classes"),
        ("train.amp.dtpye=float16", r"Did you mean train\.amp\.dtype"),
        ("train.max_iter=abc", r"train\.max_iter=abc: int expected"),
        ("train.max_iter=1.5", r"train\.max_iter=1\.5: int expected"),
        ("train.max_iter=true", "int expected"),
        ("train.max_iter=null", "int expected"),
        ("train.amp.enabled=1", "bool expected"),
        ("train.amp=3", "dict expected"),
        ("data.sizes=3", "list expected"),
        ("data.steps.1.size=3", "list of 1 elements"),
        ("train.max_iter.x=3", "train.max_iter is the value 90000"),
        ("train.max_iter", "form key=value"),
        ("=5", r"^Override '=5': has no key before the '='; write key=value\.$"),
        ("+train.oops=1", "cannot be added"),
        ("~train.max_iter=1", "cannot be added or deleted"),
        ("train.max_iter=[1", "Cannot understand"),
    ],
)
def test_mistakes(cfg, override, message):
    before = OmegaConf.to_container(cfg.train)
    with pytest.raises(ConfigError, match=message):
        apply_overrides(cfg, [override])
    assert OmegaConf.to_container(cfg.train) == before


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"max_itr": 5}, r"Unknown option train\.max_itr\. Did you mean train\.max_iter"),
        ({"ema": {"enabld": True}}, r"Did you mean train\.ema\.enabled"),
        ({"max_iter": "many"}, r"train\.max_iter='many': int expected"),
        ({"amp": {"dtype": "float8"}}, r"must be one of float16, bfloat16"),
        ({"max_iter": 0}, "greater than 0"),
        ({"early_stopping": {"patience": None}}, "int expected"),
        ({"optimize": True}, r"removed; train\.amp\.enabled=True train\.amp\.dtype=bfloat16"),
    ],
)
def test_mistakes_in_the_train_section_of_a_file(train, message):
    with pytest.raises(ConfigError, match=message):
        complete_train_options(OmegaConf.create({"train": train}))


def test_what_the_train_section_leaves_out_gets_its_default():
    cfg = OmegaConf.create({"train": {"max_iter": 5, "checkpointer": {"period": 7}}})
    complete_train_options(cfg)
    assert cfg.train.max_iter == 5
    assert cfg.train.checkpointer == {"period": 7, "max_to_keep": 3}
    assert cfg.train.best_checkpoint.metric == "bbox/AP"


def test_a_run_saved_while_there_was_an_option_goes_on(toy, capsys):
    assert toy.run("train.max_iter=2") == 0
    saved = toy.output_dir / "config.yaml"
    text = saved.read_text()
    saved.write_text(text.replace("\ntrain:\n", "\ntrain:\n  optimize: false\n"))
    assert saved.read_text() != text
    toy.config = str(saved)
    capsys.readouterr()
    trusted = ["--resume", "--trust-config"]
    assert toy.run(*trusted, "train.max_iter=4") == 0
    assert "optimize:" not in capsys.readouterr().err + saved.read_text()
    assert toy.run(*trusted, "train.optimize=True") == 2
    assert "error: Unknown key train.optimize. It was removed" in capsys.readouterr().err


def test_a_typo_in_a_file_or_on_the_command_line_ends_with_one_line(toy, capsys, tmp_path):
    assert toy.run("train.max_itr=3") == 2
    assert (
        "error: Unknown key train.max_itr. Did you mean train.max_iter" in capsys.readouterr().err
    )
    config = tmp_path / "typo.py"
    config.write_text(
        "train = dict(max_itr=3)\nmodel = optimizer = lr_multiplier = dataloader = {}"
    )
    toy.config = str(config)
    assert toy.run() == 2
    assert "Did you mean train.max_iter" in capsys.readouterr().err
    toy.config = "vfnet/vfnet_r50_fpn_1y.py"
    assert toy.run() == 2
    assert "vfnet_r50_fpn_1x.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.device=gpu", "train.device=gpu: cpu, cuda or cuda:N expected"),
        ("train.ema.enabled=True train.ema.decay=1.5", "train.ema.decay=1.5"),
        ("dataloader.train.dataset.names=shapes_trian", "Did you mean shapes_train"),
        ("dataloader.train.total_batch_size=0", "total_batch_size=0"),
        ("model.backbone.bottom_up.depth=19", "model: depth must be one of"),
    ],
)
def test_values_that_only_their_class_refuses(toy, override, message, capsys):
    toy.config = "vfnet/vfnet_small_shapes.py"
    assert toy.run("train.max_iter=1", *override.split()) == 2
    assert message in capsys.readouterr().err


def test_the_packaged_options_are_the_defaults():
    """The common config shows users what there is; it must not drift from what is used."""
    shown = load_config("vfnet/vfnet_r50_fpn_1x.py").train
    del shown.output_dir, shown.max_iter
    complete = OmegaConf.create({"train": shown})
    complete_train_options(complete)
    defaults = OmegaConf.create(
        {k: v for k, v in TRAIN_DEFAULTS.items() if k not in ("output_dir", "max_iter")}
    )
    del complete.train.output_dir, complete.train.max_iter
    assert complete.train == defaults


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("model.nmu_classes=3", "model.num_classes"),
        ("model.head.num_cnvs=4", "model.head.num_convs"),
        ("model.postprocessor.score_tresh=0.1", "model.postprocessor.score_thresh"),
        ("optimizer.lrr=1", "optimizer.lr"),
    ],
)
def test_mistakes_in_a_real_config_name_each_nearest_key_once(override, nearest):
    """Also below a class that hands ``**kwargs`` on to its base."""
    with pytest.raises(ConfigError) as error:
        apply_overrides(load_config("vfnet/vfnet_r50_fpn_1x.py"), [override])
    suggested = str(error.value).partition("Did you mean ")[2].rstrip("?").split(" or ")
    assert suggested[0] == nearest
    assert len(set(suggested)) == len(suggested)


def test_a_parameter_that_only_the_base_class_names_can_be_set():
    cfg = load_config("vfnet/vfnet_r50_fpn_1x.py")
    del cfg.model.head_in_features
    apply_overrides(cfg, ["model.head_in_features=[p3,p4]"])
    assert list(cfg.model.head_in_features) == ["p3", "p4"]
