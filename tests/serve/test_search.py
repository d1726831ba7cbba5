"""What the service answers against what the library answers, and whether its reasons add up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from ponticello.library import Library
from ponticello.serve.app import create_app
from ponticello.serve.security import security_policy_for
from ponticello.storage.schema import TRACK_ID
from tests.serve.served import client_of, make_app

TOLERANCE = 1e-4  # of a score's parts: float32 sums in another order


@pytest.fixture(scope="module")
def client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


def _post(client: TestClient, place: str, body: Any, status: int = 200) -> Any:
    answer = client.post(f"/api/{place}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def _get(client: TestClient, place: str, status: int = 200, **query: Any) -> Any:
    answer = client.get(f"/api/{place}", params=query)
    assert answer.status_code == status, answer.text
    return answer.json()


def _ids(answer: Any) -> list[str]:
    return [result["track_id"] for result in answer["results"]]


@pytest.mark.parametrize("blend", [0.0, 0.3, 1.0])
def test_search_by_words_is_the_librarys(
    client: TestClient, trained: Library, blend: float
) -> None:
    found = _get(client, "search", text="slow dark", k=7, blend=blend)
    expected = trained.search("slow dark", k=7, blend=blend)
    assert _ids(found) == [each.track_id for each in expected]
    np.testing.assert_allclose(
        [each["score"] for each in found["results"]], [each.score for each in expected], atol=1e-4
    )
    assert found["generation"] == (trained.folder.index / "CURRENT").read_text().strip()


def test_similar_and_recommend_are_the_librarys(client: TestClient, trained: Library) -> None:
    track, user = trained.index.track_ids[3], trained.listening.users[5]
    assert _ids(_get(client, f"tracks/{track}/similar", k=6)) == [
        each.track_id for each in trained.similar(track, k=6)
    ]
    expected = [each.track_id for each in trained.recommend(user, k=6, per_artist=1)]
    assert _ids(_get(client, f"recommend/{user}", k=6, per_artist=1)) == expected
    assert _ids(_post(client, "recommend", {"user_id": user, "k": 6, "per_artist": 1})) == expected


@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_reasons_add_up_to_the_score(client: TestClient, trained: Library, blend: float) -> None:
    ids = trained.index.track_ids
    terms: list[dict[str, Any]] = [
        {"text": "fast bright"},
        {"text": "slow", "weight": -0.7},
        {"track_id": ids[4], "weight": 2},
        {"track_id": ids[9], "weight": -1, "start_s": 0.5, "end_s": 2.5},
    ]
    asked = _post(client, "search", {"terms": terms, "blend": blend, "k": 8})
    taste = _post(client, "recommend", {"recent": ids[:5], "blend": blend, "k": 8})
    for answer in (asked, taste):
        assert len(answer["results"]) == 8
        for result in answer["results"]:
            assert result["semantic"] + result["preference"] == pytest.approx(
                result["score"], abs=1e-9
            )
            for part in ("semantic", "preference"):
                total = sum(each[part] for each in result["why"]["components"])
                assert total == pytest.approx(result[part], abs=TOLERANCE)
    assert [part["term"] for part in asked["results"][0]["why"]["components"]] == [0, 1, 2, 3]
    assert [part["track_id"] for part in taste["results"][0]["why"]["components"]] == ids[:5]
    assert not {ids[4], ids[9]} & set(_ids(asked)), "what was asked with is no answer"
    assert not set(ids[:5]) & set(_ids(taste))


def test_pages_follow_each_other(client: TestClient) -> None:
    whole = _get(client, "search", text="low", k=9)
    pages = [_get(client, "search", text="low", k=3, offset=offset) for offset in (0, 3, 6)]
    assert [track for page in pages for track in _ids(page)] == _ids(whole)
    assert [page["results"][0]["rank"] for page in pages] == [1, 4, 7]
    assert all(page["has_more"] for page in pages)
    last = _get(client, "search", text="low", k=500, offset=3)
    assert not last["has_more"]
    assert len(last["results"]) == 57


def test_filters_and_artists_are_kept_to(client: TestClient) -> None:
    found = _get(
        client, "search", text="low", k=50, where=["tags=slow", "artist!=Artist 3"], per_artist=1
    )
    artists = [each["artist"] for each in found["results"]]
    assert all("slow" in each["tags"] for each in found["results"])
    assert len(set(artists)) == len(artists)
    assert "Artist 3" not in artists


def test_shared_tags_and_listeners_are_told(client: TestClient, trained: Library) -> None:
    results = _get(client, "search", text="slow dark", k=60)["results"]
    for each in results:
        assert set(each["why"]["shared_tags"]) == {"slow", "dark"} & set(each["tags"])
        n = int(trained.listening.n_listeners[trained.index.rows[each["track_id"]]])
        assert each["why"]["n_listeners"] == (n if n >= 3 else None)
    assert any(each["why"]["n_listeners"] for each in results)


def test_few_listeners_are_not_told(trained_root: Path) -> None:
    with client_of(
        create_app(trained_root, security_policy_for("127.0.0.1", None), ["pairs.min_users=1000"])
    ) as client:
        assert {
            each["why"]["n_listeners"] for each in _get(client, "search", text="low")["results"]
        } == {None}


def test_explain_gives_the_result_and_the_part_that_fits_best(client: TestClient) -> None:
    ask = {"terms": [{"text": "fast"}], "blend": 0.4, "k": 3}
    listed = _post(client, "search", ask)["results"][1]
    found = _post(client, "explain", {"query": ask, "track_id": listed["track_id"]})
    assert found["result"]["score"] == pytest.approx(listed["score"], abs=TOLERANCE)
    assert found["result"]["why"]["components"][0]["semantic"] == pytest.approx(
        listed["semantic"], abs=TOLERANCE
    )
    assert (found["result"]["rank"], found["result"]["track_id"]) == (0, listed["track_id"])
    segment = found["segment"]
    assert 0 <= segment["start_s"] < segment["end_s"] <= 4.2
    whole = _post(
        client, "explain", {"recent": [listed["track_id"]], "track_id": listed["track_id"]}
    )
    assert whole["result"]["score"] > 1


@pytest.mark.parametrize("blend", [0.0, 0.9])
def test_explain_explains_the_score_that_a_recommendation_shows(
    client: TestClient, trained: Library, blend: float
) -> None:
    for who in ({"user_id": trained.listening.users[0]}, {"recent": trained.index.track_ids[:3]}):
        listed = _post(client, "recommend", {**who, "blend": blend, "k": 2})["results"][1]
        asked = {**who, "blend": blend, "track_id": listed["track_id"]}
        found = _post(client, "explain", asked)["result"]
        for part in ("score", "semantic", "preference"):
            assert found[part] == pytest.approx(listed[part], abs=TOLERANCE)


def test_explain_takes_the_blend_of_an_ask_from_the_ask(client: TestClient) -> None:
    both = {"query": {"terms": [{"text": "low"}]}, "blend": 0.5, "track_id": "track-0001"}
    assert "a query has its own blend" in _post(client, "explain", both, 422)["message"]


def test_a_part_of_a_track_asks_for_that_part(client: TestClient, trained: Library) -> None:
    """A part of all four seconds is the track itself, but its copies may be among the answers."""
    track = trained.index.track_ids[8]
    part = _post(
        client, "search", {"terms": [{"track_id": track, "start_s": 0, "end_s": 10}], "k": 5}
    )
    assert _ids(part) == _ids(_get(client, f"tracks/{track}/similar", k=5))
    late = _post(
        client, "search", {"terms": [{"track_id": track, "start_s": 100, "end_s": 110}]}, 422
    )
    assert "must lie within the 4 s prepared" in late["message"]


def test_a_path_leads_from_one_track_to_the_other(client: TestClient, trained: Library) -> None:
    start, end = trained.index.track_ids[0], trained.index.track_ids[40]
    tracks = client.get("/api/path", params={"from": start, "to": end, "n": 6}).json()["tracks"]
    ids = [each["track_id"] for each in tracks]
    assert (ids[0], ids[-1]) == (start, end)
    assert len(set(ids)) == 6
    assert all(0 <= each["similarity"] <= 1 for each in tracks[:-1])
    assert tracks[-1]["similarity"] is None
    assert client.get("/api/path", params={"from": start, "to": start}).json()["code"] == "invalid"


def test_audience_is_the_librarys(client: TestClient, trained: Library) -> None:
    track = trained.index.track_ids[2]
    found = _get(client, f"tracks/{track}/audience", k=4)
    assert [each["user_id"] for each in found["listeners"]] == [
        each.user_id for each in trained.audience(track, k=4)
    ]
    assert found["simulated"] is True


def test_batches_answer_each_question_or_say_why_not(client: TestClient, trained: Library) -> None:
    track = trained.index.track_ids[1]
    good: dict[str, Any] = {"terms": [{"text": "low"}], "k": 2}
    batch = {
        "questions": [
            good,
            {"terms": [{"track_id": "nothing"}]},
            {"terms": [{"text": "a"}], "where": ["no=1"]},
        ]
    }
    first, second, third = _post(client, "search/batch", batch)["answers"]
    assert _ids(first) == _ids(_post(client, "search", good))
    assert second == {"code": "not_found", "message": "there is no track 'nothing'"}
    assert third["code"] == "invalid"
    users = {
        "questions": [
            {"user_id": trained.listening.users[0], "k": 1},
            {"recent": [track]},
            {"user_id": "nobody"},
        ]
    }
    answers = _post(client, "recommend/batch", users)["answers"]
    assert [("results" in each) for each in answers] == [True, True, False]
    assert answers[2]["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"terms": []}, 422, "invalid"),
        ({"terms": [{"text": "a", "track_id": "b"}]}, 422, "invalid"),
        ({"terms": [{"text": "a", "weight": 0}]}, 422, "invalid"),
        ({"terms": [{"text": " "}]}, 422, "invalid"),
        ({"terms": [{"track_id": "missing"}]}, 404, "not_found"),
        ({"terms": [{"upload_id": "gone"}]}, 404, "upload_expired"),
        ({"terms": [{"text": "a"}], "blend": 1.5}, 422, "invalid"),
        ({"terms": [{"text": "a"}], "where": ["nonsense"]}, 422, "invalid"),
        ({"terms": [{"text": "a"}], "colour": "red"}, 422, "invalid"),
        ({"terms": [{"text": "a", "start_s": 1, "end_s": 2}]}, 422, "invalid"),
        ({"terms": [{"track_id": "track-0001", "start_s": 1, "end_s": 1e308}]}, 422, "invalid"),
        ({"terms": [{"track_id": "track-0001", "start_s": 1e307, "end_s": 1e308}]}, 422, "invalid"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    client: TestClient, body: Any, status: int, code: str
) -> None:
    found = _post(client, "search", body, status)
    assert set(found) == {"code", "message"}
    assert found["code"] == code
    assert found["message"]


def test_not_a_number_is_no_number(client: TestClient) -> None:
    body = json.dumps({"terms": [{"text": "a", "weight": float("nan")}]})
    answer = client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"


def test_catalogue_comes_in_pages_and_by_name(client: TestClient, trained: Library) -> None:
    page = _get(client, "tracks", offset=10, k=5)
    assert page["n_total"] == 60
    assert [each["track_id"] for each in page["tracks"]] == trained.tracks[TRACK_ID][
        10:15
    ].to_list()
    assert _get(client, "tracks", text="PIECE 17")["n_total"] == 1
    whole = _get(client, "tracks/track-0017")
    assert whole["title"] == "Piece 17"
    assert "path" not in whole["more"]
    assert _get(client, "tracks/nothing", 404)["code"] == "not_found"


def test_listeners_are_listed_by_what_they_like(client: TestClient, trained: Library) -> None:
    page = _get(client, "listeners", k=3)
    assert page["n_total"] == len(trained.listening.users)
    liked = [each["n_liked"] for each in page["listeners"]]
    assert liked == sorted(trained.listening.n_liked.tolist(), reverse=True)[:3]


def test_library_says_what_there_is(client: TestClient) -> None:
    about = _get(client, "library")
    assert (about["n_tracks"], about["n_indexed"], about["has_preference"]) == (60, 60, True)
    assert about["listeners_are_simulated"] is True
    assert about["problems"] == []
    assert about["can_search_text"]
    assert about["filter_values"]["tags"][0] in (
        "low",
        "middle",
        "high",
        "dark",
        "warm",
        "bright",
        "slow",
        "steady",
        "fast",
    )


def test_a_field_name_with_line_breaks_is_reported_in_one_line(client: TestClient) -> None:
    body = {"terms": [{"text": "slow"}], "a\nb\x1ec": 1}
    message = _post(client, "search", body, 422)["message"]
    assert message == "a b c: Extra inputs are not permitted"
