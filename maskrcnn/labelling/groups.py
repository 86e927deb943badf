"""Groups of images, as a user names them: by columns of the table, or by what a pattern finds in their URIs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows

DATE = "date"
Group = tuple[str | None, ...]
"""A value for each name of a grouping."""

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Grouping:
    """What tells groups apart."""

    columns: tuple[str, ...] = ()
    """Of the table, or ``date`` for its folders."""
    patterns: tuple[str, ...] = ()
    """Regular expressions over the URI; each named group is a column."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name the columns that groups have."""
        return (*self.columns, *(name for pattern in self.patterns for name in re.compile(pattern).groupindex))

    @property
    def columns_read(self) -> tuple[str, ...]:
        """Name what `label` needs of a row."""
        return tuple(dict.fromkeys(("image_uri", *self.columns)))

    def label(self, rows: pa.Table) -> pa.Table:
        """Give each row's group.

        Args:
            rows: with `columns_read`.

        Returns:
            A column (string) a name; null where the row has nothing there, or a pattern or its named group finds
            nothing.
        """
        labels = {name: rows[name].cast(pa.string()) for name in self.columns}
        for pattern in self.patterns:
            found = pc.extract_regex(rows["image_uri"], pattern)
            labels |= {name: _or_null(pc.struct_field(found, name)) for name in re.compile(pattern).groupindex}
        return pa.table(labels) if labels else rows.select([])


def groups_of(labels: pa.Table, names: Sequence[str]) -> list[Group]:
    """Give each row's group.

    Args:
        labels: as `Grouping.label` gives them.
        names: of its columns, in the group's order; none: all rows are of one group.
    """
    if not names:
        return [()] * len(labels)
    return list(zip(*(labels[name].to_pylist() for name in names), strict=True))


def parse_grouping(words: Sequence[str], rows: CurrentRows, *, reserved: Collection[str] = ()) -> Grouping:
    """Read what a user gave as ``--by``: names of columns, and regular expressions with named groups.

    Args:
        words: any number of either.
        rows: the table.
        reserved: names that a group's column must not have.

    Raises:
        InputError: a word that is neither, or a name that comes twice, is reserved, or finds nothing in any image.
    """
    known = [field.name for field in rows.schema() if _is_text_or_castable(field.type)]
    known += [DATE] if rows.has_dates and DATE not in known else []
    grouping = Grouping(
        tuple(word for word in words if word in known),
        tuple(_checked_pattern(word, known) for word in words if word not in known),
    )
    for place, name in enumerate(grouping.names):
        if name in grouping.names[:place]:
            raise InputError("--by", f"must name each group once, got {name} twice")
        if name in reserved:
            raise InputError("--by", f"must not name a group {name}: the result has a column of that name")
    _check_finds(grouping, words, rows)
    return grouping


def _check_finds(grouping: Grouping, words: Sequence[str], rows: CurrentRows) -> None:
    """Refuse a name that no image has: a pattern with a slip of the pen puts all images into one group."""
    missing = list(grouping.names) if len(rows) else []
    if not missing:
        return
    for _, batch in rows.batches(grouping.columns_read, batch_size=_ROWS_AT_ONCE):
        labels = grouping.label(batch)
        missing = [name for name in missing if labels[name].null_count == len(labels)]
        if not missing:
            return
    rule = f"must find {missing[0]} in an image's URI or row, and finds it in none, got {' '.join(words)}"
    raise InputError("--by", rule, rows.uri)


def _is_text_or_castable(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text_or_castable(kind.value_type)
    # Bytes can be cast where they happen to be text, and end the command where they do not.
    bytes_kinds = (pa.binary(), pa.large_binary(), pa.binary_view())
    if pa.types.is_nested(kind) or kind in bytes_kinds or pa.types.is_fixed_size_binary(kind):
        return False
    try:
        pa.nulls(0, kind).cast(pa.string())
    except pa.ArrowNotImplementedError:
        return False
    return True


def _or_null(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Tell a group that took no part in a match by null, which the library gives as an empty text."""
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _checked_pattern(word: str, known: Collection[str]) -> str:
    try:
        pattern = re.compile(word)
        pc.extract_regex(pa.array([""]), word)
    except (re.error, pa.ArrowInvalid) as error:
        if word.isidentifier():
            raise _neither(word, known) from error
        raise InputError("--by", f"is no regular expression with named groups alone: {error}", word) from error
    if not pattern.groupindex:
        raise _neither(word, known)
    return word


def _neither(word: str, known: Collection[str]) -> InputError:
    rule = f"must be a column ({', '.join(known)}) or a regular expression with named groups, got {word}"
    return InputError("--by", rule, "", "for example --by '/(?P<store>[^/]+)/[^/]+$'")
