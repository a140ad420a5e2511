"""Lists of another machine's absolute paths, pointed at images that lie here."""

import image_lists
import pytest
import reroot_list


@pytest.fixture
def here(tmp_path):
    """A folder of images, and a list of them as another machine wrote it."""
    for name in ("images/0/a.jpg", "images/0/b c.jpg", "images/1/a.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "train.txt").write_text(
        "/home/x/images/0/a.jpg 1 0\n\n/home/x/images/0/b c.jpg 0 -1\n/home/x/images/1/a.jpg 1 1\n")  # fmt: skip
    return tmp_path


def run(folder, *further, root="images", lists=("train.txt",)):
    return reroot_list.main([*(str(folder / name) for name in lists), "--root", str(folder / root),
                             "--out", str(folder / "out"), *further])  # fmt: skip


@pytest.mark.parametrize("root", ["images", "."])
def test_paths_change_and_labels_stay(here, capsys, root):
    assert run(here, root=root) == 0
    lines = (here / "out" / "train.txt").read_text().splitlines()
    assert lines == [f"{here}/images/0/a.jpg 1 0", f"{here}/images/0/b c.jpg 0 -1", f"{here}/images/1/a.jpg 1 1"]
    assert "3 of 3 images" in capsys.readouterr().out
    assert not (here / "out" / "train.missing.txt").exists()


def test_missing_images_stop_it_or_are_counted_and_listed(here, capsys):
    (here / "images/0/b c.jpg").unlink()
    assert run(here) == 1
    message = capsys.readouterr().err
    assert "1 of 3 images are not under" in message and "/home/x/images/0/b c.jpg" in message
    assert not (here / "out").exists()
    assert run(here, "--allow-missing") == 0
    message = capsys.readouterr().out
    assert "2 of 3 images" in message and "1 missing images left out" in message
    assert len((here / "out" / "train.txt").read_text().splitlines()) == 2
    assert (here / "out" / "train.missing.txt").read_text() == "/home/x/images/0/b c.jpg 0 -1\n"
    (here / "images/0/b c.jpg").write_bytes(b"")
    assert run(here) == 0 and not (here / "out" / "train.missing.txt").exists()


def test_all_images_missing_is_a_wrong_root(here, capsys):
    (here / "empty").mkdir()
    assert run(here, "--allow-missing", root="empty") == 1
    assert "3 of 3 images are not under" in capsys.readouterr().err
    assert run(here, root="nowhere") == 1
    assert "expected the folder of the images" in capsys.readouterr().err


def test_lists_that_cannot_be(here, capsys):
    (here / "bad.txt").write_text("/x/a.jpg 1\n/x/b.jpg\n")
    (here / "none.txt").write_text("\n")
    assert run(here, lists=("train.txt", "bad.txt"), root=".") == 1
    assert "bad.txt:2: expected a path and 1 whole number, as on line 1, found 0 in" in capsys.readouterr().err
    assert run(here, lists=("none.txt",)) == 1
    assert "none.txt: expected at least one line" in capsys.readouterr().err
    assert run(here, lists=("train.txt", "train.txt")) == 1
    assert "name another --out" in capsys.readouterr().err
    assert reroot_list.main([str(here / "train.txt"), "--root", str(here), "--out", str(here)]) == 1
    assert "name another --out" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_lists_of_other_programs_and_linked_folders(here, capsys):
    """A byte order mark, blanks in paths, CRLF, backslashes, links, another encoding; what is written is read again."""
    (here / "images" / "linked").symlink_to(here / "images" / "0")
    lines = ["D:\\photos\\linked\\b c.jpg 1 0", "/0/a.jpg\t0  1", "../images/1/a.jpg 1 1"]
    (here / "train.txt").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert run(here) == 0
    found = image_lists.read(here / "out" / "train.txt")
    assert found.names == [f"{here}/images/{name}" for name in ("linked/b c.jpg", "0/a.jpg", "1/a.jpg")]
    assert found.labels == [[1, 0], [0, 1], [1, 1]]
    (here / "images/1/caf\xe9.jpg").write_bytes(b"")
    (here / "train.txt").write_bytes("/x/1/caf\xe9.jpg -1 -1\n".encode("latin-1"))
    assert run(here) == 1 and "1 of 1 images are not under" in capsys.readouterr().err
    assert run(here, "--encoding", "latin-1") == 0
    assert (here / "out" / "train.txt").read_text() == f"{here}/images/1/caf\xe9.jpg -1 -1\n"


@pytest.mark.parametrize("text", ["/x/a.jpg \u00b2\n", "/x/a\0.jpg 1\n", "/x/a.jpg 1\n/x/b.jpg 1 0\n"])
def test_what_is_no_list_is_one_sentence(here, capsys, text):
    (here / "train.txt").write_text(text)
    assert run(here) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"reroot_list: {here}/train.txt:") and message.count("\n") == 1
