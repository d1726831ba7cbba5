"""Arrays that are hostile or half damaged: each costs itself, by its row, and little time and
memory.
"""

import io
import tracemalloc

import pytest

from ponticello.listening.importers.records import LONGEST_ITEM, BadRecord, json_items

GOOD = b'{"a": 1}'
NO_OBJECT = "is not a JSON object"


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", NO_OBJECT),
        (b'{"a": ' * 20_000 + b"1" + b"}" * 20_000, NO_OBJECT),
        (b'{"a": "' + b"x" * (3 * LONGEST_ITEM) + b'"}', NO_OBJECT),
        (b'{"a": "\x00"}', NO_OBJECT),
        (b'{"a": "K\xffndling"}', "is not UTF-8"),
        (b'{"a": "\\ud800"}', "is not text: half a surrogate pair"),
    ],
    ids=["nested arrays", "nested objects", "endless text", "NUL", "not UTF-8", "half a pair"],
)
def test_damaged_item_is_named_by_its_row_and_the_others_are_read(
    damaged: bytes, reason: str
) -> None:
    stream = io.BytesIO(b"[" + GOOD + b", " + damaged + b", " + GOOD + b"]")
    tracemalloc.start()
    found = list(json_items(stream))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(1, {"a": 1}), (2, BadRecord(2, "", "", reason)), (3, {"a": 1})]
    assert peak < 20 * LONGEST_ITEM
