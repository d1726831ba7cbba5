"""Lists the public data sets, and imports one into a library."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ponticello.datasets.captions import (
    DESCRIBER_HOW,
    MUSICCAPS_HOW,
    read_musiccaps,
    read_song_describer,
)
from ponticello.datasets.fma import FMA_HOW, read_fma
from ponticello.datasets.listening import HETREC_HOW, MELON_HOW, read_hetrec, read_melon
from ponticello.datasets.music4all import MUSIC4ALL_HOW, read_music4all
from ponticello.datasets.tables import Content
from ponticello.datasets.tagging import (
    GTZAN_HOW,
    JAMENDO_HOW,
    MAGNATAGATUNE_HOW,
    read_gtzan,
    read_jamendo,
    read_magnatagatune,
)
from ponticello.datasets.yambda import YAMBDA_HOW, read_yambda
from ponticello.errors import DataError
from ponticello.listening.log import merge_interactions
from ponticello.storage.layout import LibraryPaths
from ponticello.tracks.catalog import merge_tracks

_STEP = "import-dataset"
_TAGGING = "macro ROC-AUC and PR-AUC"


@dataclass(frozen=True)
class PublicSet:
    """A public set: its source, its licence and the function that reads its folder.

    licence, how_to_get: for people to read before use; Ponticello downloads no set.
    metric: the usual one for results on this set.
    """

    name: str
    title: str
    licence: str
    source: str
    how_to_get: str
    metric: str
    read: Callable[[Path], Content]


@dataclass(frozen=True)
class ImportedSet:
    """Counts of an import. n_tracks, n_events: in the library afterwards. missing: files.

    A set without listeners adds no events.
    """

    n_tracks_new: int
    n_tracks_updated: int
    n_tracks: int
    n_events_new: int
    n_events: int
    n_skipped: int
    missing: list[str]


_ALL = (
    PublicSet(
        "mtg-jamendo",
        "MTG-Jamendo",
        "audio: Creative Commons, a licence a track; metadata: CC BY-NC-SA 4.0",
        "https://mtg.github.io/mtg-jamendo-dataset/",
        JAMENDO_HOW,
        f"{_TAGGING}, a family of tags and split",
        read_jamendo,
    ),
    PublicSet(
        "magnatagatune",
        "MagnaTagATune",
        "audio: CC BY-NC-SA (Magnatune)",
        "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
        MAGNATAGATUNE_HOW,
        f"{_TAGGING}, top 50 tags",
        read_magnatagatune,
    ),
    PublicSet(
        "gtzan",
        "GTZAN",
        "none stated; commercial recordings, for research only",
        "https://github.com/jongpillee/music_dataset_split",
        GTZAN_HOW,
        "accuracy on the fault-filtered test list",
        read_gtzan,
    ),
    PublicSet(
        "fma",
        "FMA, Free Music Archive",
        "audio: its artists' licences, one a track; metadata: CC BY 4.0",
        "https://github.com/mdeff/fma",
        FMA_HOW,
        "accuracy of the top genre (small, medium)",
        read_fma,
    ),
    PublicSet(
        "musiccaps",
        "MusicCaps",
        "captions: CC BY-SA 4.0; no audio",
        "https://huggingface.co/datasets/google/MusicCaps",
        MUSICCAPS_HOW,
        "recall@k and median rank, text to audio",
        read_musiccaps,
    ),
    PublicSet(
        "song-describer",
        "Song Describer Dataset",
        "captions: CC BY-SA 4.0; audio: Creative Commons, a licence a track",
        "https://zenodo.org/records/10072001",
        DESCRIBER_HOW,
        "recall@k and median rank, text to audio, valid subset",
        read_song_describer,
    ),
    PublicSet(
        "music4all-onion",
        "Music4All and Music4All-Onion",
        "Music4All: research only, on request; Onion: CC BY-NC-SA 4.0",
        "https://zenodo.org/records/15394646",
        MUSIC4ALL_HOW,
        "recall@k and nDCG@k of held-out listening",
        read_music4all,
    ),
    PublicSet(
        "melon",
        "Melon Playlist Dataset",
        "non-profit research only, no redistribution",
        "https://arena.kakao.com/melon_dataset",
        MELON_HOW,
        "nDCG@100 of the songs held back",
        read_melon,
    ),
    PublicSet(
        "yambda",
        "Yambda",
        "Apache-2.0",
        "https://huggingface.co/datasets/yandex/yambda",
        YAMBDA_HOW,
        "nDCG@k, recall@k and coverage@k, global split by time",
        read_yambda,
    ),
    PublicSet(
        "hetrec2011-lastfm",
        "HetRec 2011 Last.fm",
        "non-commercial use only",
        "https://grouplens.org/datasets/hetrec-2011/",
        HETREC_HOW,
        "none settled; recall@k and nDCG@k of held-out artists",
        read_hetrec,
    ),
)
SETS = {public.name: public for public in _ALL}


def read_set(name: str, folder: Path) -> Content:
    """Reads the set `name`, one of `SETS`, from its files in `folder`.

    DataError: no such set or folder, a required file is missing, or no track is usable.

        content = read_set("gtzan", Path("downloads/gtzan"))
    """
    if name not in SETS:
        raise DataError(f"data set {name!r} is unknown; use one of {', '.join(SETS)}")
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; to get {SETS[name].title}: {SETS[name].how_to_get}"
        )
    content = SETS[name].read(folder.resolve())
    if not content.tracks.height:
        first = ""
        if content.skipped:
            first = f"; first: {content.skipped[0].file} {content.skipped[0].reason}"
        raise DataError(
            f"{folder} has no usable track of {SETS[name].title}{first}; get the files again"
        )
    return content


def import_dataset(folder: LibraryPaths, name: str, source: Path) -> ImportedSet:
    """Adds the tracks and listening of a public set to the library.

    Tracks of the library are updated, its events are not added twice. Rows that cannot be used are
    listed in skipped.csv.

    DataError: see `read_set`. LibraryError: another process is writing.

        import_dataset(folder, "hetrec2011-lastfm", Path("downloads/hetrec2011-lastfm-2k"))
    """
    content = read_set(name, source)
    n_events_new = n_events = 0
    with folder.lock():
        n_updated, n_tracks = merge_tracks(folder, content.tracks, name)
        if content.interactions is not None:
            n_events_new, n_events = merge_interactions(folder, content.interactions, name)
        folder.record_skipped(_STEP, content.skipped)
    n_new = content.tracks.height - n_updated
    return ImportedSet(
        n_new, n_updated, n_tracks, n_events_new, n_events, len(content.skipped), content.missing
    )
