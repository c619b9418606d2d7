import contextlib
import gzip
import io
import pickle
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gpumlp.data import Table, read_table
from gpumlp.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def idx(values):
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def pack(path, content):
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    return path


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("a file was unpickled",)


# ---- .npz and .npy ----


@pytest.mark.parametrize("x_name", ["X", "x", "data"])
@pytest.mark.parametrize("y_name", ["y", "Y", "target", "labels"])
def test_an_archive_is_read_by_the_usual_names(tmp_path, x_name, y_name):
    np.savez(tmp_path / "t.npz", **{x_name: X, y_name: Y})
    t = read_table(tmp_path / "t.npz")
    assert np.array_equal(t.X, X)
    assert t.X.dtype == np.float32
    assert np.array_equal(t.y, Y)
    assert t.target_name == y_name


def test_an_archive_may_hold_feature_names_text_labels_and_other_targets(tmp_path):
    np.savez_compressed(tmp_path / "t.npz", X=X, y=Y.astype(str), z=Y * 2.5, feature_names=np.array(["a", "b", "c"]))
    t = read_table(tmp_path / "t.npz")
    assert t.feature_names == ("a", "b", "c")
    assert t.y.tolist() == ["0", "1", "1", "0"]
    assert np.array_equal(read_table(tmp_path / "t.npz", target="z").y, Y * 2.5)
    assert read_table(tmp_path / "t.npz", with_target=False).y is None


@pytest.mark.parametrize(
    ("stored", "options", "says"),
    [
        ({"a": X, "b": Y}, {}, "holds the arrays a, b, expected one named X or x or data"),
        ({"X": X}, {}, "holds the arrays X, expected one named y"),
        ({"X": X, "speed": Y}, {"target": "sped"}, "no array 'sped'.*did you mean 'speed'"),
        ({"X": X, "y": Y[:3]}, {}, "X has 4 rows, but y has 3"),
        ({"X": X, "y": Y, "feature_names": np.array(["a"])}, {}, "1 feature names came for 3"),
        ({"X": X.reshape(2, 2, 3), "y": Y[:2]}, {}, "reshape X to two axes"),
        ({"X": X * np.nan, "y": Y}, {}, "12 values that are not finite"),
        ({"X": X, "y": np.array([Explosive()] * 4)}, {}, "never unpickled"),
        ({"X": X, "y": Y, "feature_names": np.array([Explosive()] * 3)}, {}, "never unpickled"),
    ],
)
def test_what_is_wrong_in_an_archive_is_told(tmp_path, stored, options, says):
    np.savez(tmp_path / "t.npz", **stored)
    with pytest.raises(DataError, match=says) as error:
        read_table(tmp_path / "t.npz", **options)
    assert "t.npz: " in str(error.value)
    assert "\n" not in str(error.value)


def test_several_unnamed_arrays_are_not_guessed_at(tmp_path):
    np.savez(tmp_path / "t.npz", X, Y)
    with pytest.raises(DataError, match=r"arr_0, arr_1, expected one named X.*np\.savez\(path, X=X, y=y\)"):
        read_table(tmp_path / "t.npz")


def test_two_npy_files_make_a_table(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(">i2"))
    np.save(tmp_path / "y.npy", Y[:, None])
    t = read_table(tmp_path / "x.npy", target=str(tmp_path / "y.npy"))
    assert np.array_equal(t.X, X)
    assert np.array_equal(t.y, Y)
    assert read_table(tmp_path / "x.npy", with_target=False).y is None
    with pytest.raises(DataError, match="give the path of another with y as target"):
        read_table(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"no such file: .*z\.npy; did you mean '.\.npy'"):
        read_table(tmp_path / "x.npy", target=str(tmp_path / "z.npy"))


@pytest.mark.parametrize("name", ["t.npy", "t.npz"])
def test_a_pickle_under_another_name_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(DataError, match="never unpickled"):
        read_table(tmp_path / name, with_target=False)


def test_an_array_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "t.npy", np.array([[Explosive()]]))
    with pytest.raises(DataError, match="never unpickled"):
        read_table(tmp_path / "t.npy", with_target=False)


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "t.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="holds a single array"):
        read_table(tmp_path / "t.npz")


def test_a_header_that_promises_more_than_memory_holds_is_told(tmp_path):
    stream = io.BytesIO()
    np.save(stream, X)
    (tmp_path / "t.npy").write_bytes(stream.getvalue().replace(b"(4, 3), }    ", b"(4000000000000, 3), }"))
    with pytest.raises(DataError, match=r"t\.npy: claims float32 values of shape \(4000000000000, 3\), 43"):
        read_table(tmp_path / "t.npy", with_target=False)


# ---- idx ----


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6)), st.sampled_from(["", ".gz"]))
def test_idx_files_bring_back_the_very_pixels_and_labels_written(images, packed):
    labels = images[:, 0, 0] % 10
    with tempfile.TemporaryDirectory() as folder:
        path = pack(Path(folder, f"train-images-idx3-ubyte{packed}"), idx(images))
        pack(Path(folder, f"train-labels-idx1-ubyte{packed}"), idx(labels))
        t = read_table(path)
    assert t.X.dtype == np.uint8
    assert np.array_equal(t.X, images.reshape(len(images), -1))
    assert t.y.dtype == np.int64
    assert np.array_equal(t.y, labels)


IMAGES = idx(np.arange(24, dtype=np.uint8).reshape(4, 2, 3))


def test_labels_are_beside_the_images_or_where_the_target_says(tmp_path):
    images = pack(tmp_path / "t10k-images-idx3-ubyte", IMAGES)
    elsewhere = pack(tmp_path / "numbers", idx(np.array([5, 6, 7, 8], np.uint8)))
    assert np.array_equal(read_table(images, target=elsewhere).y, [5, 6, 7, 8])
    assert read_table(images, with_target=False).y is None
    with pytest.raises(DataError, match=r"no labels beside it \(t10k-labels-idx1-ubyte\); give their path as target"):
        read_table(images)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (IMAGES[:-1], r"has 39 bytes, expected 40 for shape \(4, 2, 3\)"),
        (IMAGES + b"\0", "has 41 bytes, expected 40"),
        (IMAGES[:10], "has 10 bytes, expected"),
        (b"", "magic number is ''"),
        (b"\0\0\x0d\3" + IMAGES[4:], "magic number is '00000d03', expected '00000803'"),
        (idx(np.zeros(5, np.uint8)), "magic number is '00000801'"),
        (idx(np.zeros((0, 2, 3), np.uint8)), "at least one row"),
        (idx(np.zeros((2, 0, 3), np.uint8)), "one feature"),
        (b"\0\0\x08\3" + b"\xff" * 12, "expected 79228162458924105385300197391"),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_what_is_wrong_in_an_idx_file_is_told(tmp_path, content, says, packed):
    path = pack(tmp_path / f"images-idx3-ubyte{packed}", content)
    with pytest.raises(DataError, match=says):
        read_table(path, with_target=False)


def test_a_damaged_gzip_idx_file_is_told(tmp_path):
    content = bytearray(gzip.compress(IMAGES))
    for place in (0, 12, len(content) - 6):  # its magic number, its blocks, its checksum
        damaged = content.copy()
        damaged[place] ^= 0xFF
        path = tmp_path / "images-idx3-ubyte.gz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            read_table(path, with_target=False)


def test_images_and_labels_of_different_numbers_are_told(tmp_path):
    path = pack(tmp_path / "images-idx3-ubyte", IMAGES)
    pack(tmp_path / "labels-idx1-ubyte", idx(Y[:3].astype(np.uint8)))
    with pytest.raises(DataError, match="X has 4 rows, but y has 3"):
        read_table(path)


def test_labels_are_not_taken_for_features(tmp_path):
    with pytest.raises(DataError, match="holds labels, expected images"):
        read_table(pack(tmp_path / "labels-idx1-ubyte", idx(Y.astype(np.uint8))))


# ---- any file ----


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path):
    (tmp_path / "flowers.csv").write_text("1,2\n")
    with pytest.raises(DataError, match=r"no such file: .*flower\.csv; did you mean 'flowers\.csv'"):
        read_table(tmp_path / "flower.csv")
    with pytest.raises(DataError, match=r"no such file: .*check the path"):
        read_table(tmp_path / "nowhere" / "flower.csv")
    with pytest.raises(DataError, match=r"cannot be read|no such file"):
        read_table(tmp_path / ("long" * 999 + ".csv"))


def test_a_folder_and_an_unknown_kind_are_told(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"unknown kind of file, expected a name ending in \.npz, \.npy, \.csv"):
        read_table(tmp_path / "t.xlsx")


def _npy_bytes(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _npz_bytes():
    stream = io.BytesIO()
    np.savez_compressed(stream, X=X, y=Y)
    return stream.getvalue()


WHOLE = {
    "t.csv": b"a,b,c\n1,2,x\n3,4,y\n",
    "t.csv.gz": gzip.compress(b"1,2,3\n4,5,6\n"),
    "t.tsv": b"1\t2\n3\t4\n",
    "t.npy": _npy_bytes(X),
    "t.npz": _npz_bytes(),
    "images-idx3-ubyte": IMAGES,
    "images-idx3-ubyte.gz": gzip.compress(IMAGES),
}


def table_or_data_error(name, content, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            assert isinstance(read_table(path, **options), Table)


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=200), with_target=st.booleans())
@pytest.mark.parametrize("name", WHOLE)
def test_any_bytes_give_a_table_or_a_data_error(name, content, with_target):
    table_or_data_error(name, content, with_target=with_target)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_with_damaged_bytes_gives_a_table_or_a_data_error(name, data):
    content = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    table_or_data_error(name, bytes(content[: data.draw(st.integers(1, len(content)))]), with_target=False)
