"""How bitsum recognises an unmoved, moved or copied root."""

import os
import shutil

import pytest

from components.errors import BitsumError
from pipeline import config as configuration
from pipeline import workspace
from pipeline.records import relocation

pytestmark = pytest.mark.fast


def _root(folder):
    """A root that was used at its present path."""
    workspace.prepare(folder)
    relocation.update_paths(_config(folder), _unexpected_line)
    return folder


def _config(folder):
    return configuration.load(None, [f"pipeline.root={folder}"])


def _unexpected_line(line):
    raise AssertionError(line)


def _updated(folder):
    """The reported lines, and the content of root.json afterwards."""
    lines = []
    relocation.update_paths(_config(folder), lines.append)
    return lines, relocation.read(folder)


def test_a_root_gets_an_id_once(tmp_path):
    first = relocation.read(_root(tmp_path / "one"))
    assert (first.path, first.former) == (str(tmp_path / "one"), ())
    assert _updated(tmp_path / "one") == ([], first)
    assert relocation.read(_root(tmp_path / "other")).id != first.id


def test_a_moved_root_keeps_its_id_and_records_its_former_paths(tmp_path):
    root = _root(tmp_path / "one")
    id = relocation.read(root).id
    for name in ("two", "three"):
        root = root.rename(tmp_path / name)
        lines, recorded = _updated(root)
        assert len(lines) == 1 and f"was moved here from {recorded.former[0]}" in lines[0]
    assert recorded == relocation.Root(id, str(tmp_path / "three"), (str(tmp_path / "two"), str(tmp_path / "one")))


def test_a_copy_gets_a_new_id(tmp_path):
    original = relocation.read(_root(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    lines, recorded = _updated(tmp_path / "two")
    assert len(lines) == 1 and f"is a copy of {tmp_path / 'one'}" in lines[0]
    assert (recorded.id != original.id, recorded.path) == (True, str(tmp_path / "two"))
    assert _updated(tmp_path / "one") == ([], original)
    assert _updated(tmp_path / "two") == ([], recorded)


@pytest.mark.parametrize("there", ["a file", "a folder", "another root", "a damaged root", "below a file"])
def test_a_root_is_moved_if_its_id_is_not_at_the_old_path(tmp_path, there):
    old, new = _root(tmp_path / "old" / "var"), tmp_path / "new"
    id = relocation.read(old).id
    old.rename(new)
    if there == "another root":
        _root(old)
    elif there == "a folder":
        old.mkdir()
    elif there == "a file":
        old.touch()
    elif there == "below a file":
        old.parent.rmdir()
        old.parent.touch()
    else:
        old.mkdir()
        (old / relocation.FILE).write_text("{")
    lines, recorded = _updated(new)
    assert ("was moved here" in lines[0], recorded.id) == (True, id)


def test_a_link_to_the_root_is_the_root(tmp_path):
    recorded = relocation.read(_root(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "disk")
    (tmp_path / "one").symlink_to("disk")
    assert _updated(tmp_path / "disk") == ([], recorded)


def test_an_unreadable_old_path_is_an_error(tmp_path, monkeypatch):
    root = _root(tmp_path / "one").rename(tmp_path / "two")
    recorded = relocation.read(root)

    def stat(path, *args, **options):
        if str(path) == recorded.path:
            raise OSError(116, "Stale file handle", path)
        return real(path, *args, **options)

    real = os.stat
    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(BitsumError, match="cannot tell whether it was moved or copied: Stale file handle"):
        _updated(root)
    assert relocation.read(root) == recorded


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": "1"}', "\xff"])
def test_a_damaged_root_json_is_one_line(tmp_path, content):
    root = _root(tmp_path / "one")
    (root / relocation.FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(BitsumError, match=r"root.json is damaged: remove it"):
        _updated(root)


@pytest.mark.parametrize(
    ("value", "then"),
    [
        ("/a/root", "/b"),
        ("/a/root/x", "/b/x"),
        ("/a/root/", "/b/"),
        ("/a/root2/x", "/a/root2/x"),
        ("/a/rootx", "/a/rootx"),
        ("x/a/root/x", "x/a/root/x"),
        ("", ""),
        (7, 7),
        (None, None),
        ("/A/root/x", "/A/root/x"),
    ],
)
def test_only_whole_path_components_are_replaced(value, then):
    assert relocation.moved(value, "/a/root", "/b") == then


@pytest.mark.parametrize(("before", "now"), [("/a", "/a/b"), ("/a/b", "/a"), ("/a", "/ab"), ("/ab", "/a")])
def test_replacing_paths_is_idempotent(before, now):
    once = relocation.moved(f"{before}/x", before, now)
    assert once == relocation.moved(once, before, now) == f"{now}/x"


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_only_paths_in_the_model_config_file_change(tmp_path, quote, escaped, scheme):
    from serving import model_config

    before, now = "/a/Über root", _root(tmp_path / 'it\'s 100% "new"_')
    path = now / "serving" / "models.config"
    path.parent.mkdir()
    name = "/a/\\303\\234ber root" if escaped else before
    text = (
        "# mine\nmodel_config_list {{ config {{ name: 'm' base_path: {0}{1}{0} }} config "
        "{{ name: 'n' base_path: {0}{2}2{0} }} }}\n"
    )
    path.write_text(text.format(quote, f"{scheme}{name}/serving/m", name))
    relocation.relocate_model_config(_config(now), before)
    models = model_config.read(path).model_config_list.config
    assert [model.base_path for model in models] == [f"{scheme}{now}/serving/m", f"{before}2"]
    assert path.read_text().startswith("# mine\n")
    content = path.read_text()
    relocation.relocate_model_config(_config(now), before)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "knob", ["pipeline.root", "pipeline.push_to", "metadata.path", "spans.source", "spans.request_log"]
)
@pytest.mark.parametrize("uri", ["gs://bucket/var", "file:///var", "file:/var", "s3://bucket"])
def test_a_uri_is_refused_as_a_folder(knob, uri):
    with pytest.raises(BitsumError, match="POSIX path") as refused:
        configuration.load(None, [f"{knob}={uri}"])
    assert refused.value.exit_code == 2 and knob in str(refused.value) and uri in str(refused.value)
