"""Values as people read them: short, on one line, and nothing that a terminal obeys."""

import pytest

from mlpserve_model.process.tables import described, plain, readable, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98341234, "0.9834"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        ("sha256:" + "ab12" * 16, "sha256:ab12ab12ab12..."),
        (list(range(12)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
        (list(range(1000)), "0, 1, 2, ..., 997, 998, 999 (1000)"),
        ({"shape": [8, 8], "maximum": 16.0}, "shape 8, 8, maximum 16"),
        ("two\nlines", '"two\\nlines"'),
        (["\x1b[31m"], '"\\u001b[31m"'),
    ],
)
def test_a_value_is_shown_as_a_person_reads_it(value: object, text: str) -> None:
    assert readable(value) == text


def test_a_document_has_a_line_for_each_value() -> None:
    document = {"version": 3, "files": {"a": {"size": 7}, "golden.npz": {"size": 9}}, "none": {}}
    assert described(document) == [
        "version  3", "files", "  a           size 7", "  golden.npz  size 9", "none",
    ]  # fmt: skip


def test_a_table_has_its_columns_under_each_other() -> None:
    lines = table(("N", "NAME"), [("1", "a\tb"), ("10", "c")]).splitlines()

    assert lines == ["N   NAME", '1   "a\\tb"', "10  c"]


def test_plain_text_stays_as_it_is() -> None:
    assert plain("Zürich, 東京") == "Zürich, 東京"
