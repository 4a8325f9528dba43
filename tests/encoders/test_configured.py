"""The encoders of a cache are loaded once, whichever threads ask for them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from lcm_distill.encoders import configured
from lcm_distill.encoders.configured import ConfiguredEncoders


@pytest.mark.parametrize(("name", "load"), [("images", "load_image_encoder"), ("text", "load_text_encoder")])
def test_two_threads_load_an_encoder_once(small_config, monkeypatch, name, load):
    """Lazy imports of a library fail in a thread that begins one while another is at it."""
    began, again, loads = threading.Event(), threading.Event(), []

    def load_slowly(*_: object) -> SimpleNamespace:
        loads.append(name)
        (again if began.is_set() else began).set()
        again.wait(0.3)  # time for the other thread to begin as well, if nothing keeps it
        model = small_config.model
        encoder = SimpleNamespace(channels=model.in_channels, downsampling=8, width=model.caption_channels)
        encoder.to = lambda device: encoder
        return encoder

    monkeypatch.setattr(configured, load, load_slowly)
    opened = ConfiguredEncoders(small_config.encoders, small_config.model, "cpu", [64])
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(getattr, opened, name)
        assert began.wait(10)
        second = pool.submit(getattr, opened, name)
        assert first.result() is second.result()
    assert loads == [name]
