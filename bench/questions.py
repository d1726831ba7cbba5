"""What people ask for in words that are not a tagger's own, by the tag each would name: only for measuring.

Written before any result was seen, and never trained on. None holds a word of its tag (tested), so that matching words
can only find what another tag happens to say.
"""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "electronic": ("made with synthesizers and a computer", "programmed synth tune", "digital beats and pads"),
    "ambient": ("slow drifting soundscape", "background atmosphere without rhythm", "floating drones for meditation"),
    "instrumental": ("nobody sings", "music without lyrics", "no words, only playing"),
    "rock": ("a band with distorted guitars and drums", "driving riffs and a loud drummer", "garage band jam"),
    "electronica": ("synth grooves for listening at home", "glitchy programmed beats", "downtempo computer music"),
    "chillout": ("relaxing lounge after a long day", "laid back beach bar sounds", "something to calm down with"),
    "jazz": ("saxophone and swing in a smoky club", "bebop improvisation", "walking bass and brushed drums"),
    "experimental": ("strange noises and odd structures", "avant-garde sound art", "weird and unusual"),
    "indie": ("small label band with a homemade sound", "lo-fi bedroom songs", "independent guitar group"),
    "alternative": ("nineties grunge band", "moody guitar band from college radio", "not quite mainstream band"),
    "dance": ("club music to move to", "four on the floor beat for a party", "dj set at a rave"),
    "pop": ("catchy radio hit", "sing along chart song", "cheerful song with a big chorus"),
    "electro": ("robotic drum machine beats", "hard synth bass and vocoder", "retro arcade synths"),
    "folk": ("traditional tune on a fiddle or a lute", "village dance with acoustic strings", "old ballad by the fire"),
    "metal": ("headbanging distorted riffs", "brutal guitars and double bass drums", "thrash and growling"),
    "female vocalists": ("a woman sings", "songs by a lady with a beautiful voice", "soprano melody"),
    "house": ("deep bass line with a four to the floor kick", "disco inspired club track", "dj mix from Chicago"),
    "blues": ("slow guitar bends and sorrow", "twelve bar shuffle with a harmonica", "delta slide guitar"),
    "heavy metal": (
        "shredding guitar solos and leather jackets",
        "fast aggressive riffs",
        "iron and thunder on guitars",
    ),
    "progressive rock": ("long complex suite", "virtuoso keyboards and guitars", "symphonic band epic"),
    "80s": ("retro synth tune with gated drums", "new wave", "music from the decade of neon and cassettes"),
    "oldies": ("a record from my grandparents' youth", "vintage golden age song", "old fashioned crooner"),
    "country": ("banjo and pedal steel from Nashville", "cowboy tune", "western saloon music"),
}
