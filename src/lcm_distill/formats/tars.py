"""Tar archives, compressed or not, read as a stream without extracting them to disk."""

import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from lcm_distill.core.errors import one_line
from lcm_distill.core.regular_files import open_regular
from lcm_distill.formats import decompression
from lcm_distill.formats.decompression import READ, ChecksumError, Decompressed, decompressed
from lcm_distill.formats.images import MAX_IMAGE_BYTES, UnusableImage

MAX_HEADER_BYTES = 2**20
"""The longest extended header, such as that of a long name, that is read."""
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
DAMAGE = (tarfile.TarError, *decompression.DAMAGE)
"""What reading a damaged archive raises besides `DamagedArchive`."""


class DamagedArchive(Exception):
    """An archive cannot be read any further; the message says why, and not which."""


FOLLOWED = "more data after its end"
DOUBTFUL = 2**20
"""Bytes of content before the place where decompression fails that are not used: from where the archive is damaged,
other content comes out at first. Of 480 gzip files of images with 4 kB or 64 kB overwritten or missing, 221 failed
before their end, and up to 181 kB were other ones; bzip2 checks its blocks, of 900 kB, when they have come out."""


class UncheckedArchive(DamagedArchive):
    """The checksums of its compression fail, or it cannot be decompressed: bytes of it may be other ones.

    Attributes:
        sound: how many bytes of its content, from the start, can be relied on. None where only a checksum at the end
            fails, as then nothing tells where the archive is damaged.
    """

    def __init__(self, reason: str, sound: int = 0) -> None:
        super().__init__(f"{reason}: download it again; what ends before is used" if sound else reason)
        self.sound = sound


class CutArchive(DamagedArchive):
    """Its compressed content stops before its end, as that of an unfinished download does: what precedes is used.

    The checksum at the end is missing, so nothing proves that what precedes is what was written. But of a file with
    changed bytes the end is there, and its checksum fails: of 3,000 gzip files with one changed bit each, all failed by
    checksum or by what cannot be decompressed, and none seemed to be cut. So a cut archive is one that lacks its end,
    and is believed as an archive is that has no checksums at all, a plain `.tar`.
    """


class Archive(tarfile.TarFile):
    """An archive that is open as a stream.

    Attributes:
        packed: what decompresses it; None where it is not compressed.
    """

    packed: Decompressed | None = None


class _Member(tarfile.TarInfo):
    """A member whose damaged header is an error, where `tarfile` alone would take it for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # the mark of the end, which tarfile knows
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise DamagedArchive(str(error)) from error
        if found.type in _EXTENDED and found.size > MAX_HEADER_BYTES:
            raise DamagedArchive(f"an extended header of {found.size:,} bytes")
        return found


def stream_members(
    archive: Path, wanted: Callable[[str], bool], known: UncheckedArchive | None = None
) -> Iterator[tuple[str, bytes | UnusableImage]]:
    """Name and content of the wanted members of an archive, in its order; why those are unusable that are no files.

    Args:
        known: what an earlier call raised, which is raised again where what can be relied on ends.

    Raises:
        FileNotFoundError: there is no archive.
        DamagedArchive: it is damaged at this point.
        UncheckedArchive: the same, and unless it was known, what was yielded before may be damaged as well.
    """
    try:
        with open_archive(archive) as stream:
            for member in stream:
                if known is not None and member.offset_data + member.size > known.sound:
                    raise known
                name = str(PurePosixPath(member.name))
                if not member.isdir() and wanted(name):
                    yield name, _content(stream, member)
            require_end(stream)
    except (FileNotFoundError, UncheckedArchive):
        raise
    except Exception as error:  # whatever its bytes lead tarfile and the decompressors to
        require_intact(archive)
        raise error if isinstance(error, DamagedArchive) else DamagedArchive(one_line(error)) from error


@dataclass(frozen=True)
class Checked:
    """Members of an archive that may be read.

    Attributes:
        paths: what each is yielded as, by name in the archive and which of the members of that name it is, from 1 on.
        error: why none of them can be used, or none that ends after what can be relied on.
        names: what `check_last_members` found in it but for folders, up to where it is damaged.
        damage: where that is; None: it is whole.
    """

    archive: Path
    paths: Mapping[tuple[str, int], str]
    error: UncheckedArchive | FileNotFoundError | None = None
    names: frozenset[str] = frozenset()
    damage: DamagedArchive | None = None

    @property
    def reason(self) -> str:
        """Why a member that is not there, or cannot be read, is unusable."""
        return _reason(self.archive, self.error or self.damage)


def never() -> bool:
    """For checks that are not stopped."""
    return False


def check_members(archive: Path, wanted: Mapping[tuple[str, int], str], stopped: Callable[[], bool] = never) -> Checked:
    """Members by name and number, from 1 on. What is compressed is read to its end: its checksums come last.

    Args:
        wanted: the path of each.
        stopped: whether to end early; what is returned then is not checked.
    """
    try:
        require_intact(archive, stopped)
    except CutArchive:
        pass  # what precedes the cut is read
    except (UncheckedArchive, FileNotFoundError) as error:
        return Checked(archive, wanted, error)
    return Checked(archive, wanted)


def check_last_members(
    archive: Path,
    wanted: Mapping[str, str],
    stopped: Callable[[], bool] = never,
    known: UncheckedArchive | None = None,
) -> Checked:
    """As `check_members`, the last member of each name, which extracting an archive leaves, and the names of all.

    Only the end of an archive tells which one is the last.

    Args:
        wanted: the path of each, by name in the archive. known: as of `stream_members`.
    """
    last, names, error, damage = Counter[str](), set[str](), None, None
    try:
        for name, _ in stream_members(archive, lambda name: names.add(name) or name in wanted, known):
            last[name] += 1
            if stopped():
                break
    except (UncheckedArchive, FileNotFoundError) as found:
        if known is None and isinstance(found, UncheckedArchive) and found.sound:
            return check_last_members(archive, wanted, stopped, found)
        error = found
        if known is None:
            last.clear()
            names.clear()
    except DamagedArchive as found:  # what precedes it counts
        damage = found
    paths = {(name, last.get(name, 1)): path for name, path in wanted.items()}
    return Checked(archive, paths, error, frozenset(names), damage)


def require_intact(archive: Path, stopped: Callable[[], bool] = never) -> None:
    """Check a compressed archive against the checksums of its compression, which are over the whole; others have none.

    Args:
        stopped: whether to end early.

    Raises:
        FileNotFoundError: there is no archive.
        UncheckedArchive: they fail.
        CutArchive: it is cut off.
    """
    packed, position = None, 0
    try:
        with open_regular(archive) as file:
            content = decompressed(file)
            packed = _packed(content)
            while packed is not None and not stopped() and (block := content.read(READ)):
                position += len(block)
    except FileNotFoundError:
        raise
    except EOFError as error:
        size = archive.stat().st_size
        raise CutArchive(f"cut off after {size:,} bytes, of which what is whole is used: download it again") from error
    except Exception as error:  # as above
        located = packed is not None and packed.locates and not isinstance(error, ChecksumError)
        raise UncheckedArchive(one_line(error), max(0, position - DOUBTFUL) if located else 0) from error


def read_checked(checked: Checked) -> Iterator[tuple[str, bytes | UnusableImage]]:
    """Path and content of members, in the archive's order; then of those that could not be read, the reason."""
    known = checked.error
    if isinstance(known, FileNotFoundError) or (known is not None and not known.sound):
        yield from _unusable(checked.archive, known, checked.paths.values())
        return
    archive, left, seen = checked.archive, dict(checked.paths), Counter[str]()
    names = {name for name, _ in left}
    damage: Exception | None = None
    try:
        for name, content in stream_members(archive, names.__contains__, known):
            seen[name] += 1
            if called := left.pop((name, seen[name]), None):
                yield called, content
            if not left:
                return
    except (DamagedArchive, FileNotFoundError) as error:
        damage = error
    yield from _unusable(archive, damage, left.values())


def _unusable(
    archive: Path, damage: Exception | None, paths: Iterable[str]
) -> Iterator[tuple[str, bytes | UnusableImage]]:
    yield from ((path, UnusableImage(_reason(archive, damage))) for path in paths)


def _reason(archive: Path, damage: Exception | None) -> str:
    return f"damaged archive {archive.name}: {damage}" if isinstance(damage, DamagedArchive) else "missing file"


@contextmanager
def open_archive(archive: Path) -> Generator[Archive]:
    """An archive, open as a stream. Reading it raises `DamagedArchive` or one of `DAMAGE` where it is damaged.

    Raises:
        OSError: it is not there, or no regular file; or as above.
    """
    with open_regular(archive) as file:
        content = decompressed(file)
        with Archive.open(fileobj=content, mode="r|", tarinfo=_Member) as stream:
            stream.packed = _packed(content)
            yield stream


def require_end(stream: Archive) -> None:
    """Read an archive to its end, after its members: what it is compressed with is checked there.

    Only zeros follow; anything else was hidden by a damaged header that is all zeros, or appended to the file.

    Raises:
        DamagedArchive: something else follows; or one of `DAMAGE`.
    """
    rest = cast(IO[bytes], stream.fileobj)
    while block := rest.read(tarfile.RECORDSIZE):
        if block.strip(b"\0"):
            raise DamagedArchive(FOLLOWED)
    if stream.packed is not None and stream.packed.followed:
        raise DamagedArchive(FOLLOWED)


def _packed(content: BufferedReader) -> Decompressed | None:
    return content.raw if isinstance(content.raw, Decompressed) else None


def _content(stream: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | UnusableImage:
    if not member.isfile():
        return UnusableImage("a link or device in its archive, not a file")
    if member.size > MAX_IMAGE_BYTES:
        return UnusableImage(f"more than {MAX_IMAGE_BYTES:,} bytes")
    file = stream.extractfile(member)
    assert file is not None
    return file.read()
