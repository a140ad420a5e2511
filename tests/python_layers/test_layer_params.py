import pytest
from layer_params import Param, read_param_str

PARAMS = {
    "size": Param("an integer from 1 to 65535 or a pair [height, width] of them"),
    "rate": Param("a number", 0.5),
    "count": Param("an integer from 1 to 2147483647", required=True),
    "mean": Param("a number or a list of numbers"),
    "flag": Param("true or false", False),
}


def test_values_and_defaults():
    settings = read_param_str('{"count": 3, "size": [2, 4], "mean": [1, 2.5], "flag": true}', "L", PARAMS)
    assert settings == {"count": 3, "size": [2, 4], "mean": [1, 2.5], "flag": True, "rate": 0.5}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "L: param_str needs the key 'count'"),
        (
            "{count: 3}",
            "L: param_str must be JSON, e.g. param_str: '{\"size\": ..., \"rate\": ...}'; found '{count: 3}'",
        ),
        ("[3]", "must be a JSON object"),
        ('{"count": 3, "counts": 4, "a": 1}', "unknown key 'a', 'counts'; the keys are count, flag, mean, rate, size"),
        ('{"count": 0}', "'count' must be an integer from 1 to 2147483647; found 0"),
        ('{"count": 2147483648}', "'count' must be an integer from 1 to 2147483647; found 2147483648"),
        ('{"count": 1, "size": [7, 65536]}', "'size' must be an integer from 1 to 65535 or a pair .* of them; found"),
        ("[" * 100_000, "param_str must be JSON, .*; found one nested too deeply"),
        ('{"count": true}', "'count' must be an integer from 1 to 2147483647; found true"),
        ('{"count": 1.0}', "'count' must be an integer from 1 to 2147483647; found 1.0"),
        ('{"count": 1, "size": [1, 2, 3]}', r"'size' must be .* found \[1, 2, 3\]"),
        ('{"count": 1, "size": 0}', "'size' must be .* found 0"),
        ('{"count": 1, "mean": []}', "'mean' must be a number or a list of numbers"),
        ('{"count": 1, "mean": ["1"]}', "'mean' must be a number or a list of numbers"),
        ('{"count": 1, "flag": 1}', "'flag' must be true or false; found 1"),
        ('{"count": 1, "rate": "fast"}', "'rate' must be a number; found \"fast\""),
    ],
)
def test_refusals(text, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        read_param_str(text, "L", PARAMS)
