"""The task "words, preference": relevance by hand, ties, and the ranking that search gives."""

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from ponticello.evaluate import words as module
from ponticello.evaluate.recommendation import EvaluationListening
from ponticello.evaluate.results import RANDOM, SERVED, STAGE_ONE, STAGE_TWO, Measurements
from ponticello.evaluate.vectors import EvaluationVectors, load_vectors
from ponticello.evaluate.words import WordTask, make_word_task, measure_words
from ponticello.library import Library
from ponticello.listening.log import read_interactions
from ponticello.pairs.mine import mine_test_pairs
from ponticello.search.index import Query
from ponticello.splits.splits import before_test, in_test, load_splits

# Three training tracks are jazz, two of them slow; one is rock alone.
TAGS = [{"jazz", "slow"}, {"jazz", "slow"}, {"jazz"}, {"rock"}]
NEW_TAGS = [{"jazz"}, {"rock"}, set[str]()]
LIKES = [
    [1, 2, 0, 0],  # Ada: jazz 2 of 2, slow 2 of 2
    [0, 0, 1, 3],  # Ben: jazz 1 of 2, rock 1 of 2
    [0, 0, 0, 1],  # Cleo: rock 1 of 1
    [0, 0, 0, 0],  # Dina likes nothing of training
]
NEW_LIKES = [
    [1, 0, 2],  # Ada
    [0, 1, 0],  # Ben
    [0, 1, 1],  # Cleo
    [1, 1, 1],  # Dina
]


def make_task(monkeypatch: pytest.MonkeyPatch, least_tracks: int) -> WordTask:
    monkeypatch.setattr(module, "MIN_TRACKS", least_tracks)
    likes = csr_matrix(np.array(LIKES, dtype=np.float64))
    return make_word_task(TAGS, NEW_TAGS, likes, csr_matrix(np.array(NEW_LIKES, dtype=np.float64)))


def test_relevance_counts_the_listeners_of_the_word_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jazz: Ada and Ben. Slow: Ada. Rock: Ben and Cleo, who both like the second new track."""
    task = make_task(monkeypatch, 1)
    assert task.words == ["jazz", "slow", "rock"]  # the most carried first, then by name
    assert task.relevance.tolist() == [[1, 1, 1], [1, 0, 1], [0, 2, 1]]
    assert task.has_tag.tolist() == [
        [True, False, False],
        [False, False, False],
        [False, True, False],
    ]


def test_words_of_too_few_training_tracks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_task(monkeypatch, 2).words == ["jazz", "slow"]
    assert make_task(monkeypatch, 3).words == ["jazz"]
    assert make_task(monkeypatch, 4).words == []
    monkeypatch.setattr(module, "MAX_WORDS", 1)
    assert make_task(monkeypatch, 1).words == ["jazz"]


def test_a_listener_below_the_share_is_none_of_the_word() -> None:
    """One of four liked tracks carries the word: a quarter, below 30 %; one of three is above."""
    tags = [{"jazz"}] * 5 + [set[str]()] * 3
    likes = np.zeros((2, 8))
    likes[0, [0, 5, 6, 7]] = 1
    likes[1, [0, 5, 6]] = 1
    new_likes = csr_matrix(np.array([[1.0, 0.0], [0.0, 1.0]]))
    task = make_word_task(tags, [set(), set()], csr_matrix(likes), new_likes)
    assert task.relevance.tolist() == [[0, 1]]


def test_ndcg_and_precision_are_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rock with relevance 0, 2, 1, ranked third, second, first; at 2: 1 + 2 / log2 3 of 2 + 1 /
    log2 3.
    """
    task = make_task(monkeypatch, 1)
    scores = np.array([[3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    metrics = task.measure(scores, 2)
    second = 1 / np.log2(3)
    tied = 2 * (1 + second) / 3 / (1 + second)  # two relevant of three in any order
    rock = (1 + 2 * second) / (2 + second)
    np.testing.assert_allclose(metrics["NDCG@2"], [1.0, tied, rock])
    # one of the first two carries jazz; nothing carries slow; one of two carries rock
    np.testing.assert_allclose(metrics["precision@2 by tag"], [0.5, np.nan, 0.5])


def load(library: Library) -> tuple[EvaluationVectors, EvaluationListening]:
    folder = library.folder
    splits = load_splits(folder)
    assert splits is not None
    runs = {STAGE_ONE: "semantic", STAGE_TWO: "preference"}
    vectors = load_vectors(folder, runs, {}, splits, [], lambda _: None)
    pairs = mine_test_pairs(folder)
    return vectors, EvaluationListening(read_interactions(folder), splits, pairs, {})


@pytest.fixture(scope="module")
def loaded(trained_root: object) -> tuple[EvaluationVectors, EvaluationListening]:
    return load(Library.open(str(trained_root)))


def test_words_rank_as_search_does(
    trained: Library, loaded: tuple[EvaluationVectors, EvaluationListening]
) -> None:
    vectors, _ = loaded
    index = vectors.index()
    assert index.track_ids == trained.index.track_ids
    words = ["jazz", "slow"]
    query = Query(tuple(model.encode_text(words) for model in vectors.stages), "text")
    for blend in (0.0, 0.5, 1.0):
        scores = index.scores(query, blend)
        for row, word in enumerate(words):
            results = trained.search(word, k=5, blend=blend)
            rows = [index.rows[result.track_id] for result in results]
            expected = [result.score for result in results]
            np.testing.assert_allclose(scores[row, rows], expected, atol=1e-4)


def test_a_library_is_measured_at_three_blends(
    loaded: tuple[EvaluationVectors, EvaluationListening],
) -> None:
    """Against a plain loop over the words, the listeners and their likes."""
    vectors, listening = loaded
    measured = Measurements()
    steps: list[str] = []
    measure_words(measured, listening, vectors, steps.append)
    ndcg, precision = measured.scores
    assert (ndcg.section, ndcg.task, ndcg.metric) == ("preference", "words_preference", "NDCG@10")
    assert ndcg.of_record
    assert not precision.of_record
    assert list(ndcg.by_method) == [RANDOM, STAGE_ONE, STAGE_TWO, SERVED]
    assert steps == [f"taste: words, preference, {len(ndcg.queries)} words"]
    assert np.isfinite(ndcg.by_method[SERVED]).all()
    roles = listening.splits.roles
    tags = {}
    for row in vectors.tracks.to_dicts():
        labels = [label for column in ("genres", "tags") for label in row.get(column) or ()]
        tags[row["track_id"]] = {label.casefold() for label in labels}
    word = ndcg.queries[0]
    carriers = []
    past = before_test(listening.splits, listening.interactions)
    min_played_s = vectors.config.pairs.min_played_s
    liked = liked_tracks(past, min_played_s)
    for user, track_ids in liked.items():
        training = [track_id for track_id in track_ids if roles[track_id] == "train"]
        carried = [track_id for track_id in training if word in tags[track_id]]
        if training and len(carried) >= 0.3 * len(training):
            carriers.append(user)
    later = liked_tracks(in_test(listening.splits, listening.interactions), min_played_s)
    cold = sorted(track_id for track_id in vectors.ids if roles[track_id] == "test")
    relevance = [sum(track_id in later.get(user, ()) for user in carriers) for track_id in cold]
    task, recordings = module._library_task(listening, vectors)
    assert recordings == [[track_id] for track_id in cold]
    assert task.relevance[task.words.index(word)].tolist() == relevance


def liked_tracks(events: pl.DataFrame, min_played_s: float) -> dict[str, set[str]]:
    liked: dict[str, set[str]] = {}
    for event in events.to_dicts():
        played_s = event["played_s"]
        is_play = event["event"] == "play" and (played_s is None or played_s >= min_played_s)
        if is_play or event["event"] in ("complete", "like", "collect", "playlist"):
            liked.setdefault(event["user_id"], set()).add(event["track_id"])
    return liked


def test_copies_of_a_recording_are_one_candidate(
    loaded: tuple[EvaluationVectors, EvaluationListening],
) -> None:
    vectors, listening = loaded
    _, track_ids = module._library_task(listening, vectors)
    first = track_ids[0][0]
    second = track_ids[1][0]
    copies = {first: "recording", second: "recording"}
    joined = EvaluationListening(
        listening.interactions, listening.splits, listening.pairs, {}, recordings=copies
    )
    apart, _ = module._library_task(listening, vectors)
    task, of_recordings = module._library_task(joined, vectors)
    assert of_recordings == [[first, second], *track_ids[2:]]
    most = np.maximum(apart.relevance[:, 0], apart.relevance[:, 1])
    both = apart.relevance[:, 0] + apart.relevance[:, 1]
    assert (most <= task.relevance[:, 0]).all()
    assert (task.relevance[:, 0] <= both).all()
    scores = module._search_scores(task.words, of_recordings, vectors)[STAGE_ONE]
    single = module._search_scores(task.words, track_ids, vectors)[STAGE_ONE]
    np.testing.assert_array_equal(scores[:, 0], np.maximum(single[:, 0], single[:, 1]))


def test_a_category_before_a_tag_and_its_case_are_no_part_of_the_word() -> None:
    tracks = pl.DataFrame(
        {
            "track_id": ["a", "b"],
            "genres": [["Free_Jazz", "free jazz "], None],
            "tags": [["mood/theme---happy"], []],
        }
    )
    assert module._tags_by_id(tracks) == {"a": {"free jazz", "happy"}, "b": set()}
