"""Two lists of class names: what is the same, and what is said where it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfnet_yolof.utils.class_names import Classes, differences, order_in, pair_by_name


@given(
    names=st.lists(st.text(min_size=1, max_size=4), unique_by=lambda x: x.replace("_", " ")),
    random=st.randoms(use_true_random=False),
)
def test_any_order_of_the_same_names_is_found(names, random):
    shuffled = random.sample(names, len(names))
    order = order_in(names, shuffled)
    assert order is not None
    assert [shuffled[i] for i in order] == names


@given(
    source=st.lists(st.sampled_from("abcd_"), max_size=6),
    target=st.lists(st.sampled_from("abcd "), max_size=6),
)
def test_pairs_are_of_one_name_and_nothing_is_paired_twice(source, target):
    pairs = pair_by_name(source, target)
    assert len(set(pairs.values())) == len(pairs)
    assert all(source[a].replace("_", " ") == target[b].replace("_", " ") for a, b in pairs.items())


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        (["red", "blue"], ["blue", "red"], {0: 1, 1: 0}),
        (["red", "blue", "green"], ["blue", "black"], {1: 0}),
        (["red", "Blue"], ["blue", "red"], {0: 1}),
        # MMDetection 1.x writes COCO's names with underscores
        (["traffic_light", "car"], ["car", "traffic light"], {0: 1, 1: 0}),
        (["a_b", "a b"], ["a b", "a_b"], {0: 1, 1: 0}),
        # nobody knows which is which ...
        (["red", "red", "blue"], ["blue", "red", "red"], {2: 0}),
        # ... unless the lists are equal, as for a file with a class twice
        (["red", "red", "blue"], ["red", "red", "blue"], {0: 0, 1: 1, 2: 2}),
        ([], ["red"], {}),
    ],
)
def test_pairs(source, target, pairs):
    assert pair_by_name(source, target) == pairs


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (["red", "blue"], ["blue", "red"], "class 0 is 'red' in a.pth, 'blue' in b.json"),
        (["red", "blue"], ["red"], "only a.pth has 'blue'"),
        (
            ["red", "cat "],
            ["Cat", "fox"],
            "only a.pth has 'red', 'cat '; only b.json has 'Cat', 'fox'; 'cat ' and 'Cat' "
            "differ in spelling only: write them alike",
        ),
        (
            ["red", "red", "blue"],
            ["blue", "red"],
            "a.pth has 'red' more than once",
        ),
        (["a_b", "c"], ["a b", "c"], "class 0 is 'a_b' in a.pth, 'a b' in b.json"),
        (list("abcdefghijkl"), [], "only a.pth has 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' and 4"),
    ],
)
def test_what_differs_is_named(ours, theirs, says):
    assert says in differences(Classes(ours, "a.pth"), Classes(theirs, "b.json"))
