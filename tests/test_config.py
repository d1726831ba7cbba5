"""Settings: presets, overrides from TOML and the command line, and every message."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ponticello.config import PRESETS, Config, MelConfig
from ponticello.errors import ConfigError


def _toml(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "ponticello.toml"
    path.write_text(content, encoding="utf-8")
    return path


def test_two_minutes_of_the_papers_mel_are_1251_frames() -> None:
    """120 s * 16,000 Hz = 1,920,000 samples; 1,920,000 / 1536 = 1250 hops, and the centred first
    frame.
    """
    mel = Config.from_preset("paper").mel
    assert (mel.sample_rate, mel.n_fft, mel.hop_length, mel.n_mels) == (16_000, 2048, 1536, 128)
    assert 1000 * mel.n_fft / mel.sample_rate == 128
    assert 1000 * mel.hop_length / mel.sample_rate == 96
    assert mel.max_frames == 1251


def test_frames_of_a_length_that_is_no_whole_number_of_hops_are_cut() -> None:
    """30 s * 16,000 Hz / 1536 = 312.5 hops."""
    assert MelConfig(max_seconds=30.0).max_frames == 313
    assert Config.from_preset("tiny").mel.max_frames == 313


def test_paper_preset_holds_the_papers_numbers() -> None:
    config = Config.from_preset("paper")
    assert config.mel.released_padding
    assert config.audio.conv_channels == (512, 512, 512)
    assert (config.audio.conv_kernels, config.audio.conv_strides) == ((5, 3, 3), (2, 2, 2))
    assert (config.audio.hidden_size, config.audio.n_layers, config.audio.n_heads) == (768, 12, 12)
    assert (config.audio.ffn_size, config.audio.dropout) == (3072, 0.1)
    assert (config.text.name, config.text.pooling) == ("bert-base-multilingual-uncased", "pooler")
    assert (config.heads.hidden_sizes, config.heads.embed_dim) == ((384, 192), 100)
    assert (config.heads.fusion_hidden_sizes, config.heads.logit_scale) == ((200, 100), 2.6)
    one, two = config.semantic, config.preference
    assert (one.text_lr, one.audio_lr, one.heads_lr) == (1e-5, 1e-4, 1e-4)
    assert (two.text_lr, two.audio_lr, two.heads_lr) == (1e-5, 1e-5, 1e-4)
    assert two.reset_heads
    for stage in (one, two):
        assert (stage.schedule, stage.warmup_share, stage.weight_decay, stage.max_grad_norm) == (
            "constant",
            0,
            0,
            0,
        )


def test_base_hears_a_token_per_160_ms_of_10_s_and_paper_one_per_768_ms_of_all() -> None:
    """Strides 2, 2, 2: 8 frames a token. 10 s are 1 + 160,000 / 320 = 501 frames."""
    for preset, hop_ms, crop_seconds in (("base", 20, 10.0), ("paper", 96, 0.0)):
        config = Config.from_preset(preset)
        assert 1000 * config.mel.hop_length / config.mel.sample_rate == hop_ms
        assert math.prod(config.audio.conv_strides) == 8
        assert config.audio.crop_seconds == crop_seconds
    assert Config.from_preset("base").mel.n_fft == 1024


@pytest.mark.parametrize("preset", PRESETS)
def test_only_the_paper_preset_keeps_what_the_release_gets_wrong(preset: str) -> None:
    config = Config.from_preset(preset)
    assert config.preset == preset
    assert config.mel.released_padding == (preset == "paper")
    assert config.preference.reset_heads == (preset == "paper")
    assert config.pairs.min_users == 3


def test_defaults_are_the_recipe_shared_by_presets() -> None:
    config = Config()
    assert config.search.blend == 0.5
    assert (config.search.n_seed_tracks, config.search.profile_l2) == (100, 0.03)
    assert config.preference.audio_lr == 1e-5
    assert config.semantic.audio_lr == 1e-4


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    changed = Config.from_preset("tiny", {"semantic": {"epochs": 3}, "mel": {"top_db": 60.0}})
    tiny = Config.from_preset("tiny")
    assert changed.semantic == tiny.semantic.model_copy(update={"epochs": 3.0})
    assert changed.mel == tiny.mel.model_copy(update={"top_db": 60.0})
    assert changed.audio == tiny.audio
    assert Config.from_preset("tiny") == tiny  # the preset itself is as it was


def test_settings_survive_a_round_trip_through_json() -> None:
    config = Config.from_preset("paper", {"pairs": {"sources": ["session"]}})
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_settings_cannot_be_changed_in_place() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.search.blend = 1.0  # type: ignore[misc]


def test_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match="preset 'big' is unknown; use one of paper, base, small, tiny"
    ):
        Config.from_preset("big")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"semantic": {"epoch": 3}},
            "setting 'semantic.epoch' is unknown; there are batch_size, chunk_size, epochs, ",
        ),
        (
            {"sematic": {}},
            "setting 'sematic' is unknown; there are preset, front_end, features, mel, audio, ",
        ),
        (
            {"mel": {"max_frames": 3}},
            "setting 'mel.max_frames' is unknown; there are sample_rate, n_fft, ",
        ),
        (
            {"semantic": {"epochs": "many"}},
            "setting 'semantic.epochs': Input should be a valid number",
        ),
        ({"semantic": 3}, "setting 'semantic': Input should be a valid dictionary"),
        ({"mel": {"n_mels": 0}}, "setting 'mel.n_mels': Input should be greater than 0; found 0"),
        ({"mel": {"n_mels": 1.5}}, "setting 'mel.n_mels': Input should be a valid integer"),
        (
            {"search": {"blend": 1.1}},
            "setting 'search.blend': Input should be less than or equal to 1; found 1.1",
        ),
        (
            {"text": {"pooling": "max"}},
            "setting 'text.pooling': Input should be 'pooler' or 'mean'; found 'max'",
        ),
        (
            {"pairs": {"sources": ["radio"]}},
            "setting 'pairs.sources.0': Input should be 'feedback', ",
        ),
        (
            {"semantic": {"batch_size": 1}},
            "setting 'semantic.batch_size': Input should be greater than or equal to 2",
        ),
        (
            {"heads": {"dropout": 1.0}},
            "setting 'heads.dropout': Input should be less than 1; found 1.0",
        ),
    ],
)
def test_wrong_setting_is_named_with_what_was_found(
    overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_preset("tiny", overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_file_names_a_preset_and_overrides_what_it_likes(tmp_path: Path) -> None:
    path = _toml(
        tmp_path, 'preset = "base"\n[semantic]\nepochs = 40\n[pairs]\nsources = ["playlist"]\n'
    )
    wanted = {"semantic": {"epochs": 40}, "pairs": {"sources": ("playlist",)}}
    assert Config.from_toml(path) == Config.from_preset("base", wanted)


def test_file_without_a_preset_is_small(tmp_path: Path) -> None:
    assert Config.from_toml(_toml(tmp_path, "")) == Config.from_preset("small")


def test_settings_given_beside_the_file_win(tmp_path: Path) -> None:
    path = _toml(tmp_path, 'preset = "tiny"\n[semantic]\nepochs = 40\nseed = 1\n')
    given = [
        "semantic.epochs=2.5",
        "text.name=/a/b c",
        "pairs.sources=['session']",
        "text.trainable=true",
    ]
    config = Config.from_toml(path, given)
    assert (config.semantic.epochs, config.semantic.seed) == (2.5, 1)
    assert config.text.name == "/a/b c"
    assert config.pairs.sources == ("session",)
    assert config.text.trainable


def test_last_of_two_settings_wins_and_a_value_may_hold_an_equals_sign(tmp_path: Path) -> None:
    config = Config.from_toml(
        _toml(tmp_path, ""), ["search.blend=0.1", " search.blend = 0.9", "text.name=a=b"]
    )
    assert config.search.blend == 0.9
    assert config.text.name == "a=b"


def test_setting_may_choose_the_preset(tmp_path: Path) -> None:
    assert Config.from_toml(
        _toml(tmp_path, 'preset = "base"'), ["preset=tiny"]
    ) == Config.from_preset("tiny")


@pytest.mark.parametrize("setting", ["semantic.epochs", "=3", "  =3", ""])
def test_setting_without_a_key_or_a_value_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"setting '{setting}' must look like section\.key=value"
    ):
        Config.from_toml(_toml(tmp_path, ""), [setting])


@pytest.mark.parametrize(
    "setting", ["semantic.epoch=3", "semantic..epochs=3", "semantic.epochs.x=3", "x=3"]
)
def test_setting_of_an_unknown_key_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match="setting '"):
        Config.from_toml(_toml(tmp_path, ""), [setting])


@pytest.mark.parametrize(
    "content", [b"preset = ", b"[a]\n[a]\n", b"preset = '\xff'", b"x = " + b"[" * 100_000]
)
def test_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ponticello.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ponticello\.toml is not valid TOML: "):
        Config.from_toml(path)


def test_preset_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preset '3' is unknown"):
        Config.from_toml(_toml(tmp_path, "preset = 3"))


@pytest.mark.parametrize("front_end", ["logmel", "musicnn", "features", "hf:someone/encoder"])
def test_front_ends_are_named(front_end: str) -> None:
    assert Config.from_preset("tiny", {"front_end": front_end}).front_end == front_end


@pytest.mark.parametrize("front_end", ["", "mel", "hf:", "musicnn2"])
def test_an_unknown_front_end_is_refused(front_end: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"setting 'front_end': String should match pattern .*logmel\|musicnn\|feat",
    ):
        Config.from_preset("tiny", {"front_end": front_end})


@pytest.mark.parametrize("url", ["postgresql://u:se@host/db", "postgresql://host/db?password=se"])
def test_a_password_in_a_servers_address_is_refused_and_not_repeated(url: str) -> None:
    wanted = r"setting 'search.backend': leave the password out and give it as PGPASSWORD"
    with pytest.raises(ConfigError, match=wanted) as caught:
        Config.from_preset("tiny", {"search": {"backend": url}})
    assert "se@" not in str(caught.value)
    assert "=se" not in str(caught.value)


def test_search_backend_is_one_of_three_words_or_a_servers_address() -> None:
    for backend in ("auto", "exact", "faiss", "postgresql://user@host/db", "postgres://host/db"):
        assert (
            Config.from_preset("tiny", {"search": {"backend": backend}}).search.backend == backend
        )
    with pytest.raises(ConfigError, match=r"setting 'search.backend': String should match pattern"):
        Config.from_preset("tiny", {"search": {"backend": "mysql://host"}})


@pytest.mark.parametrize(
    "setting",
    [
        "preference.heads_lr=-1",
        "semantic.weight_decay=-0.1",
        "semantic.seed=-1",
        "evaluate.seed=-1",
        "audio.n_heads=0",
        "audio.position_groups=0",
        "audio.conv_strides=[2, 0, 2]",
        "heads.embed_dim=0",
        "heads.hidden_sizes=[0]",
        "semantic.max_grad_norm=-1",
    ],
)
def test_a_number_that_no_model_or_training_could_have_is_refused_by_name(
    tmp_path: Path, setting: str
) -> None:
    (tmp_path / "ponticello.toml").write_text('preset = "tiny"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=f"setting '{setting.partition('=')[0]}"):
        Config.from_toml(tmp_path / "ponticello.toml", [setting])
