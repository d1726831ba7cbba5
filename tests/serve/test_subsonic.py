"""OpenSubsonic's sonicSimilarity: the shapes that players expect, and similarities that are
cosines.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from ponticello.library import Library
from tests.serve.served import client_of, make_app


@pytest.fixture(scope="module")
def client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


def _asked(client: TestClient, place: str, **query: Any) -> Any:
    """The inside of an answer; players always send who they are, and f."""
    answer = client.get(
        f"/rest/{place}", params={"v": "1.16.1", "c": "player", "f": "json", "u": "x", **query}
    )
    assert answer.status_code == 200
    assert set(answer.json()) == {"subsonic-response"}
    body = answer.json()["subsonic-response"]
    assert body["version"] == "1.16.1"
    assert (body["type"], body["openSubsonic"]) == ("ponticello", True)
    assert body["serverVersion"]
    return body


def _cosines(library: Library, track_id: str) -> dict[str, float]:
    index = library.index
    vectors = np.asarray(index.vectors[:, : index.embed_dim], dtype=np.float64)
    return dict(zip(index.track_ids, vectors @ vectors[index.rows[track_id]], strict=True))


@pytest.mark.parametrize("place", ["getSonicSimilarTracks", "getSonicSimilarTracks.view"])
def test_similar_songs_come_with_their_similarity(
    client: TestClient, trained: Library, place: str
) -> None:
    body = _asked(client, place, id="track-0007", count=5)
    assert body["status"] == "ok"
    assert len(body["sonicMatch"]) == 5
    cosines = _cosines(trained, "track-0007")
    expected = sorted(set(cosines) - {"track-0007"}, key=lambda each: -cosines[each])[:5]
    assert [match["entry"]["id"] for match in body["sonicMatch"]] == expected
    for match in body["sonicMatch"]:
        assert set(match) == {"entry", "similarity"}
        assert match["similarity"] == pytest.approx(
            (1 + cosines[match["entry"]["id"]]) / 2, abs=2e-6
        )
    similarities = [match["similarity"] for match in body["sonicMatch"]]
    assert similarities == sorted(similarities, reverse=True)


def test_an_entry_is_a_child_with_what_is_known(client: TestClient, trained: Library) -> None:
    entry = _asked(client, "getSonicSimilarTracks", id="track-0007", count=1)["sonicMatch"][0][
        "entry"
    ]
    known = trained.tracks.row(by_predicate=pl.col("track_id") == entry["id"], named=True)
    assert (entry["title"], entry["artist"]) == (known["title"], known["artist"])
    assert (entry["isDir"], entry["isVideo"], entry["type"], entry["mediaType"]) == (
        False,
        False,
        "music",
        "song",
    )
    assert None not in entry.values(), "what is not known is left out"
    assert "path" not in entry


def test_ten_songs_unless_told_otherwise_and_never_itself(client: TestClient) -> None:
    assert len(_asked(client, "getSonicSimilarTracks", id="track-0007")["sonicMatch"]) == 10
    every = _asked(client, "getSonicSimilarTracks", id="track-0007", count=100_000)["sonicMatch"]
    assert len(every) == 59
    assert "track-0007" not in [match["entry"]["id"] for match in every]


@pytest.mark.parametrize("place", ["findSonicPath", "findSonicPath.view"])
def test_a_path_begins_and_ends_where_it_should(
    client: TestClient, trained: Library, place: str
) -> None:
    body = _asked(client, place, startSongId="track-0007", endSongId="track-0020", count=6)
    ids = [match["entry"]["id"] for match in body["sonicMatch"]]
    assert (ids[0], ids[-1]) == ("track-0007", "track-0020")
    assert len(ids) == len(set(ids)) == 6
    cosines = _cosines(trained, "track-0007")
    assert body["sonicMatch"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    for match in body["sonicMatch"]:
        assert match["similarity"] == pytest.approx(
            (1 + cosines[match["entry"]["id"]]) / 2, abs=2e-6
        )


def test_a_path_to_itself_is_one_song(client: TestClient) -> None:
    body = _asked(client, "findSonicPath", startSongId="track-0007", endSongId="track-0007")
    assert [match["entry"]["id"] for match in body["sonicMatch"]] == ["track-0007"]
    long = _asked(client, "findSonicPath", startSongId="track-0007", endSongId="track-0001")
    assert 2 <= len(long["sonicMatch"]) <= 25


@pytest.mark.parametrize(
    ("place", "query", "code"),
    [
        ("getSonicSimilarTracks", {}, 10),
        ("getSonicSimilarTracks", {"id": ""}, 10),
        ("getSonicSimilarTracks", {"id": "nobody"}, 70),
        ("getSonicSimilarTracks", {"id": "track-0007", "count": "many"}, 0),
        ("getSonicSimilarTracks", {"id": "track-0007", "count": "0"}, 0),
        ("getSonicSimilarTracks", {"id": "track-0007", "count": "-5"}, 0),
        ("getSonicSimilarTracks", {"id": "track-0007", "count": "\u0663"}, 0),
        ("findSonicPath", {"startSongId": "track-0007"}, 10),
        ("findSonicPath", {"endSongId": "track-0007"}, 10),
        ("findSonicPath", {"startSongId": "track-0007", "endSongId": "nobody"}, 70),
        (
            "findSonicPath",
            {"startSongId": "track-0007", "endSongId": "track-0001", "count": "1"},
            0,
        ),
    ],
)
def test_errors_are_subsonics(
    client: TestClient, place: str, query: dict[str, str], code: int
) -> None:
    body = _asked(client, place, **query)
    assert body["status"] == "failed"
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert "sonicMatch" not in body


def test_the_extension_is_announced(client: TestClient) -> None:
    body = _asked(client, "getOpenSubsonicExtensions")
    assert body["openSubsonicExtensions"] == [{"name": "sonicSimilarity", "versions": [1]}]


def test_without_an_index_a_player_is_told(trained_copy: Library) -> None:
    (trained_copy.folder.index / "CURRENT").unlink()
    with client_of(make_app(trained_copy.folder.root)) as client:
        body = _asked(client, "getSonicSimilarTracks", id="track-0007")
    assert (body["status"], body["error"]["code"]) == ("failed", 0)
