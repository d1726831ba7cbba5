"""demo: the whole way on a tiny catalogue, honest about its simulated listeners, and again without
training.
"""

import re
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from ponticello.cli.demo import DATA, LABELS, SEARCHES
from ponticello.cli.main import app
from ponticello.errors import LibraryError
from ponticello.listening.log import read_interactions
from ponticello.model.htcl import HTCL
from ponticello.storage.layout import create_library, open_library
from ponticello.storage.schema import TAGS, USER_ID
from tests.synthetic import make_catalogue

STEPS = ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]
SETTINGS = """preset = "tiny"
[text]
name = "{text_encoder}"
[semantic]
epochs = 2
[preference]
gain_confidence = 0.5
[simulation]
n_listeners = 200
[evaluate]
bootstrap_rounds = 100
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as demo/ is: 40 synthetic tracks of 20 artists in three games, their tags
    machine-made.
    """
    folder = tmp_path_factory.mktemp("data")
    table = make_catalogue(n_tracks=40, n_artists=20, seconds=2.0, seed=0).write(folder)
    rows = pl.read_csv(table).rename({TAGS: "machine_tags"})
    games = [f"Game {number % 20 % 3}" for number in range(40)]
    rows.with_columns(pl.Series("game", games)).write_csv(table)
    return folder


def _demo(library: Path, data: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        # For forty short sounds a second process costs more than it saves.
        patch.setattr("os.cpu_count", lambda: 1)
        # Tuning the others takes most of the time; tests/evaluate runs them all.
        patch.setattr("ponticello.cli.demo.BASELINES", ["item_knn", "content_knn"])
        return CliRunner().invoke(app, ["demo", "--library", str(library), "--data", str(data)])


@pytest.fixture(scope="module")
def done(
    data: Path, text_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The library of a demo that ran to its end, made before with a tiny text tower, and what the
    demo printed.
    """
    root = tmp_path_factory.mktemp("demo") / "library"
    create_library(root, "tiny")
    settings = SETTINGS.format(text_encoder=text_encoder_folder.as_posix())
    (root / "ponticello.toml").write_text(settings, encoding="utf-8")
    return root, _demo(root, data)


def _parts(printed: str) -> dict[str, str]:
    """{step: what was printed under it}."""
    found = re.split(r"^== (\d/6) ", printed, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_missing_data_says_where_to_get_them_and_makes_no_library(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "-L", str(tmp_path / "lib"), "--data", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, LibraryError)
    wanted = (
        f"{tmp_path} has no tracks.csv: get the source with its demo/ folder, and pass --data demo"
    )
    assert str(result.exception) == wanted
    assert not (tmp_path / "lib").exists()


def test_default_data_are_the_sources_own_with_the_label_the_probe_reads() -> None:
    header = (DATA / "tracks.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {*LABELS, "license", "attribution"} <= set(header)
    assert (DATA / "ATTRIBUTION.md").is_file()


@pytest.mark.slow
def test_demo_goes_through_its_six_steps(done: tuple[Path, Result], data: Path) -> None:
    root, result = done
    assert result.exit_code == 0, result.output
    parts = _parts(result.stdout)
    assert list(parts) == STEPS
    assert (
        f"40 tracks of game music, 40 prepared; licences: {data / 'ATTRIBUTION.md'}" in parts["1/6"]
    )
    log = read_interactions(open_library(root))
    n = log.height
    listeners = log[USER_ID].n_unique()
    assert listeners == 200
    assert (
        f"{n:,} simulated events of 200 simulated listeners, in {root / 'simulated-listening.csv'}"
        in parts["2/6"]
    )
    assert re.search(
        rf"^[1-9][\d,]* pairs in {re.escape(str(root / 'pairs.parquet'))}, ",
        parts["3/6"],
        re.MULTILINE,
    )


@pytest.mark.slow
def test_demo_prints_before_and_after_beside_the_baselines(done: tuple[Path, Result]) -> None:
    """A table a side, with numbers of both stages beside chance; all of it stands in the report
    too.
    """
    root, result = done
    part = _parts(result.stdout)["5/6"]
    meaning, taste = part.split("\ntaste, value [95 % interval]\n")
    assert "text to audio: R@10" in meaning
    assert "next tracks, cold: NDCG@10" in taste
    for table in (meaning, taste):
        for method in ("random", "stage one", "stage two"):
            assert re.search(rf"^\| {method} +\| \d", table, re.MULTILINE), method
    assert meaning.count("\nStage two against stage one. ") == 1
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    assert "probe: game" in page
    assert "next tracks, cold" in page


@pytest.mark.slow
def test_whatever_comes_from_the_listeners_says_that_they_are_simulated(
    done: tuple[Path, Result],
) -> None:
    """Funnel and table alike, the written report, and the last line of all."""
    root, result = done
    parts = _parts(result.stdout)
    for step, first_number in (
        ("2/6", "simulated events"),
        ("3/6", "positive events"),
        ("5/6", "| method "),
    ):
        assert 0 <= parts[step].index("SIMULATED") < parts[step].index(first_number)
    assert "SIMULATED listeners" in (root / "report" / "evaluation.md").read_text(encoding="utf-8")
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"done in \d+ s\. The preference figures come from SIMULATED listeners\.", last
    )
    assert read_interactions(open_library(root))[USER_ID].str.starts_with("simulated-").all()


@pytest.mark.slow
def test_demo_shows_five_searches_with_both_parts_of_a_score(done: tuple[Path, Result]) -> None:
    part = _parts(done[1].stdout)["6/6"]
    assert len(SEARCHES) == 5
    for text in SEARCHES:
        rows = part.split(f"\n{text!r}\n")[1].splitlines()[1:6]
        assert [row.split()[0] for row in rows] == ["1", "2", "3", "4", "5"]
        for row in rows:
            score, semantic, preference = map(float, re.findall(r"-?\d+\.\d\d(?= )", row)[:3])
            assert score == pytest.approx(semantic + preference, abs=0.011)


@pytest.mark.slow
def test_paths_the_demo_names_are_there(done: tuple[Path, Result]) -> None:
    root, result = done
    named = dict(re.findall(r"^(library|report|model) +(.+)$", result.stdout, re.MULTILINE))
    assert named == {
        "library": str(root),
        "report": str(root / "report" / "index.html"),
        "model": str(root / "runs" / "preference"),
    }
    assert all(Path(path).exists() for path in named.values())
    assert HTCL.from_pretrained(named["model"]).encode_text(["slow"]).shape == (1, 256)
    assert f"\ntry:    ponticello search 'slow and sad' -L {root} --blend 0.3\n" in result.stdout


@pytest.mark.slow
def test_demo_again_trains_nothing_and_gives_the_same_table(
    done: tuple[Path, Result], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("ponticello.train.loop.TrainingLoop", train)
    root, first = done
    again = _demo(root, data)
    assert again.exit_code == 0, again.output
    assert "40 tracks of game music, 0 prepared" in again.stdout
    for step in ("2/6", "3/6", "5/6"):
        assert _parts(again.stdout)[step] == _parts(first.stdout)[step]
