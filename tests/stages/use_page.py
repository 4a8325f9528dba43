"""Serves the page of `lcm serve` and asks it for images: `python -m tests.stages.use_page`.

A program of its own, as Gradio leaves threads and sockets behind.
"""

# Gradio is an extra.
# pyright: reportMissingImports=false

import socket
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from lcm_distill.commands.serve_page import build_page, serve_page
from lcm_distill.stages.serve import MOST_CHARACTERS, SCALES, Made, Studio

TEXT = "a large red heart in the centre on a cream background\na small blue star at the top left"


class Watched(Studio):
    """Counts how many requests are worked on at a time."""

    at_work = most = 0
    counting = threading.Lock()

    def beside(self, *request) -> list[Made]:
        with self.counting:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        made = super().beside(*request)
        with self.counting:
            self.at_work -= 1
        return made


def main(images: Path) -> None:
    studio = Watched("shapes")
    page = build_page(studio, images)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = Client(serve_page(page, "127.0.0.1", port), verbose=False)
    jobs = [client.submit(TEXT, 1, 2.0, seed, api_name="/generate") for seed in range(3)]
    results = [job.result() for job in jobs]
    for gallery, made in zip(results[2], studio.beside(TEXT, 1, 2.0, 2), strict=True):
        assert gallery["label"].split(":")[0] == made.title.split(":")[0]
        with Image.open(gallery["value"][1]["image"]) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), made.images[1][0])
    assert len(client.predict(TEXT, 1, 0, api_name="/strip")["value"]) == SCALES
    try:
        client.predict("a" * (MOST_CHARACTERS + 1), 1, 2.0, 0, api_name="/generate")
    except AppError as error:
        assert "is longer than" in str(error)
    else:
        raise AssertionError("a caption that is too long was taken")
    assert [*images.rglob("image.png")]  # where they are deleted at the end
    print(f"{len(jobs)} jobs, at most {studio.most} at a time")
    page.close(verbose=False)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder))
