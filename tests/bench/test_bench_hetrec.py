"""The Last.fm benchmark on hand-made files of the set's shape: two worlds of listeners, artists and
tags.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import hetrec
from ponticello.errors import ConfigError, DataError
from ponticello.evaluate.report.tables import display_name
from ponticello.model.text_encoder import load_text_encoder

N_USERS, N_ARTISTS = 24, 40
WORLDS = (
    ("low", "dark", "slow"),
    ("high", "bright", "fast"),
)  # words the tests' text encoder knows
WARM = ["random", "popularity", "item_knn", "ease", "als", "text-kNN", "text profile"]
COLD = ["random", "popularity (all tied)", "text-kNN", "text profile", "text→ALS"]


@pytest.fixture(autouse=True)
def tiny_encoder(text_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the tests' encoder in the place of MiniLM."""
    folder = str(text_encoder_folder)
    monkeypatch.setattr(hetrec, "load_text_encoder", lambda _name: load_text_encoder(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Listener u and artist a are of world u % 2 and a % 2; a listener plays 15 of the world's 20
    artists.

    Artist 40 has no tags; artist 41 has four listeners, too few.
    """
    tags = [word for world in WORLDS for word in world]
    plays = ["//userID\tartistID\tweight"]
    given = ["userID\tartistID\ttagID\tday\tmonth\tyear"]
    for user in range(1, N_USERS + 1):
        for artist in range(1, N_ARTISTS + 1):
            if user % 2 == artist % 2 and (artist // 2 + user) % 4:
                plays.append(f"{user}\t{artist}\t{user * artist}")
                first = 3 * (artist % 2)
                given += [
                    f"{user}\t{artist}\t{first + t}\t1\t4\t2009" for t in range(3) if artist < 40
                ]
    plays += [f"{user}\t41\t7" for user in range(1, 5)]
    write = {
        "user_artists.dat": "\n".join(plays),
        "user_taggedartists.dat": "\n".join(given),
        "tags.dat": "\n".join(
            [
                "tagID\ttagValue",
                *(f"{i}\t{word}" for i, word in enumerate(tags)),
                '9\trock "français',
            ]
        ),
    }
    for name, text in write.items():
        (tmp_path / name).write_text(text + "\n", encoding="iso-8859-1")
    return tmp_path


def _run(folder: Path, name: str) -> dict[str, Any]:
    hetrec.main([str(folder), "--seeds", "1", "--json", str(folder / name)])
    figures: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return figures


def test_the_tables_hold_every_method_and_the_same_call_gives_the_same_figures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worlds are found from the tags. All cold scores of popularity are tied, so its AUC is 1/2
    for each listener, whatever is relevant.
    """
    first = _run(folder, "first.json")
    printed = capsys.readouterr().out
    rows = []
    for line in printed.splitlines():
        if line.startswith("| "):
            rows.append(line.split(" | ")[0].removeprefix("| "))
    assert rows == ["method", *map(display_name, WARM), "method", *map(display_name, COLD)]
    assert "nothing here is temporal" in printed
    assert "- EASE: a track nobody has played" in printed
    figures = first["figures"]
    assert {part: list(methods) for part, methods in figures.items()} == {
        "warm": WARM,
        "cold": COLD,
    }
    assert figures["cold"]["popularity (all tied)"]["AUC"]["mean"] == 0.5
    assert figures["cold"]["text-kNN"]["AUC"]["mean"] > 0.8
    assert figures["cold"]["text→ALS"]["AUC"]["mean"] > 0.8
    assert figures["warm"]["ease"]["AUC"]["mean"] > 0.8
    assert first["counts"]["artists"] == N_ARTISTS
    assert first["counts"]["artists without tags"] == 1
    assert _run(folder, "second.json") == first


@pytest.mark.parametrize("seed", range(3))
def test_no_cold_or_held_out_entry_is_in_training_and_every_entry_has_one_place(
    folder: Path, seed: int
) -> None:
    matrix = hetrec.read_listening(folder).matrix
    split = hetrec.split_listening(matrix, seed)
    train = split.train.toarray()
    assert split.cold.sum() == round(0.15 * N_ARTISTS)
    assert split.train.data.min() > 0
    assert not train[:, split.cold].any()
    tasks = (split.validation, split.warm_test, split.cold_test)
    assert (
        sum(task.relevant.astype(int) for task in tasks) + (train > 0) == (matrix.toarray() > 0)
    ).all()
    assert all(not (task.relevant & ~task.allowed).any() for task in tasks)
    assert not split.warm_test.allowed[:, split.cold].any()
    assert (split.cold_test.allowed == split.cold).all()
    n_warm = (train > 0).sum() + split.warm_test.relevant.sum() + split.validation.relevant.sum()
    assert split.warm_test.relevant.sum() == round(0.2 * n_warm)
    assert split.validation.relevant.sum() in (int(0.1 * n_warm), int(0.1 * n_warm) + 1)


def test_values_are_logarithms_and_texts_the_most_given_tags_first(folder: Path) -> None:
    """Listener 1 played artist 1 once: log 2. One more listener calls artist 1 "fast", so that
    comes first.
    """
    with (folder / "user_taggedartists.dat").open("a", encoding="utf-8") as file:
        file.write("2\t1\t5\t1\t4\t2009\n")
    listening = hetrec.read_listening(folder)
    assert listening.matrix[0, 0] == pytest.approx(np.log(2.0))
    assert listening.texts[0] == "fast, high, bright"
    assert listening.texts[1] == "low, dark, slow"
    assert listening.texts[39] == ""


def test_text_knn_is_the_mean_over_the_three_closest_seeds() -> None:
    """Candidate (1, 0) against seeds (1, 0), (0.6, 0.8), (0, 1), (-1, 0): (1 + 0.6 + 0) / 3."""
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    scores = hetrec.text_knn(csr_matrix(np.array([[1.0, 1, 1, 1], [0, 0, 0, 0]])), vectors)
    assert scores[0, 0] == pytest.approx(1.6 / 3)
    assert not scores[1].any()


def test_text_profile_asks_as_recommend_does() -> None:
    """Places 2, 0, -2 on a line, ridge any: the listener of the first gets 1.2247, 0, -1.2247
    (test_user_profiles.py). With a hub correction of 1, divided by the spread of each place: 1.2247
    outside and, at least, a tenth of the usual in the middle; scaled to the same mean square.
    """
    vectors = np.array([[2.0], [0.0], [-2.0]])
    scores = hetrec.text_profile(csr_matrix(np.array([[1.0, 0, 0], [0, 0, 0]])), vectors)
    np.testing.assert_allclose(scores, [[1.0017, 0.0, -1.0017], [0.0, 0.0, 0.0]], atol=1e-4)


def test_artists_without_text_get_zeros_and_others_unit_vectors() -> None:
    vectors = hetrec.encode_texts(["dark, slow", "", "dark, slow", "bright"])
    assert not vectors[1].any()
    assert (vectors[0] == vectors[2]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 3]], axis=1), 1.0, atol=1e-12)


def test_wrong_input_is_refused_in_words(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--seeds must be at least 1; found 0"):
        hetrec.main([str(folder), "--seeds", "0"])
    (folder / "user_artists.dat").write_text(
        "//userID\tartistID\tweight\n1\t1\t3\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match="no artist has 5 listeners or more"):
        hetrec.read_listening(folder)
    (folder / "tags.dat").unlink()
    with pytest.raises(
        DataError, match=r"tags\.dat is missing; give the folder of hetrec2011-lastfm-2k"
    ):
        hetrec.read_listening(folder)
