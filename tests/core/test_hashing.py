"""Hashes against published values."""

from lcm_distill.core.hashing import bytes_sha256, digest, file_sha256

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of "abc", from FIPS 180-2."""


def test_sha256_of_parts_and_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == bytes_sha256([b"a", memoryview(b"bc")]) == ABC


def test_a_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) == "ae8a9a5052464275"  # by sha256sum
