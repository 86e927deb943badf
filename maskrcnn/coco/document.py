"""The members of a COCO document, a batch of a list's elements at a time: from a file, of which only a window is held.

A results document is one such list.

A file of COCO's size costs several GiB as Python objects, and its text alone another half. What is accepted, and what
is said of the rest, is as `json.loads` of the whole file has it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn, TypeAlias

from maskrcnn.errors import AnnotationError, CutOffError, JsonError

WINDOW_BYTES = 1 << 20
BATCH_ROWS = 4096

Members: TypeAlias = Iterator[tuple[str, Iterator[Any]]]
"""Each member's name, and its elements in one or more lists; what is no list comes alone, as it is. A name may come
twice, and then the last counts, as in JSON. Whoever takes a name takes its elements before the next name."""

_DECODER = json.JSONDecoder()
_WHITESPACE = re.compile(r"[ \t\n\r]*")
_LITERALS = ("true", "false", "null", "NaN", "-Infinity")
_CUT_REACH = 16
"""Characters: a value that ends or fails so close to the window's end may be one that the end has cut. The longest
cut that shows no earlier is that of a pair of \\uXXXX escapes."""


def members_of(document: Any, place: str) -> Members:
    """Give the members of a document that is parsed already.

    Raises:
        AnnotationError: it is no object.
    """
    if not isinstance(document, dict):
        _refuse_root(type(document).__name__, place)
    for name, value in document.items():
        yield name, _slices(value) if isinstance(value, list) else iter([value])


def stream_members(file: BinaryIO, place: str, window_bytes: int = WINDOW_BYTES) -> Members:
    """Read the members of a document one after the other, in the file's order.

    Args:
        file: open at its start; read once, forwards.
        place: the file, for messages.
        window_bytes: read at a time, and about what a batch of elements takes in the file.

    Raises:
        JsonError: it is not JSON.
        AnnotationError: it is no object.
    """
    window = _Window(file, place, window_bytes)
    if (root := window.peek()) != "{":
        kind = "list"
        if root == "[":
            for _ in _read_list(window):
                pass
        else:
            kind = type(window.read_value()).__name__
        _read_end(window)
        _refuse_root(kind, place)
    window.skip()
    if window.peek() == "}":
        window.skip()
    else:
        yield from _read_members(window)
    _read_end(window)


def batches_of(document: Any, place: str) -> Iterator[list[Any]]:
    """Give the predictions of a results document that is parsed already.

    Raises:
        AnnotationError: it is no list.
    """
    if not isinstance(document, list):
        _refuse_results(type(document).__name__, place)
    return _slices(document)


def stream_batches(file: BinaryIO, place: str, window_bytes: int = WINDOW_BYTES) -> Iterator[list[Any]]:
    """Read the predictions of a results document, in one or more lists; arguments as in `stream_members`.

    Raises:
        AnnotationError: it is not JSON, or no list.
    """
    window = _Window(file, place, window_bytes)
    if (root := window.peek()) == "{":  # perhaps of gigabytes, and of no use however it ends
        _refuse_results("dict", place)
    if root != "[":
        kind = type(window.read_value()).__name__
        _read_end(window)
        _refuse_results(kind, place)
    yield from _read_list(window)
    _read_end(window)


class _Window:
    """The part of a file's text that is being looked at, with a place in it."""

    def __init__(self, file: BinaryIO, place: str, window_bytes: int) -> None:
        self.place, self.window_bytes = place, window_bytes
        self._file = file
        self._text, self._at = "", 0
        self._is_last = False
        self._chars_before, self._lines_before, self._column_before = 0, 0, 0
        head = file.read(4)
        self._bytes_before = 0
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(head))("surrogatepass")
        self._append(head)

    @property
    def position(self) -> int:
        """The place in the whole text, characters."""
        return self._chars_before + self._at

    def peek(self) -> str:
        """Go to the next character that is no white space, and give it; "" at the end."""
        while True:
            if (character := self._text[self._at : self._at + 1]) and character not in " \t\n\r":
                return character
            self._at = _WHITESPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_last:
                return ""
            self._read_more()

    def skip(self) -> None:
        """Go on by the character that `peek` gave."""
        self._at += 1

    def read_value(self) -> Any:
        """Decode the value that begins here, and go on behind it."""
        while True:
            failure = None
            try:
                value, reached = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                failure = error
                reached = len(self._text) if error.msg.startswith("Unterminated string") else error.pos
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested too deeply
                raise self._not_json(str(error)) from None
            if not self._is_last and reached + _CUT_REACH >= len(self._text):
                self._read_more()
            elif failure:
                self._at = failure.pos
                self.refuse(failure.msg)
            else:
                self._at = reached
                return value

    def refuse(self, rule: str) -> NoReturn:
        """Raise the error that names this place, in the words of `json`."""
        here = json.JSONDecodeError(rule, self._text, self._at)
        line = self._lines_before + here.lineno
        column = here.colno + (self._column_before if here.lineno == 1 else 0)
        rest = self._text[self._at :]
        is_cut = self._is_last and (
            rule.startswith(("Unterminated string", "Invalid \\u"))
            or any(literal.startswith(rest) for literal in _LITERALS)
        )
        raise self._not_json(f"{rule}: line {line} column {column} (char {self.position})", is_cut)

    def _not_json(self, reason: str, is_cut: bool = False) -> JsonError:
        return (CutOffError if is_cut else JsonError)("file", f"must be JSON: {reason}", self.place)

    def _read_more(self) -> None:
        if newlines := self._text.count("\n", 0, self._at):
            self._lines_before += newlines
            self._column_before = self._at - self._text.rfind("\n", 0, self._at) - 1
        else:
            self._column_before += self._at
        self._chars_before += self._at
        self._text, self._at = self._text[self._at :], 0
        # As much again as there is: a value of any length is then decoded a few times at most.
        body = self._file.read(max(self.window_bytes, len(self._text)))
        self._is_last = not body
        self._append(body)

    def _append(self, body: bytes) -> None:
        num_pending = len(self._decoder.getstate()[0])
        try:
            self._text += self._decoder.decode(body, self._is_last)
        except UnicodeDecodeError as error:
            position = self._bytes_before - num_pending + error.start
            is_cut = error.reason == "unexpected end of data"
            raise self._not_json(f"its byte {position} is not {error.encoding}: {error.reason}", is_cut) from None
        self._bytes_before += len(body)


def _read_members(window: _Window) -> Members:
    while True:
        if window.peek() != '"':
            window.refuse("Expecting property name enclosed in double quotes")
        name = window.read_value()
        if window.peek() != ":":
            window.refuse("Expecting ':' delimiter")
        window.skip()
        batches = _read_list(window) if window.peek() == "[" else iter([window.read_value()])
        yield name, batches
        for _ in batches:  # which its taker left
            pass
        if _read_delimiter(window, "}"):
            return


def _read_list(window: _Window) -> Iterator[list[Any]]:
    window.skip()
    batch: list[Any] = []
    if window.peek() == "]":
        window.skip()
        yield batch
        return
    begin, is_end = window.position, False
    while not is_end:
        window.peek()
        batch.append(window.read_value())
        is_end = _read_delimiter(window, "]")
        if is_end or window.position - begin >= window.window_bytes:
            yield batch
            batch, begin = [], window.position


def _read_delimiter(window: _Window, end: str) -> bool:
    """Go behind a comma or the end, and say whether it was the end."""
    delimiter = window.peek()
    if delimiter != end and delimiter != ",":
        window.refuse("Expecting ',' delimiter")
    window.skip()
    return delimiter == end


def _read_end(window: _Window) -> None:
    if window.peek():
        window.refuse("Extra data")


def _slices(rows: list[Any]) -> Iterator[list[Any]]:
    return (rows[begin : begin + BATCH_ROWS] for begin in range(0, max(len(rows), 1), BATCH_ROWS))


def _refuse_root(kind: str, place: str) -> NoReturn:
    if kind == "list":
        rule = "must be a COCO dataset with images, annotations and categories, got a list"
        raise AnnotationError("annotations file", rule, place, "a list is a results file, given with --predictions")
    raise AnnotationError("annotations file", f"must be a JSON object, got {kind}", place)


def _refuse_results(kind: str, place: str) -> NoReturn:
    if kind == "dict":
        rule = "must be a list of predictions, got an object"
        raise AnnotationError("results file", rule, place, "an object is a dataset, given with --annotations")
    raise AnnotationError("predictions", f"must be a list, got {kind}", place)
