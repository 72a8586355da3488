"""What expressions come to is told without calling anything of the user's, and without computing anything large."""

import ast

import pytest

from experiments_manager.settings.source.literals import NotLiteralError, evaluate


def value(text, **names):
    return evaluate(ast.parse(text, mode="eval").body, names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-3", -3),
        ("2 ** 10 // 3 + 0.5", 341.5),
        ("(1, 'a', *[2, 3])", (1, "a", 2, 3)),
        ("{'a': [1], **{'b': {2}}}", {"a": [1], "b": {2}}),
        ("not 0 and 1 < 2 <= 2 and 'x'", "x"),
        ("3 if n > 2 else 4", 3),
        ("f'{n}-{name}'", "5-x"),
        ("len(items[1:]) * float('0.5')", 1.0),
        ("table.get('b', 7) + table['a']", 8),
        ("'a' in table", True),
        ("['a'] * 3", ["a", "a", "a"]),
    ],
)
def test_literals_and_what_follows_from_them_are_told(text, expected):
    assert value(text, n=5, name="x", items=[1, 2, 3], table={"a": 1}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "10 ** 10 ** 10",
        "2 ** 99 ** 9",
        "'x' * 10 ** 12",
        "10 ** 12 * [0]",
        "list(range(10 ** 12))",
        "sum(range(10 ** 9))",
        "'%1000000000d' % 3",
        "f'{3:1000000000}'",
        "str(10 ** 99 ** 2)",
    ],
)
def test_nothing_large_is_computed(text):
    with pytest.raises(NotLiteralError):
        value(text)


@pytest.mark.parametrize(
    "text",
    ["unknown", "1 / 0", "[][0]", "int('x')", "open('x')", "[n for n in []]", "own + 1", "own.get(1)", "dict(**{})"],
)
def test_what_cannot_be_told_or_would_raise_is_not_told(text):
    class Own(int):
        def __add__(self, other):
            raise AssertionError("code of the user's was called")

    with pytest.raises(NotLiteralError):
        value(text, own=Own(3))


def test_a_function_of_the_modules_own_is_not_pythons():
    with pytest.raises(NotLiteralError):
        evaluate(ast.parse("len([])", mode="eval").body, {}, {"len"})
