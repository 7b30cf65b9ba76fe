"""The configuration: defaults, files, overrides, and refusals that name the offender."""

import dataclasses

import pytest

from components import settings
from components.errors import ConfigError
from pipeline import config

pytestmark = pytest.mark.fast


def test_override_is_toml_and_everything_else_keeps_its_default():
    changed = config.load(
        None, ["train.steps=300", "data.long_lengths=[16, 100]", "serve.model_name=adder", "pipeline.cache=false"]
    )
    assert changed.train.steps == 300
    assert changed.data.long_lengths == (16, 100)
    assert changed.serve.model_name == "adder"
    assert changed.pipeline.cache is False
    assert dataclasses.replace(changed.train, steps=config.Config().train.steps) == config.Config().train


def test_a_day_may_be_a_date_or_text():
    plain, quoted = (
        config.load(None, [f"schedule.start={day}", "data.span=2026-11-22"]) for day in ("2026-11-22", "'2026-11-22'")
    )
    assert plain == quoted and (plain.schedule.start, plain.data.span) == ("2026-11-22", 20779)


def test_override_wins_over_file(tmp_path):
    file = tmp_path / "knobs.toml"
    file.write_text('[train]\nsteps = 10\nloss = "quadratic"\n')
    changed = config.load(str(file), ["train.steps=20"])
    assert (changed.train.steps, changed.train.loss) == (20, "quadratic")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    file = tmp_path / "knobs.toml"
    file.write_text("[train]\nsteps = 10\n", encoding="utf-8-sig")
    assert config.load(str(file)).train.steps == 10


def test_printed_configuration_reads_back_as_itself(tmp_path):
    changed = config.load(
        None, ['spans.source=a "quoted" \\ path', "data.long_lengths=[9]", "train.learning_rate=3e-05"]
    )
    file = tmp_path / "knobs.toml"
    file.write_text(config.to_toml(changed))
    assert config.load(str(file)) == changed


def test_every_knob_has_a_purpose():
    for section in dataclasses.fields(config.Config):
        for field in dataclasses.fields(section.default_factory):
            assert len(field.metadata["why"]) > 15, f"{section.name}.{field.name}"


@pytest.mark.parametrize(
    ("override", "offender"),
    [
        ("schedule.start=2026-11-22T10:00:00", "schedule.start = '2026-11-22 10:00:00': must be a day"),
        ("trian.steps=1", "'trian'"),
        ("train.step=1", "train.step; did you mean train.steps?"),
        ("train.steps=0", "train.steps = 0: must be at least 1"),
        ("train.steps=many", "train.steps = 'many': must be of type int"),
        ("train.steps=true", "train.steps = True: must be of type int"),
        ("train.learning_rate=nan", "train.learning_rate = nan"),
        ("infra.probe_timeout=inf", "infra.probe_timeout = inf"),
        ("train.loss=hinge", "train.loss = 'hinge': must be one of 'cross_entropy', 'quadratic'"),
        ("data.long_lengths=[4]", "data.long_lengths = (4,): must all be longer than data.max_length = 8"),
        ("data.long_lengths=[32, 16]", "must increase strictly"),
        ("data.long_lengths=[16, true]", "must hold values of type int, found True"),
        ("serve.port=65536", "serve.port = 65536: must be at most 65535"),
        ("pipeline.name=", "pipeline.name = '': must be 1 to 200"),
        ("pipeline.name=o'brien", "must be 1 to 200 ASCII letters"),
        ("pipeline.name=zahl\u00e9", "must be 1 to 200 ASCII letters"),
        ("pipeline.root=run?", "/run? contains ?, which TFX takes for a pattern"),
        ("pipeline.root=x[1]/y", "contains [, which"),
        ("pipeline.root='a\\b'", "contains \\, which"),
        ('pipeline.root="a\\u0000b"', "must not contain a zero byte"),
        ("pipeline.root=caf\udce9", "must be UTF-8"),
        (f"pipeline.root={'a' * 256}", "each name of at most 255"),
        (f"pipeline.root={'a/' * 1800}", "a path of at most 3500 bytes"),
        ("schedule.cron=61 * * * *", "schedule.cron = '61 * * * *': must be five fields of cron, or @hourly,"),
        ("schedule.cron=every day", "2 fields"),
        ("schedule.cron=0 0 * * * *", "6 fields"),
        ("schedule.cron=@reboot", "columns"),
        ("schedule.cron=0 0 30 2 *", "failed to find next date"),
        ("train=1", "invalid override 'train=1'"),
        ("train.steps", "invalid override 'train.steps'"),
    ],
)
def test_refusal_names_the_offender(override, offender):
    with pytest.raises(ConfigError) as refusal:
        config.load(None, [override])
    assert offender in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("cron", ["", "@quarterly", "*/15 8-17 * * mon-fri", "0 0 29 2 *", "0 0 l * *"])
def test_schedules_of_airflow_are_accepted(cron):
    assert config.load(None, [f"schedule.cron={cron}"]).schedule.cron == cron


def test_the_folder_in_which_a_root_lies_counts_as_well(tmp_path, monkeypatch):
    (tmp_path / "runs*").mkdir()
    (tmp_path / "link").symlink_to("runs*")
    for folder, root in ((tmp_path / "runs*", "var"), (tmp_path, "link/var")):
        monkeypatch.chdir(folder)
        with pytest.raises(ConfigError, match=r"contains \*, which TFX"):
            config.load(None, [f"pipeline.root={root}"])


def test_unreadable_and_broken_files_are_refused_by_name(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\n")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.toml", tmp_path, broken, binary):
        with pytest.raises(ConfigError) as refusal:
            config.load(str(path))
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("data.eval_share", "eval_fraction"),
        ("train.least_steps", "min_steps"),
        ("proof.share_most", "max_share"),
        ("proof.margin_share", "min_margin_ratio"),
        ("proof.margin_enough", "margin_cap"),
    ],
)
def test_a_renamed_knob_is_refused_with_its_new_name(old, new):
    section = old.partition(".")[0]
    with pytest.raises(ConfigError, match=f"^{old} was renamed: set {section}.{new} instead$"):
        config.load(overrides=[f"{old}=0"])
    assert hasattr(getattr(config.load(), section), new)


def test_a_section_made_in_code_is_checked():
    with pytest.raises(ConfigError):
        settings.Train(units=0)


def test_a_section_reads_back_from_its_json():
    section = settings.Data(task="comparison", long_lengths=(9, 100), eval_fraction=0.5)
    assert settings.Data.from_json(section.to_json()) == section
    assert settings.Data.from_json("{}") == settings.Data()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "the section data is not JSON: "),
        ("[" * 100_000, "the section data is not JSON: "),
        ("[1]", "data = [1]: must be a section of knobs"),
        ('{"spam": 1}', "unknown knob data.spam; did you mean data.span?"),
        ('{"span": "one"}', "data.span = 'one': must be a number or a date such as 2026-11-22"),
        ('{"span": -1}', "data.span = -1: must be at least 0"),
    ],
)
def test_invalid_section_json_is_refused_in_one_line(text, words):
    with pytest.raises(ConfigError) as refused:
        settings.Data.from_json(text)
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)
