"""The files of prepared mels, and what happens when they are damaged."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import LibraryError
from ponticello.features.store import (
    MANIFEST_SCHEMA,
    hash_features,
    open_shard,
    read_manifest,
    remove_unnamed_shards,
    write_manifest,
    write_shard,
)


def test_shards_are_numbered_and_hold_mels_one_after_the_other(tmp_path: Path) -> None:
    first, second = np.zeros((2, 4), np.float16), np.arange(12, dtype=np.float16).reshape(3, 4)
    assert write_shard(tmp_path, [first, second]) == 0
    assert write_shard(tmp_path, [second]) == 1
    np.testing.assert_array_equal(open_shard(tmp_path, 0), np.concatenate([first, second]))
    np.testing.assert_array_equal(open_shard(tmp_path, 1), second)


def test_unnamed_shards_go_and_their_numbers_are_not_used_again(tmp_path: Path) -> None:
    mel = np.zeros((2, 4), np.float16)
    for _ in range(3):
        write_shard(tmp_path, [mel])
    manifest = pl.DataFrame(
        [("a", 2, 0, 2, hash_features(mel), "a.wav", 1, 1, "key")],
        schema=MANIFEST_SCHEMA,
        orient="row",
    )
    remove_unnamed_shards(tmp_path, manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00002.npy"]
    assert write_shard(tmp_path, [mel]) == 3


def test_hash_is_of_the_bytes_in_order() -> None:
    """1.0 is 00 3c in little-endian float16; the hash is that of 2 bytes, by `printf '\\x00\\x3c' |
    sha256sum`.
    """
    expected = "505114fe537172ea35e17ca1a7516edac516a89b31f983f7c6387d5d2bb462aa"
    assert hash_features(np.ones((1, 1), np.float16)) == expected


def test_any_flipped_bit_of_a_header_is_refused_or_harmless(tmp_path: Path) -> None:
    write_shard(tmp_path, [np.ones((5, 128), np.float16)])
    path = tmp_path / "shard-00000.npy"
    content = path.read_bytes()
    for bit in range(128 * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with suppress(LibraryError):
            assert open_shard(tmp_path, 0).dtype == np.float16


def test_shard_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.npy"
    for array in (np.zeros((3, 4)), np.zeros(4, np.float16), np.array([{}])):
        np.save(path, array)
        with pytest.raises(LibraryError, match="is missing or damaged"):
            open_shard(tmp_path, 0)


def test_missing_or_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        LibraryError,
        match=r"holds no prepared features \(manifest.parquet is missing\); run: ponticello",
    ):
        read_manifest(tmp_path)
    for write in (
        lambda path: path.write_bytes(b"PAR1"),
        pl.DataFrame({"track_id": ["a"]}).write_parquet,
    ):
        write(tmp_path / "manifest.parquet")
        with pytest.raises(
            LibraryError,
            match=r"manifest\.parquet is damaged; delete it; run: ponticello prepare",
        ):
            read_manifest(tmp_path)


def test_manifest_with_any_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    """Wherever it lies: in the rows, or in what Parquet says of them."""
    rows = [(f"t{n}", n % 2, n, 1, f"{n:064x}", f"{n}.wav", n, n, "key") for n in range(9)]
    manifest = pl.DataFrame(rows, schema=MANIFEST_SCHEMA, orient="row")
    write_manifest(tmp_path, manifest)
    path = tmp_path / "manifest.parquet"
    whole = path.read_bytes()
    assert read_manifest(tmp_path).equals(manifest)
    refused = 0
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        path.write_bytes(bytes(damaged))
        try:
            assert read_manifest(tmp_path).equals(manifest), place
        except LibraryError:
            refused += 1
    assert refused > len(whole) / 5 / 3


def test_manifest_without_its_hash_is_refused(tmp_path: Path) -> None:
    manifest = pl.DataFrame(
        [("t0", 0, 0, 1, "ab", "0.wav", 1, 1, "key")], schema=MANIFEST_SCHEMA, orient="row"
    )
    manifest.write_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(LibraryError, match="is damaged"):
        read_manifest(tmp_path)
