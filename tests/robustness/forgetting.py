"""Forgets listeners: the library becomes what it would be without them, and an attack fails.

The attack (membership inference): the attacker holds a listener's history, the published pairs and
the model, and wants to know whether the listener was in the log. They score a listener by the
listeners behind each pair of tracks that this one liked, or by the mean cosine of these pairs. AUC
is how often a listener of the log scores above one of the same simulation who never was in it; 0.5
is guessing.
"""

import shutil
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from ponticello.features.store import FeatureStore
from ponticello.listening.log import read_interactions
from ponticello.maintenance.erase_user import erase_users
from ponticello.model.htcl import HTCL
from ponticello.storage.schema import ANCHOR_ID, EVENT, POSITIVE_ID, TRACK_ID, USER_ID
from tests.robustness.children import in_child
from tests.robustness.rows import Outcome, Row, Trial, require
from tests.robustness.world import (
    N_ARTISTS,
    N_TRACKS,
    SECONDS,
    make_library,
    simulated_log,
    train_both,
    train_stage,
)
from tests.synthetic import make_catalogue
from tests.tiny_bert import make_text_encoder

N_IN = 60  # listeners in the log
N_OUT = 60  # of the same simulation, but not in the log
N_FORGOTTEN = 20  # of those in the log
TABLES = ("pairs.parquet", "validation-pairs.parquet", "splits.parquet")
Scores = dict[str, float]  # by listener


def _liked(log: pl.DataFrame) -> dict[str, list[str]]:
    """What each listener liked, or put on a list."""
    chosen = log.filter(pl.col(EVENT).is_in(["like", "playlist", "complete"]))
    return {
        user: sorted(set(ids)) for user, ids in chosen.group_by(USER_ID).agg(TRACK_ID).iter_rows()
    }


def _by_pairs(root: Path, liked: dict[str, list[str]]) -> Scores:
    table = pl.read_parquet(root / "pairs.parquet")
    behind: dict[tuple[str, str], int] = {}
    for anchor, positive, n in table.select(ANCHOR_ID, POSITIVE_ID, "n_users").iter_rows():
        behind[anchor, positive] = max(n, behind.get((anchor, positive), 0))
    return {user: float(np.mean([behind.get(pair, 0) for pair in combinations(ids, 2)] or [0]))
            for user, ids in liked.items()}  # fmt: skip


def _by_model(root: Path, liked: dict[str, list[str]]) -> Scores:
    model, store = HTCL.from_pretrained(root / "runs" / "preference"), FeatureStore(root / "mels")
    ids = store.track_ids
    vectors = dict(
        zip(ids, model.encode_features([store.read(track_id) for track_id in ids]), strict=True)
    )
    return {user: float(np.mean([vectors[a] @ vectors[b] for a, b in combinations(own, 2)] or [0]))
            for user, own in liked.items()}  # fmt: skip


def _auc(scores: Scores, inside: list[str], outside: list[str]) -> float:
    """Returns how often one of `inside` scores above one of `outside`; a tie counts half."""
    is_inside = [True] * len(inside) + [False] * len(outside)
    return float(roc_auc_score(is_inside, [scores[user] for user in (*inside, *outside)]))


def _forget(work: Path, seed: int) -> dict[str, list[float]]:
    """Both attacks' AUC before and after; Broken where anything of the forgotten is left."""
    catalogue = make_catalogue(N_TRACKS, N_ARTISTS, SECONDS, seed)
    table = catalogue.write(work / "sounds")
    make_text_encoder(work / "bert")
    everyone = simulated_log(catalogue, N_IN + N_OUT, seed)
    users = sorted(everyone[USER_ID].unique().to_list())
    np.random.default_rng(seed).shuffle(users)
    inside, outside, forgotten = users[:N_IN], users[N_IN:], users[:N_FORGOTTEN]
    log, liked = everyone.filter(pl.col(USER_ID).is_in(inside)), _liked(everyone)
    library = make_library(work / "library", table, log)
    root = library.folder.root
    train_both(root)
    before = _attack(root, liked, forgotten, outside)
    with library.folder.lock():
        done = erase_users(library.folder, forgotten)
    require(done.runs == ("preference",), f"the run to train again is not named: {done.runs}")
    never = make_library(work / "never", table, log.filter(~pl.col(USER_ID).is_in(forgotten)))
    for name in TABLES:
        same = (root / name).read_bytes() == (never.folder.root / name).read_bytes()
        require(same, f"{name} is not what it would be without them")
    left = read_interactions(library.folder).sort(pl.all())
    wanted = read_interactions(never.folder).sort(pl.all())
    require(left.equals(wanted), "the log is not what it would be without them")
    shutil.rmtree(root / "runs" / "preference")
    train_stage(root, "preference")
    after = _attack(root, liked, forgotten, outside)
    return {name: [before[name], after[name]] for name in before}


def _attack(
    root: Path, liked: dict[str, list[str]], forgotten: list[str], outside: list[str]
) -> dict[str, float]:
    """Returns the AUC of both attacks."""
    return {
        "pairs": _auc(_by_pairs(root, liked), forgotten, outside),
        "model": _auc(_by_model(root, liked), forgotten, outside),
    }


def forget(trial: Trial) -> Outcome:
    """A simulation a try; 20 of 60 listeners are forgotten, and another 60 never were in."""
    outcome = Outcome()
    found: list[dict[str, list[float]]] = []
    for number in range(trial.tries):
        work = trial.work / str(number)
        work.mkdir()
        with outcome.counted(f"simulation {number}"):
            found.append(in_child(partial(_forget, work, trial.seed + number)))
        shutil.rmtree(work)
    for name in ("pairs", "model") if found else ():
        before, after = (np.array([each[name][place] for each in found]) for place in (0, 1))
        error = max(0.09, float(after.std())) / np.sqrt(
            len(found)
        )  # 0.09: of 20 against 60 by chance
        outcome.notes.append(
            f"AUC by the {name}: {before.mean():.3f} before, "
            f"{after.mean():.3f} after (± {error:.3f})"
        )
        if abs(after.mean() - 0.5) > 3 * error:
            outcome.failures.append(f"the {name} still tell: AUC {after.mean():.3f}")
    return outcome


ROWS = [
    Row(
        "forgotten",
        "`forget-user` leaves the tables as they would be without the listeners, byte for byte, "
        "and names the run to train again; after that a membership-inference attack on them is a "
        "guess",
        10,
        1,
        forget,
    )
]
