"""Strategies that damage valid files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

INTERESTING = [0x00, 0x01, 0x7F, 0x80, 0xFF, *b"\n \"'[]{}:,&*!#-"]
# Pieces that mean something to one of the parsers, or to what reads after it.
PIECES = [
    b"\0" * 8,
    b"\xff" * 8,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    "\u2028\u200b\u202e".encode(),
    b"\xed\xa0\x80",
    b"[" * 3000,
    b"{a: &x [*x, *x], ",
    b"!!python/object/apply:os._exit [77]",
    b"1" * 5000,
    b"1e999",
    b".nan",
    b"null",
    b"true",
    b"-1",
    b"\t",
    b"? ",
    b"<<: *x",
    b"_BASE_: .",
    b"<end_of_text>",
    b"&#0;",
    b"cos\n_exit\n(I77\ntR.",
]

Edit = tuple[str, float, int, bytes]


def edits() -> st.SearchStrategy[list[Edit]]:
    """Lists of changes: what, where (a share of the length), how many bytes, with what."""
    change = st.tuples(
        st.sampled_from(
            ["set", "set", "set", "insert", "overwrite", "drop", "repeat", "zero", "cut"]
        ),
        st.floats(0, 1),
        st.sampled_from([1, 1, 2, 4, 16, 64, 500]),
        st.one_of(
            st.sampled_from(INTERESTING).map(lambda value: bytes([value])),
            st.binary(min_size=1, max_size=4),
            st.sampled_from(PIECES),
        ),
    )
    return st.lists(change, max_size=3)


def apply(content: bytes, changes: Sequence[Edit]) -> bytes:
    """The content after the changes, one after the other."""
    for kind, share, count, piece in changes:
        start = int(share * len(content))
        end = start + count
        middle = {
            "set": piece[:1] + content[start + 1 : end],
            "cut": b"",
            "insert": piece + content[start:end],
            "overwrite": piece,
            "drop": b"",
            "repeat": content[start:end] * 2,
            "zero": bytes(len(content[start:end])),
        }[kind]
        if kind == "overwrite":
            end = start + len(piece)
        content = content[:start] + middle + (b"" if kind == "cut" else content[end:])
    return content


def damaged(files: Mapping[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """(file name, content) of one of the files after some changes."""
    return st.tuples(st.sampled_from(sorted(files)), edits()).map(
        lambda drawn: (drawn[0], apply(files[drawn[0]], drawn[1]))
    )
