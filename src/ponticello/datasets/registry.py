"""Lists the public data sets, and imports one into a library."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ponticello.datasets.captions import read_musiccaps, read_song_describer
from ponticello.datasets.fma import read_fma
from ponticello.datasets.listening import read_hetrec, read_melon
from ponticello.datasets.music4all import read_music4all
from ponticello.datasets.tables import Content, SetFolder
from ponticello.datasets.tagging import read_gtzan, read_jamendo, read_magnatagatune
from ponticello.datasets.yambda import read_yambda
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
    read_files: Callable[[SetFolder], Content]

    def read(self, folder: Path) -> Content:
        """Reads the set from its files in `folder`; DataError if a required file is missing."""
        return self.read_files(SetFolder(folder, self.how_to_get))


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
        "git clone https://github.com/MTG/mtg-jamendo-dataset, then its "
        "scripts/download/download.py for the audio",
        f"{_TAGGING}, a family of tags and split",
        read_jamendo,
    ),
    PublicSet(
        "magnatagatune",
        "MagnaTagATune",
        "audio: CC BY-NC-SA (Magnatune)",
        "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
        "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset: two csv files and mp3.zip.001 "
        "to .003",
        f"{_TAGGING}, top 50 tags",
        read_magnatagatune,
    ),
    PublicSet(
        "gtzan",
        "GTZAN",
        "none stated; commercial recordings, for research only",
        "https://github.com/jongpillee/music_dataset_split",
        "the audio from a mirror (its first home is gone); the lists from GTZAN_split/ of "
        "https://github.com/jongpillee/music_dataset_split",
        "accuracy on the fault-filtered test list",
        read_gtzan,
    ),
    PublicSet(
        "fma",
        "FMA, Free Music Archive",
        "audio: its artists' licences, one a track; metadata: CC BY 4.0",
        "https://github.com/mdeff/fma",
        "https://github.com/mdeff/fma: fma_metadata.zip, and fma_small, fma_medium, fma_large or "
        "fma_full.zip",
        "accuracy of the top genre (small, medium)",
        read_fma,
    ),
    PublicSet(
        "musiccaps",
        "MusicCaps",
        "captions: CC BY-SA 4.0; no audio",
        "https://huggingface.co/datasets/google/MusicCaps",
        "musiccaps-public.csv from https://huggingface.co/datasets/google/MusicCaps; "
        "the set has no audio",
        "recall@k and median rank, text to audio",
        read_musiccaps,
    ),
    PublicSet(
        "song-describer",
        "Song Describer Dataset",
        "captions: CC BY-SA 4.0; audio: Creative Commons, a licence a track",
        "https://zenodo.org/records/10072001",
        "song_describer.csv and audio.zip from https://zenodo.org/records/10072001",
        "recall@k and median rank, text to audio, valid subset",
        read_song_describer,
    ),
    PublicSet(
        "music4all-onion",
        "Music4All and Music4All-Onion",
        "Music4All: research only, on request; Onion: CC BY-NC-SA 4.0",
        "https://zenodo.org/records/15394646",
        "Music4All: ask its authors (https://sites.google.com/view/contact4music4all); "
        "Onion: Zenodo record 15394646",
        "recall@k and nDCG@k of held-out listening",
        read_music4all,
    ),
    PublicSet(
        "melon",
        "Melon Playlist Dataset",
        "non-profit research only, no redistribution",
        "https://arena.kakao.com/melon_dataset",
        "register at https://arena.kakao.com/melon_dataset",
        "nDCG@100 of the songs held back",
        read_melon,
    ),
    PublicSet(
        "yambda",
        "Yambda",
        "Apache-2.0",
        "https://huggingface.co/datasets/yandex/yambda",
        "flat/50m (or 500m, 5b) of https://huggingface.co/datasets/yandex/yambda",
        "nDCG@k, recall@k and coverage@k, global split by time",
        read_yambda,
    ),
    PublicSet(
        "hetrec2011-lastfm",
        "HetRec 2011 Last.fm",
        "non-commercial use only",
        "https://grouplens.org/datasets/hetrec-2011/",
        "hetrec2011-lastfm-2k.zip from https://grouplens.org/datasets/hetrec-2011/",
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
