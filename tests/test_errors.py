from pellucid.errors import InputError, UnknownNameError, expected, unknown_name


def test_errors_name_argument_expectation_and_what_came() -> None:
    error = expected("size", "at least 32", 8, do="Enlarge it.")
    assert isinstance(error, ValueError)
    assert str(error) == "size: expected at least 32, got 8. Enlarge it."


def test_unknown_name_without_a_near_one_lists_all() -> None:
    error = unknown_name("metric", "zzz", ["road", "deletion"])
    assert str(error) == "unknown metric 'zzz'. Known: deletion, road."
    assert isinstance(error, InputError)
    assert isinstance(error, UnknownNameError)
    assert str(unknown_name("metric", "zzz", [])).endswith("Known: none.")
