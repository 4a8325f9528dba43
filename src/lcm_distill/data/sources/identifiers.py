"""Identifiers of images where a data set's own may belong to several."""


class Identifiers:
    """Names that identify the first image with a caption that has them; further images are identified by their paths.

    Of names and paths hashes are kept: there may be millions.
    """

    def __init__(self) -> None:
        self._paths: dict[int, int] = {}

    def of(self, name: str, path: str) -> str:
        """The identifier of the image at a path, whose own name may be another's."""
        return name if self._paths.get(hash(name), hash(path)) == hash(path) else path

    def take(self, name: str, path: str) -> None:
        """Keep a name for the image at a path, unless another has it."""
        self._paths.setdefault(hash(name), hash(path))
