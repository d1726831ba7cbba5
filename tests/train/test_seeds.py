"""Several seeds of one training: names and settings."""

from ponticello.library import Library
from ponticello.train.runs import seed_run, with_seed


def test_the_first_seed_keeps_the_runs_name() -> None:
    assert [seed_run("semantic", number) for number in (1, 2, 5)] == [
        "semantic",
        "semantic-2",
        "semantic-5",
    ]


def test_only_the_stages_own_seed_moves_on(trained: Library) -> None:
    third = with_seed(trained.folder, "preference", 3)
    before, after = trained.folder.config, third.config
    assert after.preference.seed == before.preference.seed + 2
    assert after.model_copy(update={"preference": before.preference}) == before
    assert third.root == trained.folder.root
