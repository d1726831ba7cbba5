"""Files named by content, large ones in blocks."""

import hashlib
from pathlib import Path

import pytest

from ponticello.storage.files import BLOCK_BYTES, file_hash, is_unchanged


def test_a_small_file_is_named_by_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        file_hash(tmp_path / "a")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_large_file_is_named_by_its_blocks_and_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    """One whole block and three bytes: the SHA-256 of both parts' SHA-256s, one after the other."""
    file, content = tmp_path / "a", bytearray(bytes(BLOCK_BYTES) + b"abc")
    file.write_bytes(content)
    parts = hashlib.sha256(bytes(BLOCK_BYTES)).digest() + hashlib.sha256(b"abc").digest()
    assert file_hash(file) == "16MiB:" + hashlib.sha256(parts).hexdigest()
    written = file_hash(file)
    assert is_unchanged(file, written)
    for place in (0, BLOCK_BYTES - 1, BLOCK_BYTES + 2):
        content[place] ^= 1
        file.write_bytes(content)
        assert not is_unchanged(file, written)
        content[place] ^= 1


@pytest.mark.parametrize("n", [3, BLOCK_BYTES + 3])
def test_plain_sha256_of_former_indexes_still_counts(tmp_path: Path, n: int) -> None:
    (tmp_path / "a").write_bytes(bytes(n))
    assert is_unchanged(tmp_path / "a", hashlib.sha256(bytes(n)).hexdigest())
    assert not is_unchanged(tmp_path / "a", hashlib.sha256(bytes(n + 1)).hexdigest())
