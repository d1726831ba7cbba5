"""JSON a piece at a time: the lines of a JSONL file, the items of an array, in memory that does not grow with the file.

What is broken costs itself: reading goes on at the next line, or at the next `}, {`.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from ponticello.data.history.listen import Fault

LONGEST_ITEM = 4 << 20  # characters; one listen has some hundred, a page of a thousand a megabyte
_OVERLAP = 200  # characters looked at again when the window moves, in which `}, {` may begin
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_NEXT = re.compile(r"\}\s*,\s*(?=\{)")
_ARRAY = re.compile(r"\s*\[")
_BETWEEN = frozenset(" \t\r\n,")


def json_lines(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """(line, the object on it, or what is wrong) of every line of a JSONL file that is not empty."""
    number = 0
    while raw := stream.readline(LONGEST_ITEM):
        number += 1
        rest = raw
        while len(rest) == LONGEST_ITEM and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_ITEM)
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        line = raw.decode("utf-8", "surrogateescape")
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            item = None
        yield number, _checked(item, number, line)


def json_items(stream: BinaryIO, keys: tuple[str, ...] = ()) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """(number from 1, the object, or what is wrong) of every item of a JSON array.

    The array is the file, or in it the first value of one of `keys`. A cut file gives its whole items, then a fault.
    """
    window = _Window(stream)
    named = re.compile(rf'"(?:{"|".join(keys)})"\s*:\s*\[') if keys else None
    text, _ = window.ahead()
    begin = _ARRAY.match(text) or (named.search(text) if named else None)
    if begin is None:
        yield 1, Fault(1, "", "", "holds no JSON array of listens")
        return
    window.at = begin.end()
    decoder = json.JSONDecoder()
    number = 0
    while True:
        text, start = window.ahead()
        while text[start : start + 1] in _BETWEEN:
            start += 1
        if text[start : start + 1] == "]":
            return
        number += 1
        if start == len(text):
            yield number, Fault(number, "", "", "the file ends early; get it again")
            return
        try:
            item, window.at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            yield number, _broken(number)
            window.at = start
            if not window.skip_past(_NEXT):
                return
            continue
        yield number, _checked(item, number, text[start : window.at])


class _Window:
    """A text file seen through a window that moves on only. at: where in it reading has come to."""

    def __init__(self, stream: BinaryIO) -> None:
        self.at = 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text = ""
        self._is_last = False

    def ahead(self) -> tuple[str, int]:
        """(the window, `at` in it); from there on it shows `LONGEST_ITEM` characters, or all there are."""
        if not self._is_last and len(self._text) - self.at < LONGEST_ITEM:
            parts = [self._text[self.at :]]
            self.at = 0
            while not self._is_last and sum(map(len, parts)) < 2 * LONGEST_ITEM:
                chunk = self._stream.read(LONGEST_ITEM)
                self._is_last = not chunk
                parts.append(self._decoder.decode(chunk, final=self._is_last))
            self._text = "".join(parts)
        return self._text, self.at

    def skip_past(self, pattern: re.Pattern[str]) -> bool:
        """Moves behind the next `pattern`; False at the end of the file."""
        while True:
            text, start = self.ahead()
            if found := pattern.search(text, start):
                self.at = found.end()
                return True
            if self._is_last:
                return False
            self.at = max(len(text) - _OVERLAP, start + 1)


def _checked(item: Any, number: int, written: str) -> dict[str, Any] | Fault:
    if _NOT_UTF8.search(written):
        return Fault(number, "", "", "is not UTF-8")
    if not isinstance(item, dict):
        return _broken(number)
    if "\\u" in written and _NOT_UTF8.search(json.dumps(item, ensure_ascii=False)):
        return Fault(number, "", "", "is not text: half a surrogate pair")
    return item


def _broken(number: int) -> Fault:
    """Without what stands there: a whole record names accounts, addresses and countries."""
    return Fault(number, "", "", "is not a JSON object")
