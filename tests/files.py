"""Files of caches: what they contain, and damage to them."""

from pathlib import Path


def flip(path: Path, place: int | None = None) -> None:
    """Change one bit of a file, at a byte, or in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def cache_files(cache: Path) -> dict[str, bytes]:
    """The content of every file of a cache but its manifest's, by name; there are some."""
    paths = [path for path in cache.rglob("*") if path.is_file() and "manifest" not in path.parts]
    assert paths
    return {str(path.relative_to(cache)): path.read_bytes() for path in paths}


def shard_files(cache: Path) -> dict[str, bytes]:
    """The content of every shard of a cache, by name; there are some."""
    found = {name: content for name, content in cache_files(cache).items() if Path(name).parts[1] == "c"}
    assert found
    return found


class Crash(BaseException):
    """Like a kill: nothing catches it."""
