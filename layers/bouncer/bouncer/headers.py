"""Header fields, read in one way wherever they come from: the event or the stored mail.

Real mail breaks RFC 5322 in every way there is, and some of it on purpose: a line that is no
field must not hide those below it, and no shape of a field may raise or cost more than its
length. So everything here is bounded before it is looked into, and linear after.
"""

import binascii
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import msgspec

from bouncer.text import clean

BLOCK_LIMIT = 2**20
"""Bytes of a header block, and characters of an event's headers, that are read; the rest is cut."""

_ADDRESSES_LIMIT = 20_000
"""Characters of an address field that are read: some 500 addresses."""
_ADDRESS_LIMIT = 320


class Header(msgspec.Struct, frozen=True):
    """One header field, unfolded."""

    name: str
    value: str


class HeaderBlock(msgspec.Struct, frozen=True):
    """The header fields that were read, and whether they are all."""

    headers: tuple[Header, ...]
    whole: bool


# --- Fields of a stored mail -----------------------------------------------------------------

_END = re.compile(rb"(?:\A|\n)\r*\n")
# CR CR LF is one end of a line: some systems turn each LF of a CRLF into CRLF once more.
_LINE_END = re.compile(rb"(\r+\n?|\n)")
# RFC 5322 §2.2 and §4.5.8 (white space before the colon); 8-bit names occur as well.
_FIELD = re.compile(rb"([^\x00-\x20\x7f:]{1,200})[ \t]*:")


def block_ends_at(data: bytes | bytearray, start: int = 0) -> int | None:
    """Where the header block ends, or None where `data` does not hold its end.

    Args:
        start: up to here it was looked for already.
    """
    found = _END.search(data, start)
    return None if found is None else found.start()


def read_block(data: bytes, *, to_the_end: bool = True) -> HeaderBlock:
    """The header fields at the beginning of a mail.

    A line that is no field (no colon, an mbox line) is left out and reading goes on below it.
    After a CR without LF stands a field if it looks like one; else the value goes on.

    Args:
        data: the mail, or its beginning.
        to_the_end: whether the mail ends where `data` does.
    """
    end = block_ends_at(data[:BLOCK_LIMIT])
    whole = end is not None or (to_the_end and len(data) <= BLOCK_LIMIT)
    return HeaderBlock(tuple(_fields(data[: BLOCK_LIMIT if end is None else end])), whole)


def _fields(block: bytes) -> Iterator[Header]:
    name: bytes | None = None
    parts: list[bytes] = []
    after_lf = True
    for piece in _LINE_END.split(block):
        if piece[:1] in (b"\r", b"\n"):
            after_lf = piece.endswith(b"\n")
            continue
        found = _FIELD.match(piece)
        if found is not None:
            if name is not None:
                yield _field(name, parts)
            name, parts = found[1], [piece[found.end() :]]
        elif piece[:1] in (b" ", b"\t") or not after_lf:
            parts.append(piece)
        elif piece:
            if name is not None:
                yield _field(name, parts)
            name, parts = None, []
    if name is not None:
        yield _field(name, parts)


def _field(name: bytes, parts: list[bytes]) -> Header:
    value = b" ".join(part.strip(b" \t") for part in parts if part.strip(b" \t"))
    return Header(_text(name), _text(value))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def bounded(headers: Iterable[Header]) -> HeaderBlock:
    """Headers unfolded, and cut where they are more than anyone's."""
    kept: list[Header] = []
    room = BLOCK_LIMIT
    for header in headers:
        room -= len(header.name) + len(header.value)
        if room < 0:
            return HeaderBlock(tuple(kept), whole=False)
        # Recorded events come unfolded; a fold that is left would end a line of something else.
        value = header.value
        if "\n" in value or "\r" in value:
            value = " ".join(value.split())
        kept.append(Header(header.name.strip(), value.strip()))
    return HeaderBlock(tuple(kept), whole=True)


# --- Values ----------------------------------------------------------------------------------

# RFC 2047 §2, and §5 of RFC 2231 for the language. Spaces in the text are not allowed, and occur.
_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?]*)\?=")
# Codecs of Python that are no character sets of mail, or cost more than their length.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined", "mbcs", "oem"}
)


def decoded(value: str) -> str:
    """A value with its encoded words (RFC 2047) as text; what cannot be decoded stays.

    SES gives some values decoded and others as they are, so a text may have either.
    """
    if "=?" not in value:
        return value
    result: list[str] = []
    run: list[tuple[str, bytes]] = []  # encoded words with nothing but white space between them
    at = 0
    for word in _WORD.finditer(value):
        between = value[at : word.start()]
        at = word.end()
        data = _decoded_word(word[2], word[3])
        if data is None or between.strip() or not run:
            result.append(_run_text(run))
            result.append(between)
            run = []
        if data is None:
            result.append(word[0])
        else:
            run.append((word[1].lower(), data))
    return "".join((*result, _run_text(run), value[at:]))


def _decoded_word(encoding: str, text: str) -> bytes | None:
    data = text.encode("utf-8", "replace")
    if encoding in "qQ":
        return binascii.a2b_qp(data, header=True)
    try:
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4))
    except binascii.Error:
        return None


def _run_text(run: list[tuple[str, bytes]]) -> str:
    # A character of several bytes may be split over words of one charset.
    return "".join(
        _in_charset(charset, b"".join(data for _, data in words))
        for charset, words in groupby(run, key=itemgetter(0))
    )


def _in_charset(charset: str, data: bytes) -> str:
    known = charset.replace("-", "_") not in _NO_CHARSETS
    try:
        text = data.decode(charset if known else "utf-8", "replace")
    except (LookupError, ValueError):
        text = data.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates (UTF-7 has them)


_TURN = re.compile(r'\\.|[()"]', re.DOTALL)


def without_comments(value: str) -> str:
    """A structured value without its comments (RFC 5322 §3.2.2), however they are nested.

    A comment that is not closed reaches to the end.
    """
    if "(" not in value:
        return value
    kept: list[str] = []
    depth, quoted, start = 0, False, 0
    for turn in _TURN.finditer(value):
        match turn[0]:
            case '"' if depth == 0:
                quoted = not quoted
            case "(" if not quoted:
                if depth == 0:
                    kept.append(value[start : turn.start()])
                depth += 1
            case ")" if depth:
                depth -= 1
                start = turn.end()
    if depth == 0:
        kept.append(value[start:])
    return " ".join(kept)


def keyword(value: str) -> str:
    """What stands before the parameters, as in Auto-Submitted or Content-Type: lower case."""
    bare = without_comments(value).partition(";")[0]
    return "".join(bare.split()).strip('"').lower()


def keywords(value: str) -> set[str]:
    """A list's items, however they are separated: by commas, semicolons or blanks."""
    return {
        each.strip('"').lower() for each in re.split(r"[,;\s]+", without_comments(value)) if each
    }


_MESSAGE_ID = re.compile(r"<([^<>]{1,2000})>")
_MESSAGE_ID_LIMIT = 200


def message_id(value: str) -> str:
    """A Message-ID as it is logged and looked for: without its brackets, ASCII, bounded."""
    found = _MESSAGE_ID.search(value[:_ADDRESSES_LIMIT])
    return clean(found[1] if found else value, _MESSAGE_ID_LIMIT)


# --- Addresses -------------------------------------------------------------------------------


class NamedAddress(msgspec.Struct, frozen=True):
    """One entry of From, To and their like."""

    address: str
    """As it is written; "" for `<>`. It may lack a domain."""
    name: str = ""
    """The display name, without its quotes."""


def named_addresses(value: str) -> list[NamedAddress]:
    """The entries of an address field (RFC 5322 §3.4), whatever its grammar is worth.

    Where an entry has an address, words without one are what is left of a name with a comma
    that nobody quoted, and do not count.
    """
    entries = [
        NamedAddress(address.strip(), name.strip())
        for text, inner in _entries(value[:_ADDRESSES_LIMIT])
        for name, address in [("", text) if inner is None else (text, inner)]
        if inner is not None or address.strip()
    ]
    certain = [each for each in entries if "@" in each.address or not each.address]
    return certain or entries


def _entries(  # noqa: C901, PLR0912  (one pass over a grammar's states; apart they say less)
    value: str,
) -> Iterator[tuple[str, str | None]]:
    """Each entry's text outside of angle brackets, and what is inside of them."""
    text: list[str] = []
    inner: list[str] | None = None
    result: str | None = None
    depth, quoted, escaped = 0, False, False
    for character in value:
        if escaped or character == "\\":
            escaped = not escaped
            if not escaped and not depth:
                (text if inner is None else inner).append(character)
        elif quoted:
            quoted = character != '"'
            if inner is not None or character != '"':
                (text if inner is None else inner).append(character)
        elif depth:
            depth += {"(": 1, ")": -1}.get(character, 0)
        elif character == "(":
            depth = 1
        elif character == '"':
            quoted = True
            if inner is not None:
                inner.append(character)
        elif character == "<":
            if result is not None:  # a second address in one entry: an entry of its own
                yield "".join(text), result
                text = []
            inner, result = [], None
        elif character == ">" and inner is not None:
            result, inner = "".join(inner).rpartition(":")[2], None
        elif character in ",;" and inner is None:
            yield "".join(text), result
            text, result = [], None
        elif character == ":" and inner is None:
            text = []  # the name of a group
        else:
            (text if inner is None else inner).append(character)
    yield "".join(text), "".join(inner) if inner is not None else result


def mentioned_addresses(value: str) -> set[str]:
    """Everything in an address field that looks like an address, in names and comments too.

    Who reads a field otherwise than we do may find any of these to be its address. Of a field
    or a word that is longer than any, "?" stands for what was not read.
    """
    parts = {value[:_ADDRESSES_LIMIT], decoded(value[:_ADDRESSES_LIMIT])}
    words = {word for part in parts for word in re.split(r"[\s<>(),;:\"\\]+", part)}
    found = {word for word in words if "@" in word and "." in word.rpartition("@")[2]}
    short = {word for word in found if len(word) <= _ADDRESS_LIMIT}
    all_read = len(short) == len(found) and len(value) <= _ADDRESSES_LIMIT
    return short if all_read else short | {"?"}
