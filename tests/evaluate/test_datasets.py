"""Each test writes a small stand-in of a dataset's format. Bad input is a sentence."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iterinv.embedded.evaluate.tasks import KINDS, scene_edit
from iterinv.embedded.scenes import Scene, caption, render
from iterinv.embedded.seeds import HELD_OUT, SCENE_EDIT
from iterinv.evaluate.datasets import BadDataset, hugging_face, open_dataset
from iterinv.evaluate.datasets.pie_bench import KINDS as PIE_KINDS
from iterinv.evaluate.datasets.pie_bench import mask_of
from iterinv.images import to_uint8


def picture(path, value=0, side=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)
    return path


def tasks(data, count=None):
    dataset = open_dataset(str(data), count)
    return [dataset.make(k, 16) for k in range(len(dataset))]


def refused(words, data):
    with pytest.raises(BadDataset) as error:
        open_dataset(str(data))
    assert words in str(error.value), str(error.value)


def image_inversion(folder):
    lines = [
        "images/pix2pix-zero/cat/cat_1.png: a cat: black and white",
        "images/Plug-and-Play-datasets/imagenetr-ti2i/pizza/toy_1.jpg: two pieces of pizza",
        "images/Plug-and-Play-datasets/imagenetr-ti2i/husky/toy_1.jpg: a stuffed husky",
        "images/Plug-and-Play-datasets/wild-ti2i/data/bear.jpeg: brown bear",
    ]
    for line in lines:
        picture(folder / line.split(": ")[0])
    (folder / "prompt_all_imgs.txt").write_text("\n".join(lines))
    return folder


def test_image_inversion_is_keyed_by_paths_since_names_repeat(tmp_path):
    every = tasks(image_inversion(tmp_path))
    assert [task.kind for task in every] == ["pix2pix-zero", "imagenetr-ti2i", "imagenetr-ti2i", "wild-ti2i"]
    assert every[0].prompt == "a cat: black and white"
    assert every[1].key.endswith("pizza/toy_1.jpg")
    assert len({task.key for task in every}) == 4
    assert all(task.target is None and task.picture.is_file() for task in every)
    assert open_dataset(str(tmp_path)).name == open_dataset(f"image-inversion:{tmp_path}").name == "image-inversion"
    assert len(open_dataset(str(tmp_path), 2)) == 2


def entry(path="1_change_object_80/a.jpg", kind="1", mask=(512 * 100 + 50, 30), **more):
    return {
        "image_path": path,
        "original_prompt": "a [cat] on a chair",
        "editing_prompt": "a [dog] on a chair",
        "editing_instruction": "",
        "editing_type_id": kind,
        "blended_word": "cat dog",
        "mask": list(mask),
        **more,
    }


def pie_bench(folder, **entries):
    for each in entries.values():
        picture(folder / "annotation_images" / each["image_path"])
    (folder / "mapping_file.json").write_text(json.dumps(entries))
    return folder


def test_pie_bench_has_prompts_without_brackets_masks_and_kinds(tmp_path):
    first, second = tasks(pie_bench(tmp_path, a=entry(), b=entry("0_random_140/a.jpg", "0", ())))
    assert (first.key, first.kind) == ("1_change_object_80/a.jpg", "change object")
    assert (first.prompt, first.target) == ("a cat on a chair", "a dog on a chair")
    assert first.mask.shape == (512, 512)
    assert not first.mask[100, 49]
    assert first.mask[100, 50:80].all()
    assert not first.mask[100, 80]
    assert second.mask.sum() == 255 * (4 * 512 - 4)
    assert len(PIE_KINDS) == 10


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 512 * 512 - 1), st.integers(0, 2000)), max_size=12))
def test_a_mask_of_runs_is_that_of_a_loop_over_pixels(runs):
    slow = np.zeros(512 * 512, bool)
    for start, length in runs:
        for k in range(start, min(start + length, 512 * 512)):
            slow[k] = True
    rim = np.zeros((512, 512), bool)
    rim[0] = rim[-1] = rim[:, 0] = rim[:, -1] = True
    assert ((mask_of(np.array(runs, int).reshape(-1, 2)) == 255) == (slow.reshape(512, 512) | rim)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": [1, 2, 3]}, "no list of starts and lengths"),
        ({"mask": [512 * 512, 1]}, "no list of starts and lengths"),
        ({"mask": None}, "no list of starts and lengths"),
        ({"editing_type_id": "10"}, "the kinds are 0 to 9"),
        ({"editing_prompt": 3}, "has the editing_prompt 3"),
        ({"image_path": "../a.jpg"}, "relative to the dataset's folder"),
    ],
)
def test_a_bad_entry_of_pie_bench_is_a_sentence(tmp_path, change, words):
    (tmp_path / "mapping_file.json").write_text(json.dumps({"a": entry() | change}))
    refused(words, tmp_path)


def test_a_broken_mapping_of_pie_bench_is_a_sentence(tmp_path):
    for text, words in (("{", "is not JSON"), ("[]", "no mapping of entries"), ("{}", "lists no pictures")):
        (tmp_path / "mapping_file.json").write_text(text)
        refused(words, tmp_path)


def test_prompts_in_csv_jsonl_and_text_are_the_same_tasks(tmp_path):
    rows = [("a/x.png", "a cat, asleep", "a dog"), ("b/x.png", 'the "best": a cat', "")]
    for kind in ("csv", "jsonl", "txt"):
        for name, *_ in rows:
            picture(tmp_path / kind / name)
    lines = ["file,prompt,target"]
    lines += [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (tmp_path / "csv" / "prompts.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["", *lines, ""]).encode())
    objects = [json.dumps({"file_name": row[0], "text": row[1], "target": row[2] or None}) for row in rows]
    (tmp_path / "jsonl" / "metadata.jsonl").write_bytes(("\n\n".join(objects)).encode())
    (tmp_path / "txt" / "prompts.txt").write_text("\r\n\r\n".join(f"./{row[0]} : {row[1]}" for row in rows))
    for kind in ("csv", "jsonl", "txt"):
        every = tasks(tmp_path / kind)
        assert [(task.key, task.prompt) for task in every] == [row[:2] for row in rows]
        assert [task.target for task in every] == ([None, None] if kind == "txt" else ["a dog", None])


def test_a_folder_may_have_a_text_beside_each_picture(tmp_path):
    picture(tmp_path / "deep" / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "deep" / "a.txt").write_text("a cat\n")
    (task,) = tasks(tmp_path)
    assert (task.key, task.prompt) == ("deep/a.png", "a cat")


def test_rows_may_have_masks_true_answers_kinds_and_keys(tmp_path):
    for name in ("a.png", "mask.png", "truth.png"):
        picture(tmp_path / name)
    rows = [{"file": "a.png", "prompt": "a cat", "target": t, "key": f"{t}/1", "mask": "mask.png"} for t in ("A", "B")]
    rows[0] |= {"truth": "truth.png", "kind": "colour"}
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = tasks(tmp_path)
    assert (first.key, first.kind, first.truth) == ("A/1", "colour", tmp_path / "truth.png")
    assert (second.key, second.kind, second.truth) == ("B/1", "", None)
    assert first.mask == second.mask == tmp_path / "mask.png"


BAD = [
    ("prompts.txt", b"a.png: a cat\nb.png: a dog", "1 of the 2 files"),
    ("prompts.txt", b"a.png: a cat\n\na.png: a dog", "lines 1 and 3"),
    ("prompts.txt", b"a.png a cat", "line 1 of"),
    ("prompts.txt", b"a.png: \xff", "not text in UTF-8 (line 1 is none)"),
    ("prompts.txt", "a.png: a cat".encode("utf-16"), "it is in UTF-16"),
    ("prompts.txt", b"\n \r\n", "lists no pictures"),
    ("prompts.txt", b"/etc/passwd: a cat", "relative to the dataset's folder"),
    ("prompts.txt", b": a cat", "names no picture"),
    ("prompts.csv", b"file,words\na.png,a cat", "has no prompt: name it prompt or text or caption"),
    ("prompts.csv", b"file,prompt\na.png,a cat, asleep", "has 3 cells for 2 columns"),
    ("prompts.csv", b'file,prompt\na.png,"a cat', "is not CSV"),
    ("prompts.csv", b"file,file\na.png,a cat", "give each another name"),
    ("prompts.csv", b"file,prompt,text\na.png,a cat,b", "has prompt and text"),
    ("prompts.jsonl", b'{"file": "a.png", "prompt": "a"}\n{"file": "a.png"', "line 2 of"),
    ("prompts.jsonl", b"[1]", "is no object"),
    ("prompts.jsonl", b'{"file": "a.png", "prompt": 3}', "has the prompt 3"),
    ("prompts.jsonl", b'{"file": "a.png", "prompt": "\\ud800"}', "not text in UTF-8"),
    ("prompts.jsonl", b'{"file": ["a.png"], "prompt": "a"}', "names no picture"),
    ("prompts.jsonl", b"[" * 100_000, "too deep"),
]


@pytest.mark.parametrize(("name", "data", "words"), BAD)
def test_bad_prompts_are_a_sentence(tmp_path, name, data, words):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(data)
    refused(words, tmp_path)
    refused(words, tmp_path / name)


def test_a_place_without_a_dataset_is_a_sentence(tmp_path):
    refused("has no prompts: add prompts.csv", tmp_path)
    refused("there is no dataset", tmp_path / "none")
    refused("there is no file or folder", f"pie-bench:{tmp_path / 'none'}")
    for name in ("prompts.csv", "prompts.txt"):
        (tmp_path / name).write_text("")
    refused("name the one to read", tmp_path)
    with pytest.raises(ValueError, match="count is 0"):
        open_dataset("scenes", 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["prompts.csv", "prompts.jsonl", "prompts.txt", "mapping_file.json"]))
def test_any_bytes_are_a_dataset_or_a_sentence(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("data")
    (folder / name).write_bytes(data)
    with pytest.raises(BadDataset):  # it names no picture that is there
        open_dataset(str(folder))


def test_the_digest_is_of_the_content_and_not_of_the_place(tmp_path):
    one, other = (pie_bench(tmp_path / name, a=entry()) for name in ("one", "other"))
    assert open_dataset(str(one)).digest == open_dataset(str(other)).digest
    assert open_dataset(str(pie_bench(other, a=entry(mask=(5, 6))))).digest != open_dataset(str(one)).digest
    assert open_dataset("scenes", 3).digest == open_dataset("scenes", 5).digest


def test_scenes_and_scene_edit_are_rendered(tmp_path):
    (first, second) = tasks("scenes", 2)
    scene = Scene.random(HELD_OUT + 1)
    assert second.prompt == caption(scene)
    assert np.array_equal(second.picture, to_uint8(render(scene, 16)[None]))
    assert first.target is None
    assert len(open_dataset("scene-edit")) == 100
    every = tasks("scene-edit:wall,recolour", 3)
    assert [task.kind for task in every] == ["wall", "recolour", "wall"]
    edit = scene_edit(SCENE_EDIT + 1, "wall")
    assert (every[2].prompt, every[2].target) == (edit.prompt, edit.to)
    assert np.array_equal(every[2].truth, to_uint8(render(edit.target, 16)[None]))
    changed = (every[2].picture.astype(int) != every[2].truth).any(-1)
    assert every[2].mask[changed].mean() > 0.9
    assert [task.kind for task in tasks("scene-edit", len(KINDS))] == list(KINDS)
    for words, data in (("no kind of edit", "scene-edit:teleport"), ("the first seed", "scenes:red")):
        with pytest.raises(ValueError, match=words):
            open_dataset(data)


class Rows(dict):
    """Columns that give rows by number, as those of the library datasets do."""

    @property
    def column_names(self):
        return list(self)

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else {name: self[name][key] for name in self}


def test_rows_of_a_library_are_tasks_by_their_columns():
    image = Image.new("RGB", (16, 16))
    rows = Rows(image=[image, image], caption=["a cat", "a dog"], target=["a dog", None], label=[1, 2])
    dataset = hugging_face.of_rows("name", "test", rows, list(rows))
    assert list(dataset.keys) == ["test/000000", "test/000001"]
    assert list(dataset.edited) == [True, False]
    task = dataset.make(0, 16)
    assert (task.picture, task.prompt, task.target, task.mask) == (image, "a cat", "a dog", None)
    with pytest.raises(BadDataset, match="rename one to prompt or text or caption"):
        hugging_face.of_rows("name", "test", rows, ["image", "label"])


def test_a_saved_folder_is_opened_by_the_library_or_says_that_it_is_missing(tmp_path, monkeypatch):
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install datasets"):
        open_dataset(str(tmp_path))


@pytest.mark.skipif("datasets" not in sys.modules and not hugging_face.find_spec("datasets"), reason="optional library")
def test_a_folder_that_the_library_saved_is_opened(tmp_path):
    datasets = pytest.importorskip("datasets")
    image = Image.new("RGB", (16, 16), "red")
    made = datasets.Dataset.from_dict(
        {"image": [image], "text": ["a cat"]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "saved"))
    (task,) = tasks(tmp_path / "saved")
    assert (task.key, task.prompt, task.picture.getpixel((0, 0))) == ("train/000000", "a cat", (255, 0, 0))
    refused("has no split test", f"huggingface:{tmp_path / 'saved'}@test")
