"""SceneEdit scores edits correctly and resumes folders."""

import json

import pytest
import torch
from typer.testing import CliRunner

from iterinv.__main__ import command_line
from iterinv.edits import DiffEdit
from iterinv.embedded.evaluate import scene_edit as scenes
from iterinv.embedded.evaluate.tasks import KINDS, scene_edit
from iterinv.embedded.reader import Reader, SceneAttributes
from iterinv.embedded.seeds import SCENE_EDIT


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    torch.manual_seed(0)
    network = Reader().eval().requires_grad_(False)
    monkeypatch.setattr("iterinv.embedded.reader.load", lambda: network)


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_answer_succeeds_and_keeps_and_the_source_does_not(kind):
    for seed in range(8):
        task = scene_edit(seed, kind)
        now, wanted = SceneAttributes.of(task.source), SceneAttributes.of(task.target)
        assert scenes.succeeded(kind, wanted, now, wanted)
        assert scenes.preserved(kind, wanted, now, wanted)
        assert not scenes.succeeded(kind, now, now, wanted)
        assert scenes.preserved(kind, now, now, wanted)
        other = wanted._replace(wall=next(wall for wall in ("grey", "teal") if wall != wanted.wall))
        assert scenes.preserved(kind, other, now, wanted) == (kind == "wall")
        if kind == "clear":
            continue
        thing = wanted.things[0]
        first = thing._replace(size="small" if thing.size == "large" else "large")
        if kind == "resize":
            first = thing._replace(material="matte" if thing.material == "shiny" else "shiny")
        changed = wanted._replace(things=(first, *wanted.things[1:]))
        free = kind == "add" and wanted.things[1:] == now.things
        assert scenes.preserved(kind, changed, now, wanted) == free
        assert scenes.succeeded(kind, changed, now, wanted) == (not free)


def test_another_thing_is_not_the_one_that_was_to_stay():
    """An edit that removes the wrong one of two things is no success, and the other is not preserved."""
    task = next(
        task
        for task in (scene_edit(seed, "remove") for seed in range(99))
        if len({t.color for t in task.source.things}) > 1
    )
    now, wanted = SceneAttributes.of(task.source), SceneAttributes.of(task.target)
    (gone,) = set(now.things) - set(wanted.things)
    wrong = wanted._replace(things=(gone,))
    assert not scenes.succeeded("remove", wrong, now, wanted)
    assert not scenes.preserved("remove", wrong, now, wanted)
    assert scenes.preserved("remove", now, now, wanted)  # an untouched picture preserves everything
    lost = now._replace(things=now.things[:1])
    recoloured = now._replace(things=(now.things[0], now.things[1]._replace(color="teal")))
    assert not scenes.preserved("recolour", lost, now, recoloured)


def test_the_truth_is_judged_perfect_and_the_source_by_what_it_lacks():
    task = scene_edit(5, "recolour")
    x, truth = (scenes._drawn(each, 64) for each in (task.source, task.target))
    perfect, untouched = scenes.score(task, x, truth, task.region(64)[None]), scenes.score(task, x, x, None)
    assert (perfect["inside"], perfect["features"], perfect["iou"]) == (None, 0.0, 1.0)
    assert (perfect["ghost"], perfect["st_lpips"], perfect["sharpness"]) == (0.0, 0.0, 1.0)
    assert untouched["ghost"] == pytest.approx(1)
    assert untouched["st_lpips"] > 0.001
    assert perfect["outside"] is None or perfect["outside"] > 45
    assert perfect["ssim"] > 0.99  # over the whole picture it is 0.95
    assert untouched["inside"] < 25
    assert (untouched["outside"], untouched["iou"]) == (None, None)
    assert untouched["ssim"] == pytest.approx(1)


def test_a_task_whose_true_answer_is_misread_is_not_judged(monkeypatch):
    task = scene_edit(5, "recolour")
    x = scenes._drawn(task.source, 64)
    monkeypatch.setattr(scenes, "read", lambda pictures: [SceneAttributes.of(task.source)])
    row = scenes.score(task, x, x, None)
    assert [row[key] for key in ("success", "kept", "both", "good")] == [None] * 4
    assert row["inside"] < 25


def test_a_folder_is_gone_on_with_and_refuses_another_way(tiny, tmp_path):
    work = lambda count, strength=0.7: list(  # noqa: E731
        scenes.evaluate(tiny, DiffEdit(strength=strength), tmp_path, "bdia", 3, ("recolour", "wall"), count)
    )
    assert [(row["kind"], row["seed"]) for row in work(1)] == [("recolour", SCENE_EDIT), ("wall", SCENE_EDIT)]
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"kind": "wall", "se')
    assert work(1) == []
    assert len(work(2)) == 2
    assert len(scenes.rows(tmp_path)) == 4
    assert [row["kind"] for row in scenes.rows(tmp_path, ("wall",), 1)] == ["wall"]
    with pytest.raises(ValueError, match="results with another editor"):
        work(1, 0.5)
    (tmp_path / "settings.json").write_text("")
    with pytest.raises(ValueError, match="holds no settings in JSON: delete"):
        work(1)
    with pytest.raises(ValueError, match="no kind of edit 'teleport'"):
        list(scenes.evaluate(tiny, DiffEdit(), tmp_path / "other", kinds=("teleport",)))


def test_rows_of_other_judges_are_refused(tiny, tmp_path, monkeypatch):
    work = lambda: list(scenes.evaluate(tiny, DiffEdit(), tmp_path, "bdia", 3, ("wall",), 1))  # noqa: E731
    work()
    monkeypatch.setattr(scenes, "_judges", lambda: "another")
    with pytest.raises(ValueError, match="results with another reader"):
        work()


def test_an_edit_is_edited_back_and_onward(tiny, tmp_path):
    how = DiffEdit(), tmp_path, "bdia", 3, ("recolour", "move"), 2
    for row in scenes.evaluate(tiny, *how, again=1):
        there = [row[name] is not None for name in ("back", "onward")]
        assert there == [row["seed"] == SCENE_EDIT] * 2


def test_the_true_region_is_given(tiny, tmp_path):
    (row,) = scenes.evaluate(tiny, DiffEdit(), tmp_path, "bdia", 3, ("recolour",), 1, true_region=True)
    assert row["iou"] > 0.5 or row["iou"] == 0  # the mask keeps to what the network changes
    assert row["outside"] is None
    with pytest.raises(ValueError, match="results with another true_region"):
        list(scenes.evaluate(tiny, DiffEdit(), tmp_path, "bdia", 3, ("recolour",), 1))


def test_only_the_tasks_that_are_named_are_done(tiny, tmp_path):
    only = {("wall", SCENE_EDIT + 1), ("recolour", SCENE_EDIT + 9)}  # the second is not among the first two scenes
    how = DiffEdit(), tmp_path, "bdia", 3, ("wall", "recolour"), 2
    (row,) = scenes.evaluate(tiny, *how, only=only)
    assert (row["kind"], row["seed"]) == ("wall", SCENE_EDIT + 1)
    assert scenes.picture_of(tmp_path, row).exists()
    assert len(list(scenes.evaluate(tiny, *how))) == 3
    scenes.sheets(tmp_path, scenes.rows(tmp_path), names=("worst",))
    assert [sheet.name for sheet in tmp_path.glob("*.png")] == ["worst.png"]


def test_tasks_are_drawn_alike_whatever_order_they_were_done_in():
    rows = [{"kind": kind, "seed": seed, "inside": seed} for seed in range(9) for kind in ("wall", "recolour")]
    assert scenes.draw(rows, 5, 1) == scenes.draw(rows[::-1], 5, 1)
    assert scenes.draw(rows, 5, 1) != scenes.draw(rows, 5, 2)
    assert [row["seed"] for row in scenes.ranked(rows)][:2] == [8, 8]


def test_shares_of_the_scenes_make_up_the_whole(tiny, tmp_path):
    work = lambda share: [  # noqa: E731
        row["seed"] - SCENE_EDIT for row in scenes.evaluate(tiny, DiffEdit(), tmp_path, "bdia", 3, ("wall",), 3, share)
    ]
    assert (work((2, 2)), work((1, 2)), work((1, 1))) == ([1], [0, 2], [])
    for share in ((0, 2), (3, 2)):
        with pytest.raises(ValueError, match="shares of n are 1/n to n/n"):
            work(share)


def test_the_command_refuses_what_is_no_share(tmp_path):
    result = CliRunner().invoke(command_line(), ["evaluate", "scenes", "--out", str(tmp_path), "--share", "half"])
    assert result.exit_code == 2
    assert "it is k/n" in result.output


def test_the_command_says_that_a_share_is_empty(tiny_folder, tmp_path):
    words = ["evaluate", "scenes", "--out", tmp_path, "--count", 1, "--share", "2/2", "--model", tiny_folder]
    result = CliRunner().invoke(command_line(), [str(word) for word in words])
    assert result.exit_code == 2
    assert "none of the first 1 scenes is in share 2/2" in result.output


def test_the_command_tells_writes_and_shows(tiny_folder, tmp_path):
    words = [
        "evaluate",
        "scenes",
        "--out",
        tmp_path,
        "--count",
        2,
        "--kinds",
        "recolour,add",
        "--steps",
        3,
        "--model",
        tiny_folder,
    ]
    result = CliRunner().invoke(command_line(), [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert {file.name for file in tmp_path.iterdir()} == {
        "settings.json",
        "rows.jsonl",
        "summary.json",
        "edited",
        "best.png",
        "median.png",
        "worst.png",
    }
    kinds = [row["kind"] for row in json.loads((tmp_path / "summary.json").read_text())["summary"]]
    assert kinds == ["recolour", "add", "all"]
    assert "recolour" in result.output
    assert len(scenes.rows(tmp_path)) == 4


def test_a_mean_leaves_out_what_is_not_there():
    row = {
        "kind": "wall",
        "success": True,
        "kept": False,
        "both": False,
        "clean": None,
        "good": False,
        "inside": None,
        "outside": 30.0,
        "ssim": 1.0,
        "features": 0.0,
        "iou": None,
        "sharpness": 0.5,
        "leakage": 0.1,
        "ghost": 0.0,
        "st_lpips": 0.2,
        "back": None,
        "onward": None,
    }
    (row_of_kind, whole) = scenes.summary([row, {**row, "success": False, "outside": 50.0, "inside": 20.0}])
    assert (
        row_of_kind["success"],
        row_of_kind["kept"],
        row_of_kind["inside"],
        row_of_kind["outside"],
        row_of_kind["outside_least"],
    ) == (0.5, 0, 20.0, 40.0, 30.0)
    assert row_of_kind["outside_exact"] == 0
    assert (row_of_kind["good"], row_of_kind["sharpness"], row_of_kind["leakage"]) == (0, 0.5, pytest.approx(0.1))
    assert row_of_kind["clean"] is None
    half = scenes.summary([row, {**row, "kept": True, "good": True, "sharpness": None}])[0]
    assert (half["success"], half["kept"], half["good"], half["sharpness"]) == (1, 0.5, 0.5, 0.5)
    unread = {**row, "success": None, "kept": None, "both": None, "good": None}
    partly = scenes.summary([row, unread])[0]
    assert (partly["tasks"], partly["judged"], partly["success"], partly["both"]) == (2, 1, 1, 0)
    assert scenes.summary([row, {**row, "outside": None}])[0]["outside_exact"] == 0.5
    assert row_of_kind["iou"] is None
    assert whole == {**row_of_kind, "kind": "all"}


def test_a_damaged_folder_is_mended_by_doing_what_is_lost_again(tiny, tmp_path):
    """Lines that are JSON but no rows, a row without its picture and a row with half a picture are done again; all
    other rows stay."""
    work = lambda count: list(  # noqa: E731
        scenes.evaluate(tiny, DiffEdit(), tmp_path, "bdia", 2, ("wall", "recolour"), count)
    )
    done = work(2)
    assert len(done) == 4
    odd = [5, None, [], {}, {"kind": "wall"}, {**done[0], "seed": "5"}, {**done[0], "kind": ["wall"]}]
    odd += [{**done[0], "success": 1}, {**done[0], "inside": "x"}, {**done[0], "kind": "teleport"}, {"kind": {}}]
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write("".join(json.dumps(each) + "\n" for each in odd).encode() + b"\xff\xfe\n" + b"[" * 9999 + b"\n{")
    assert work(2) == []
    pictures = [tmp_path / "edited" / f"{row['kind']}-{row['seed']}.png" for row in done]
    before = [picture.read_bytes() for picture in pictures]
    pictures[0].unlink()
    pictures[1].write_bytes(before[1][: len(before[1]) // 2])
    pictures[2].write_bytes(b"")
    assert len(scenes.rows(tmp_path)) == 1
    again = work(2)
    assert [(row["kind"], row["seed"]) for row in again] == [(row["kind"], row["seed"]) for row in done[:3]]
    assert [picture.read_bytes() for picture in pictures] == before
    assert len(scenes.rows(tmp_path)) == 4
    scenes.sheets(tmp_path, scenes.rows(tmp_path))


@pytest.mark.parametrize("text", ["[]", "5", "null", '"x"', "[" * 10_000, "\xff"])
def test_settings_that_are_none_are_a_sentence(tiny, tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json holds no settings in JSON: delete .*, or choose another"):
        list(scenes.evaluate(tiny, DiffEdit(), tmp_path, "bdia", 2, ("wall",), 1))


def test_rows_are_not_written_through_a_link(tiny, tmp_path):
    (tmp_path / "own.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows.jsonl").symlink_to(tmp_path / "own.txt")
    with pytest.raises(ValueError, match=r"rows\.jsonl is a link to another file: delete it"):
        list(scenes.evaluate(tiny, DiffEdit(), tmp_path / "out", "bdia", 2, ("wall",), 1))
    assert (tmp_path / "own.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_sentence(tiny, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OSError, match=r"out cannot be written \(File exists\): choose another place"):
        list(scenes.evaluate(tiny, DiffEdit(), tmp_path / "out", "bdia", 2, ("wall",), 1))
