"""The table engine renames, drops and reports every tensor."""

import pytest
import torch
from vfnet_yolof.checkpoint import CheckpointError, Rule, apply_rules


def test_every_tensor_is_renamed_dropped_or_reported():
    source = {name: torch.tensor(float(i)) for i, name in enumerate(["a.0.w", "b", "c", "a.1.w"])}
    rules = [
        Rule(r"a\.(\d+)\.w", lambda m: f"layer{int(m[1]) + 1}.weight"),
        Rule(r"b", None, "not used"),
    ]
    converted, report = apply_rules(source, rules)
    assert converted == {"layer1.weight": source["a.0.w"], "layer2.weight": source["a.1.w"]}
    assert report.renamed == {"a.0.w": "layer1.weight", "a.1.w": "layer2.weight"}
    assert report.dropped == {"b": "not used"}
    assert report.unmatched == ["c"]
    assert report.num_source == len(source)
    for text in ("4 tensors", "1 -> layer2.weight", "1 dropped: not used", "1 unknown: c"):
        assert text in report.summary()


def test_the_first_matching_rule_wins_and_matches_the_whole_key():
    rules = [Rule(r"x", "first"), Rule(r"x.*", "second")]
    converted, _ = apply_rules({"x": torch.zeros(1), "xy": torch.zeros(1)}, rules)
    assert list(converted) == ["first", "second"]


def test_two_tensors_with_one_name():
    with pytest.raises(CheckpointError, match="both 'a' and 'b'.*'same'"):
        apply_rules({"a": torch.zeros(1), "b": torch.zeros(1)}, [Rule(r"[ab]", "same")])


def test_dropping_needs_a_reason():
    with pytest.raises(ValueError, match="without saying why"):
        Rule("x", None)
