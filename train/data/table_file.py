"""Open a table's file: decompressed and decoded, or an error that says what the file is instead.

The first bytes decide, not the name: a gzip file called .csv is decompressed too.
Try it: open_text(Path("my.csv.gz")).readline()
"""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from train.data.errors import DataError
from train.formatting import quoted

FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
# After one of the endings above. A zip holds one table, whose ending counts.
PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
# For uploads: a browser looks at the last ending only.
UPLOAD_ENDINGS = [*FILE_ENDINGS, *PACKED_ENDINGS]
# Limit against decompression bombs: this multiple of the file's size, but at least so many bytes.
MOST_TIMES, ALWAYS_ALLOWED = 100, 256_000_000
SNIFFED_BYTES, SNIFFED_CHARACTERS = 4_096, 65_536
SAVE_AS_UTF8 = "Save it again as UTF-8 (in Excel: Save As, CSV UTF-8)."
_AS_CSV = "Save its table as CSV UTF-8."
_BY_PANDAS = 'Read it in Python and write its table with pandas: frame.to_parquet("data.parquet").'
# Not in text files: control characters other than those from backspace to carriage return, and escape.
CONTROL_BYTES = {*range(8), *range(14, 32)} - {0x1B}

# First bytes of files that are often mistaken for a table: what each is, and what to do.
_OTHER_STARTS: dict[bytes, tuple[str, str]] = {
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", _AS_CSV),
    b"%PDF": ("a PDF", _AS_CSV),
    b"SQLite format 3\0": ("an SQLite database", "Save one of its tables as CSV UTF-8."),
    b"ARROW1": ("an Arrow or Feather file", _BY_PANDAS),
    b"\xff\xff\xff\xff": ("an Arrow stream", _BY_PANDAS),
    b"\x93NUMPY": ("a NumPy array", _BY_PANDAS),
    b"\x89HDF": ("an HDF5 file", _BY_PANDAS),
    b"ORC": ("an ORC file", _BY_PANDAS),
    b"Obj\x01": ("an Avro file", _BY_PANDAS),
    b"\x1f\x8b": ("packed twice", "Unpack it first."),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it first."),
    b"Rar!": ("a RAR archive", "Unpack it first."),
    b"version https://git-lfs": ("a pointer of Git LFS", "Its data lie elsewhere: fetch them with git lfs pull."),
    **{bytes([0x80, number, 0x95]): ("a pickle", "Pickles are never opened: they can run code. " + _BY_PANDAS) for number in (4, 5)},  # noqa: E501
}  # fmt: skip
_WEB_PAGE = ("a web page", "Download the file itself: its page has a link such as “raw” or “download”.")
# The same by the ending of a file's name.
OTHER_ENDINGS: dict[str, tuple[str, str]] = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), ("a spreadsheet", "Save its sheet as CSV UTF-8.")),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), _OTHER_STARTS[b"SQLite format 3\0"]),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5"), ("a kind that is not read here", _BY_PANDAS)),
    **dict.fromkeys((".npy", ".npz"), ("a NumPy file", _BY_PANDAS)),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _OTHER_STARTS[b"\x80\x04\x95"]),
    **dict.fromkeys((".tar", ".tgz", ".7z", ".rar", ".lz4", ".br", ".lzma"), ("an archive", "Unpack it first.")),
    **dict.fromkeys((".docx", ".doc", ".pdf", ".html", ".htm", ".xml"), ("a document", _AS_CSV)),
    **dict.fromkeys((".dta", ".sav", ".rdata", ".rds"), ("a file of a statistics program", _AS_CSV)),
}  # fmt: skip


def is_table(name: str) -> bool:
    """Whether a data set's name is that of a supported table file."""
    path = Path(name)
    return "://" not in name and (path.suffix.lower() == ".zip" or named_ending(path) in FILE_ENDINGS)


def has_first_line(name: str) -> bool:
    """Whether the file's first line names its columns."""
    return is_table(name) and named_ending(Path(name)) not in (".jsonl", ".ndjson", ".json", ".parquet")


def without_endings(name: str) -> str:
    """A file's name without its folder and endings: x of data/x.csv.gz."""
    path = Path(name)
    return Path(path.stem).stem if path.suffix.lower() in PACKED_ENDINGS and is_table(path.stem) else path.stem


def instead_of_a_table(name: str) -> str | None:
    """An error message for a file name that is not a supported table; None for any other name."""
    path = Path(name)
    endings = f"A table's name ends in {', '.join(FILE_ENDINGS)}, or in one of these and {', '.join(PACKED_ENDINGS)}"
    if is_table(name):
        return None
    if "://" in name:
        return f"{name} is an address. Download the file, and name its path."
    if known := OTHER_ENDINGS.get(path.suffix.lower()) or OTHER_ENDINGS.get(named_ending(path)):
        return f"{name} is {known[0]}. {known[1]}"
    if path.is_file():
        return f"{name} is a file, but its name does not say which kind of table. {endings}: rename it."
    if path.suffix.lower() in PACKED_ENDINGS:
        return f"{name} does not say what is packed. {endings}: rename it."
    return None


def open_bytes(path: Path) -> BinaryIO:
    """The file's content, decompressed. Raises OSError, and DataError if it can't be decompressed."""
    with path.open("rb") as file:
        start = file.read(8)
    opener = next((own for magic, own in _UNPACKERS.items() if start.startswith(magic)), None)
    if opener is None:
        return path.open("rb")
    return io.BufferedReader(_Bounded(opener(path), max(MOST_TIMES * path.stat().st_size, ALWAYS_ALLOWED), path))


def check_unpacked_size(path: Path, most: int) -> None:
    """Raise DataError if a file has more than `most` bytes decompressed, or can't be decompressed."""
    too_large = DataError(f"{path} takes more than {most // 1_000_000:,} MB unpacked: take a part of it.")
    with open_bytes(path) as file:
        content = io.BytesIO()
        while part := file.read(1_000_000):
            content.write(part)
            if content.tell() > most:
                raise too_large
    if content.getvalue()[:4] == b"PAR1" and _parquet_size(content) > most:
        raise too_large


def _parquet_size(content: BinaryIO) -> int:
    """A lower bound on the bytes of a parquet file's cells, whose repetitions are compressed. 0 for a damaged file."""
    import pyarrow.parquet as pq

    try:
        known = pq.read_metadata(content)
    except Exception:  # Versions of the format fail differently; reading it gives the error.
        return 0
    groups = [known.row_group(group).total_byte_size for group in range(known.num_row_groups)]
    return max(sum(groups), 8 * known.num_rows * known.num_columns)


def table_ending(path: Path) -> str:
    """.csv for x.csv, x.csv.gz, and a zip with one CSV; .parquet for any file that begins like one."""
    with open_bytes(path) as file:
        if file.read(4) == b"PAR1":
            return ".parquet"
    inside = named_ending(path)
    if inside in FILE_ENDINGS:
        return inside
    with _opened_zip(path) as archive:
        return Path(_only_table(archive, path)).suffix.lower()


def open_text(path: Path) -> TextIO:
    """The file as text, with unchanged line ends. Raises DataError if it is clearly not text."""
    with open_bytes(path) as file:
        start = file.read(SNIFFED_BYTES)
    lowered = start.lstrip()[:200].lower()
    kind = next((kind for magic, kind in _OTHER_STARTS.items() if start.startswith(magic)), None)
    if lowered.startswith((b"<!doctype html", b"<html")):
        kind = _WEB_PAGE
    if kind:
        raise DataError(f"{path} is {kind[0]}, whatever its name says. {kind[1]}")
    return io.TextIOWrapper(open_bytes(path), encoding=_encoding(start), newline="")


def encoding_error(path: Path) -> DataError:
    """An error with the line of the first invalid byte. Not a guess of the encoding, which could be wrong unnoticed."""
    with open_bytes(path) as file:
        start = file.read(SNIFFED_CHARACTERS)
    encoding = _encoding(start[:SNIFFED_BYTES])
    if not encoding.startswith("utf-8"):
        return DataError(f"{path} begins as {encoding.upper()}, but has bytes that are not. {SAVE_AS_UTF8}")
    binary = bool(set(start) & CONTROL_BYTES)
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                if binary:
                    break
                return DataError(
                    f"{path} is not UTF-8: line {number} holds the byte 0x{line[error.start]:02x}, as files in Latin-1 "
                    f"or another old encoding do. {SAVE_AS_UTF8}"
                )
    return DataError(f"{path} has bytes that are not text: is it a {path.suffix} file? {SAVE_AS_UTF8}")


def named_ending(path: Path) -> str:
    """The ending of a file's name, without that of its packing: .csv for x.csv.gz."""
    packed = path.suffix.lower() in PACKED_ENDINGS
    return (Path(path.stem) if packed else path).suffix.lower()


# Encodings


def _encoding(start: bytes) -> str:
    """The encoding by its byte-order mark; without one, UTF-8, unless there are zero bytes as in UTF-16."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in start:
        for encoding, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
            if _is_text(start[: len(start) // width * width], encoding):
                return encoding
    return "utf-8-sig"


def _is_text(start: bytes, encoding: str) -> bool:
    """Whether bytes are lines of text in `encoding`: line ends, no control characters, some ASCII."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)  # The last character may be cut.
    except UnicodeDecodeError:
        return False
    plain = sum(character.isascii() for character in text)
    # Bytes of another encoding decode to arbitrary characters, without line ends.
    lines = "\n" in text or "\r" in text
    return lines and not any(ord(character) in CONTROL_BYTES for character in text) and plain >= 0.05 * len(text)


# Packed files


class _Bounded(io.RawIOBase):
    """A decompressed stream that raises DataError beyond `most` bytes, or if it is damaged."""

    def __init__(self, stream: BinaryIO, most: int, path: Path):
        self._stream, self._left, self._path = stream, most, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            part = self._stream.read(len(buffer))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
            raise DataError(f"{self._path} can't be unpacked ({error}): is it whole? Pack it again.") from error
        self._left -= len(part)
        if self._left < 0:
            raise DataError(
                f"{self._path} has more than {MOST_TIMES} times its size unpacked, far more than tables do. Unpack it "
                "yourself if you trust it."
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is a zip, as Excel files are, but can't be opened ({error}): is it whole?") from error


def _only_table(archive: zipfile.ZipFile, path: Path) -> str:
    """The name of the one table in a zip. Raises DataError where there is none, or are several."""
    names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
    if "[Content_Types].xml" in names or "mimetype" in names:
        kind, remedy = OTHER_ENDINGS[".xlsx"]
        raise DataError(f"{path} is {kind} (Excel) or a document, whatever its name says. {remedy}")
    tables = [name for name in names if Path(name).suffix.lower() in FILE_ENDINGS and Path(name).name[0] != "."]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(f"{path} holds several tables ({quoted(tables)}): unpack it, and name the one to read.")
    raise DataError(f"{path} holds no table, only {quoted(names)}: a table's name ends in {', '.join(FILE_ENDINGS)}.")


def _open_zip(path: Path) -> BinaryIO:
    with _opened_zip(path) as archive:
        name = _only_table(archive, path)
        if archive.getinfo(name).flag_bits & 1:
            raise DataError(f"{path} is locked with a password: unpack it first.")
    return zipfile.ZipFile(path).open(name)


def _open_zst(path: Path) -> BinaryIO:
    import pyarrow as pa  # Slow to import, and rarely needed.

    return pa.input_stream(str(path), compression="zstd")


_UNPACKERS: dict[bytes, Callable[[Path], BinaryIO]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zst,
    b"PK\x03\x04": _open_zip,
}
