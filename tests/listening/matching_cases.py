"""300 and more names that are easily mistaken for another, with the truth: which track of a made-up
catalogue is meant.

Everything is invented. A case is one line of a history; its truth is a track's id, or None where
the catalogue has the song only in another version, by another artist, or not at all. `expected`
says what a careful matcher can know: a truth it cannot tell from the line alone counts as missed
when refused, and as wrong when another track is given.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ponticello.listening.importers.records import TrackReference

NAMES = """Harbour Lights|Velvet Comet|Nine Lanterns|Pale Orchard|Quiet Engine|Saffron Mile
Tin Cathedral|Umber Fields|Winter Arcade|Yellow Meridian|Cobalt Hour|Drift Parade|Ember Choir
Fable County|Glass Heron|Hollow Tide|Indigo Ferry|Juniper Kites|Kestrel Road|Lowland Radio
Marble Sun|North Atrium|Opal District|Paper Canyon|Rusted Bells|Silver Moth|Thistle Works
Violet Anchor|Willow Static|Zephyr Union""".replace("\n", "|").split("|")
SONGS = """Blue Hour|Carry the Rain|Dust and Copper|Every Other Door|Falling Upstairs
Ghost Letters|Hand of Salt|Iron Garden|Jar of Wasps|Kindling|Last Ferry Home|Mirror Season
Night Bus|Open Water|Postcards|Quarter Moon|River Teeth|Sleepless|Tall Grass|Under Glass
Vanishing Point|White Noise Lullaby|Years of Snow|Zero Gravity|Amber Alert|Borrowed Coat
Cinder Path|Deep Blue Sea|Echo Park|First Frost""".replace("\n", "|").split("|")
VERSIONS = """Live|Live at Harbour Hall|Live 2009|Live Acoustic|Unplugged|Acoustic
Acoustic Version|Demo|Early Demo|Instrumental|Instrumental Version|Karaoke Version|Remix
Moth Remix|Club Mix|Extended Mix|Extended Version|Radio Edit|Edit|Dub|Dub Mix|VIP Mix|Sped Up
Slowed + Reverb|Nightcore|8D Audio|A Cappella|Acapella|Orchestral Version|Piano Version
Strings Version|Rerecorded|Re-recorded 2019|Nora's Version|Cover|Tribute|Take 3|Alternate Take
Outtake|Rehearsal|Reprise|Session|Studio Session|Mono|Single Version|Album Version|Clean|12" Mix
Rework|Bootleg|Mashup|Ao Vivo|En Vivo|En Directo|ライブ|现场版|Концерт|Part 2|II|Commentary
Remastered Live|Live, 2011 Remaster|Moth Remix [2011 Remaster]
Originally Performed by Hollow Tide|In the Style of Hollow Tide|Made Famous by Hollow Tide
Stripped|Full Length|Medley|Radio 4 Broadcast""".replace("\n", "|").split("|")
NOTATIONS = ("{} ({})", "{} [{}]", "{} - {}", "{} – {}")


@dataclass(frozen=True)
class Case:
    """One line of a history and the track that it means. kind: which trap it is."""

    kind: str
    reference: TrackReference
    truth: str | None


@dataclass(frozen=True)
class Track:
    """A row of the catalogue."""

    track_id: str
    artist: str
    title: str
    album: str | None = None
    duration_s: float | None = None
    mbid: str | None = None


class _Set:
    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.cases: list[Case] = []

    def track(
        self,
        artist: str,
        title: str,
        album: str | None = None,
        duration_s: float | None = None,
        mbid: str | None = None,
    ) -> str:
        self.tracks.append(
            Track(f"t{len(self.tracks):04d}", artist, title, album, duration_s, mbid)
        )
        return self.tracks[-1].track_id

    def case(
        self,
        kind: str,
        truth: str | None,
        artist: str,
        title: str,
        album: str | None = None,
        duration_s: float | None = None,
        mbid: str | None = None,
    ) -> None:
        heard = TrackReference(
            artist=artist, title=title, album=album, duration_s=duration_s, mbid=mbid
        )
        self.cases.append(Case(kind, heard, truth))


def build() -> tuple[list[Track], list[Case]]:
    """(the catalogue, the cases); the same at every call."""
    made = _Set()
    here = (_versions, _only_versions, _beside, _words, _covers, _guests, _remasters)
    for family in (*here, _spellings, _accents, _near, _albums, _twice, _ids):
        family(made)
    return made.tracks, made.cases


def _names(family: str) -> Iterable[tuple[str, str]]:
    """(artist, song) pairs of one family; no artist appears in two."""
    return [(f"{name} {family}", song) for name, song in zip(NAMES, SONGS, strict=True)]


def _versions(made: _Set) -> None:
    """The catalogue has the song; another version was heard."""
    pairs = list(_names("Trio"))
    for artist, song in pairs:
        made.track(artist, song)
    for place, version in enumerate(VERSIONS):
        artist, song = pairs[place % len(pairs)]
        made.case(
            "version heard, plain here", None, artist, NOTATIONS[place % 4].format(song, version)
        )


def _only_versions(made: _Set) -> None:
    """The catalogue has a version only; the song was heard."""
    for place, (artist, song) in enumerate(_names("Quartet")):
        made.track(artist, NOTATIONS[place % 4].format(song, VERSIONS[2 * place]))
        made.case("plain heard, version here", None, artist, song)


def _beside(made: _Set) -> None:
    """The catalogue has both: each is found, however its label is written."""
    for place, (artist, song) in enumerate(_names("Ensemble")):
        version = VERSIONS[place]
        plain = made.track(artist, song)
        other = made.track(artist, NOTATIONS[place % 4].format(song, version))
        made.case("both here, plain heard", plain, artist, song.upper())
        made.case(
            "both here, version heard",
            other,
            artist,
            NOTATIONS[(place + 1) % 4].format(song, version.lower()),
        )


def _words(made: _Set) -> None:
    """A word that often names a version is part of the title."""
    rows = [
        ("Long Live", "Long (Live)"),
        ("Live", "Live (Live)"),
        ("Alive", "A (Live)"),
        ("Live and Learn", "Learn (Live)"),
        ("Demo", "Demo (Demo)"),
        ("The Remix", "The (Remix)"),
        ("We Live Here", "We Live Here (Live)"),
        ("Radio", "Radio (Edit)"),
        ("Acoustic Shadow", "Shadow (Acoustic)"),
        ("Mono", "Mono (Mono)"),
        ("Dub Be Good", "Be Good (Dub)"),
        ("Cover Me", "Me (Cover)"),
        ("Take Three", "Three (Take)"),
        ("Session Musician", "Musician (Session)"),
        ("Karaoke Night", "Night (Karaoke)"),
    ]
    for place, (title, other) in enumerate(rows):
        artist = f"{NAMES[place]} Orchestra"
        track = made.track(artist, title)
        made.case("a version's word in the title", track, artist, title.lower())
        made.case("a version's word in the title", None, artist, other)


def _covers(made: _Set) -> None:
    for place, (artist, song) in enumerate(_names("Society")):
        if place < 20:
            made.track(artist, song, "Night Songs", 200.0)
            others = [
                f"{NAMES[place]} Societies",
                f"Tribute to {artist}",
                f"{artist} Cover Band",
                "Various Artists",
            ]
            made.case("a cover", None, others[place % 4], song, "Night Songs", 200.0)


def _guests(made: _Set) -> None:
    forms = [
        "{} (feat. {})",
        "{} feat. {}",
        "{} ft. {}",
        "{} [featuring {}]",
        "{} (Ft. {})",
        "{} Feat {}",
    ]
    for place, form in enumerate(forms):
        artist, song, guest = f"{NAMES[place]} Collective", SONGS[place], f"{NAMES[-1 - place]}"
        track = made.track(artist, f"{song} (feat. {guest})")
        made.case("a guest, written otherwise", track, artist, form.format(song, guest))
        made.case("a guest, written otherwise", track, form.format(artist, guest), song)
        made.case("another guest", None, artist, form.format(song, NAMES[place + 8]))
        made.case("no guest named", None, artist, song)
        made.case("a guest and a version", None, artist, f"{form.format(song, guest)} - Live")
        plain = made.track(artist, SONGS[place + 10], "Night Songs", 215.0)
        made.case("a guest here not named", None, artist, form.format(SONGS[place + 10], guest))
        made.case(
            "a guest here not named, same album",
            plain,
            artist,
            form.format(SONGS[place + 10], guest),
            "Night Songs",
        )


def _remasters(made: _Set) -> None:
    labels = [
        "2011 Remaster",
        "Remastered 2011",
        "Remastered",
        "2011 Remastered Version",
        "2009 Digital Remaster",
    ]
    for place, label in enumerate(labels):
        artist, song = f"{NAMES[place]} Brothers", SONGS[place]
        plain = made.track(artist, song)
        made.case("a remaster, plain here", plain, artist, f"{song} - {label}")
        made.case("a remaster of another version", None, artist, f"{song} (Live) [{label}]")
        both = [
            made.track(artist, SONGS[place + 10]),
            made.track(artist, f"{SONGS[place + 10]} - {label}"),
        ]
        made.case("a remaster, both here", both[1], artist, f"{SONGS[place + 10]} ({label})")
        made.case("a remaster, both here", both[0], artist, SONGS[place + 10])
        made.case(
            "a third remaster, two here", None, artist, f"{SONGS[place + 10]} (1999 Remaster)"
        )


def _spellings(made: _Set) -> None:
    """One song, written otherwise: all of these are the same."""
    rows = [
        ("The Owl Club", "Don't Look Down", "Owl Club", "Don’t Look Down"),
        ("Owl Parliament", "Rock & Rain", "The Owl Parliament", "Rock and Rain"),
        ("Sisters, The", "Hello", "The Sisters", "HELLO"),
        ("Nine Inch Rails", "Wait...", "nine inch rails", "Wait…"),
        ("AB/CD", "Song No. 5", "AB-CD", "Song No 5"),
        ("Mötley Heron", "Fön", "MÖTLEY HERON", "FÖN"),
        ("Straße", "Weiß", "STRASSE", "WEISS"),
        ("夜の船", "青い時間", "夜の船", "青い時間 "),
        ("ゴーストレター", "ガラス", "ｺﾞｰｽﾄﾚﾀｰ", "ｶﾞﾗｽ"),
        ("Тихий Мотор", "Синий Час", "ТИХИЙ МОТОР", "синий час"),
        ("Ήσυχος", "Μπλε Ώρα", "ΉΣΥΧΟΣ", "ΜΠΛΕ ΏΡΑ"),
        ("Cafe\u0301 Noir", "Re\u0301sume\u0301", "Café Noir", "Résumé"),
        ("Ｗｉｄｅ Ｌｉｎｅ", "Ｂｌｕｅ", "Wide Line", "blue"),
        ("Ko$hka", "Ca$h + Carry", "KO$HKA", "CA$H + CARRY"),
        ("Pale Fin", "What?", "pale fin", "what"),
        ("!!!!", "????", "!!!!", "????"),
        ("Ada; Bo", "Duet", "Ada feat. Bo", "Duet"),
        ("Tin Ear", "(I Never Said) Goodbye", "Tin Ear", "I Never Said Goodbye"),
        ("Slow Fox", "Nocturne No. 2 - Andante", "Slow Fox", "Nocturne No. 2: Andante"),
        ("Slow Fox", "Suite, Pt. 3", "Slow Fox", "Suite (Part 3)"),
        ("Twelve Tone", "A/B", "Twelve Tone", "A / B"),
        ("Twelve Tone", "‘Round the Clock", "Twelve Tone", "'Round The Clock"),
        ("Mid Way", "So‐Called", "Mid Way", "So-Called"),
        ("Mid Way", "Ｎｏ． ９", "Mid Way", "No. 9"),
        ("هدوء", "ساعة زرقاء", "هدوء", "ساعة  زرقاء"),
        ("Şehir", "Işık", "Şehir", "Işık"),
        ("Zero\u200bWidth", "Gap", "ZeroWidth", "Gap"),
        ("Heart Bit", "I ♥ U", "Heart Bit", "i ♥ u"),
        ("Mr. Plow", "Mrs. Plow", "Mr Plow", "Mrs Plow"),
        ("Ends, Wind & Salt", "May", "Ends Wind and Salt", "may"),
    ]
    for artist, title, other_artist, other_title in rows:
        track = made.track(artist, title)
        made.case("written otherwise", track, other_artist, other_title)


def _accents(made: _Set) -> None:
    """One song, of which a player wrote no accents, or no spaces: missed by the rules, for
    `--fuzzy` to find.
    """
    rows = [
        ("Sólarhring", "Vötn", "Solarhring", "Votn"),
        ("Beyónda", "Déjà Bu", "Beyonda", "Deja Bu"),
        ("Żółw", "Ciemność", "Zołw", "Ciemnosc"),
        ("Night Shift FM", "Day Break", "Nightshift FM", "Daybreak"),
        ("EF/GH", "Low Land", "EFGH", "Lowland"),
        ("Café Owl", "Été", "Cafe Owl", "Ete"),
    ]
    for artist, title, other_artist, other_title in rows:
        track = made.track(artist, title)
        made.case("without accents or spaces", track, other_artist, other_title)


def _near(made: _Set) -> None:
    """Another song of a like name."""
    rows = [
        ("Song of Love", "Song of Dove"),
        ("Suite, Part 1", "Suite, Part 2"),
        ("Movement II", "Movement III"),
        ("Track No. 12", "Track No. 21"),
        ("Birds", "Bird"),
        ("1.5", "15"),
        ("Más", "Mas"),
        ("Año Nuevo", "Ano Nuevo"),
        ("Paper", "Рарег"),
        ("ハハ", "ババ"),
        ("Мой", "Мои"),
        ("Schön", "Schon"),
        ("The End", "End"),
        ("End of the Line", "The End of the Line, Again"),
        ("Love", "Love Love"),
        ("Ⅳ", "Ⅵ"),
        ("2 + 2", "2 2"),
        ("$", "£"),
        ("????", "????????"),
        ("Home", "Homesick"),
        ("Gone, Gone", "Gone"),
        ("Her", "Here"),
        ("C++", "C"),
        ("Kış", "Kıs"),
        ("Reprise", "Surprise"),
    ]
    for place, (title, other) in enumerate(rows):
        artist = f"{NAMES[place]} Players"
        made.track(artist, title, "Night Songs", 180.0)
        made.case("another song of a like name", None, artist, other, "Night Songs", 183.0)


def _albums(made: _Set) -> None:
    """The title is the same; the album or the length tells that the recording is not."""
    concerts = [
        "Live at Harbour Hall",
        "Unplugged in May",
        "In Concert",
        "Night Songs: The Remixes",
        "Karaoke Hits",
    ]
    for place, album in enumerate(concerts):
        artist, song = f"{NAMES[place]} Family", SONGS[place]
        made.track(artist, song, "Night Songs")
        made.case("from a concert's album", None, artist, song, album)
        made.track(artist, SONGS[place + 6], album)
        made.case("a concert's album here", None, artist, SONGS[place + 6], "Night Songs")
    for place, title in enumerate(
        ["Intro", "Interlude", "Untitled", "Track 1", "Outro", "Main Theme"]
    ):
        artist = f"{NAMES[place]} Machine"
        track = made.track(artist, title, "Night Songs")
        made.case("a title of every album", None, artist, title, "Day Songs")
        made.case(
            "a title of every album, the same", track, artist, title, "Night Songs (Deluxe Edition)"
        )
    for place in range(5):
        artist, song = f"{NAMES[place]} Company", SONGS[place]
        made.track(artist, f"{song} (Live)", "Live in May")
        made.case("another concert", None, artist, f"{song} (Live)", "Live in June")
        made.track(artist, SONGS[place + 6], "Singles", 420.0)
        made.case(
            "an unnamed edit by its length", None, artist, SONGS[place + 6], "Day Songs", 210.0
        )


def _twice(made: _Set) -> None:
    """The catalogue has the name twice: the album or the length decides, or nothing does."""
    for place in range(8):
        artist, song = f"{NAMES[place]} Workshop", SONGS[place]
        first = made.track(artist, song, "Night Songs", 200.0)
        second = made.track(artist, song, "Best Songs", 214.0)
        made.case("twice here, the album tells", second, artist, song, "Best Songs")
        made.case("twice here, the length tells", first, artist, song, None, 201.0)
        made.case("twice here, nothing tells", None, artist, song)


def _ids(made: _Set) -> None:
    """MusicBrainz ids: they find what names do not, and a wrong mapping is not followed into
    another version.
    """
    for place in range(8):
        artist, song = f"{NAMES[place]} Archive", SONGS[place]
        mbid = f"00000000-0000-4000-8000-{place:012d}"
        track = made.track(artist, song, "Night Songs", 200.0, mbid)
        made.case(
            "an id and another spelling", track, f"{artist} Inc.", f"{song}!", None, None, mbid
        )
        made.case(
            "an id mapped to another version", None, artist, f"{song} (Live)", None, None, mbid
        )
        other = mbid.replace("8000", "9000")
        made.case("another id, nothing else agrees", None, artist, song, "Day Songs", None, other)
