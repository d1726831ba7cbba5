"""Ids as catalogues have them, with slashes, spaces and signs, over a real connection."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ponticello.library import Library
from ponticello.storage.schema import TRACK_ID, USER_ID
from tests.serve.served import make_app, rename, running

TRACK = "Disc 1/01 100%\n/audio?.flac"
USER = "home/alice"


@pytest.fixture
def service(trained_copy: Library) -> Iterator[httpx.Client]:
    """A service over a library in which a track and a listener have such ids."""
    rename(trained_copy, TRACK_ID, "track-0007", TRACK)
    rename(trained_copy, USER_ID, trained_copy.listening.users[0], USER)
    with (
        running(make_app(trained_copy.folder.root)) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


def _found(service: httpx.Client, path: str) -> Any:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_ids_with_slashes_are_reached_by_every_route(
    service: httpx.Client, trained: Library
) -> None:
    place = f"/api/tracks/{quote(TRACK, safe='')}"
    known = _found(service, place)
    assert (known["track_id"], known["title"]) == (TRACK, "Piece 7")
    assert _found(service, f"/api/tracks/{quote(TRACK)}") == known, "the server sees no difference"
    similar = [each["track_id"] for each in _found(service, f"{place}/similar?k=5")["results"]]
    assert similar == [each.track_id for each in trained.similar("track-0007", k=5)]
    assert len(_found(service, f"{place}/audience?k=3")["listeners"]) == 3
    assert len(_found(service, f"{place}/waveform?n=20")["peaks"]) == 20
    audio = service.get(f"{place}/audio")
    assert (audio.status_code, audio.headers["content-type"]) == (200, "audio/wav")
    assert service.head(f"{place}/audio").status_code == 200
    assert len(_found(service, f"/api/recommend/{quote(USER, safe='')}?k=4")["results"]) == 4


def test_what_an_id_holds_names_no_route_of_the_metrics(service: httpx.Client) -> None:
    for what in ("", "/similar", "/audio"):
        service.get(f"/api/tracks/{quote(TRACK, safe='')}{what}")
    service.get(f"/api/recommend/{quote(USER, safe='')}")
    labels = {
        line.partition('route="')[2].partition('"')[0]
        for line in service.get("/metrics").text.splitlines()
    }
    tracks = {f"/api/tracks/{{track_id}}{what}" for what in ("", "/similar", "/audio")}
    assert labels - {""} == {*tracks, "/api/recommend/{user_id}"}


def test_the_end_of_a_path_is_a_route_where_it_could_be_one(trained_root: Path) -> None:
    """The server gets both alike, so that an id that ends in /similar is reached by POST alone."""
    with running(make_app(trained_root)) as address:
        assert (
            httpx.get(f"{address}/api/tracks/a%2Fsimilar").json()["message"]
            == "there is no track 'a'"
        )
        assert (
            httpx.get(f"{address}/api/tracks/a%2Fother").json()["message"]
            == "there is no track 'a/other'"
        )
