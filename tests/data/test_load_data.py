"""Data in, splits out: seeded, disjoint, stratified, standardised on train; bad data is one clear error."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dovetail.config import DataConfig
from dovetail.data import Dataset, Split, load_data
from dovetail.data.builtin import _JSC_CLASSES, _JSC_FEATURES
from dovetail.errors import DataError

RNG = np.random.default_rng(0)
TWO_CLASSES = {"x_train": np.zeros((9, 1)), "y_train": np.arange(9) % 2}


def numbered(samples: int = 100, classes: int = 4) -> dict[str, np.ndarray]:
    """Samples whose first feature is their number, so that a split shows where it came from."""
    x = np.stack([np.arange(samples), RNG.normal(3, 2, samples)], axis=1).astype(np.float32)
    return {"x": x, "y": np.arange(samples) % classes}


def numbers(split: Split) -> list[int]:
    return sorted(int(v) for v in split.inputs[0][:, 0])


def load(arrays: object, **options: object) -> Dataset:
    return load_data(
        DataConfig(dataset=arrays, standardise=False) if not options else DataConfig(dataset=arrays, **options)
    )  # type: ignore[arg-type]


def test_splits_are_disjoint_and_whole() -> None:
    data = load(numbered())
    parts = [numbers(s) for s in (data.train, data.validation, data.test)]
    assert sorted(n for part in parts for n in part) == list(range(100))
    assert [len(p) for p in parts] == [64, 16, 20]


def test_splits_are_stratified() -> None:
    data = load(numbered())
    for split, share in ((data.train, 16), (data.validation, 4), (data.test, 5)):
        assert torch.bincount(split.targets).tolist() == [share] * 4


def test_splits_follow_from_the_seed_alone() -> None:
    arrays = numbered()
    one, again, other = (load(arrays, seed=s, standardise=False) for s in (1, 1, 2))
    assert torch.equal(one.test.inputs[0], again.test.inputs[0])
    assert numbers(one.test) != numbers(other.test)


def test_labels_stay_with_their_samples() -> None:
    data = load(numbered())
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.inputs[0][:, 0].long() % 4, split.targets)


def test_splits_that_the_data_brings_are_kept() -> None:
    arrays = numbered()
    named = {"x_train": arrays["x"][:60], "y_train": arrays["y"][:60], "x_val": arrays["x"][60:80]}
    named |= {"y_val": arrays["y"][60:80], "x_test": arrays["x"][80:], "y_test": arrays["y"][80:]}
    data = load(named)
    assert [numbers(s) for s in (data.train, data.validation, data.test)] == [
        list(range(60)),
        list(range(60, 80)),
        list(range(80, 100)),
    ]


def test_a_validation_split_is_cut_from_train_where_there_is_none() -> None:
    arrays = numbered()
    data = load((arrays["x"][:80], arrays["y"][:80], arrays["x"][80:], arrays["y"][80:]))
    assert numbers(data.test) == list(range(80, 100))
    assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(80))


def test_standardisation_is_fitted_on_the_training_split_alone() -> None:
    arrays = numbered()
    shifted = arrays["x"][80:] + 1000
    data = load((arrays["x"][:80], arrays["y"][:80], shifted, arrays["y"][80:]), standardise=True)
    train = data.train.inputs[0]
    assert torch.allclose(train.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(2), atol=1e-5)
    assert data.test.inputs[0][:, 1].mean() > 100


def test_a_constant_feature_is_shifted_and_not_scaled() -> None:
    x = np.full((20, 1), 7.0)
    data = load((x, np.arange(20) % 2), standardise=True)
    assert torch.equal(data.train.inputs[0], torch.zeros(len(data.train), 1))


def test_the_users_arrays_are_not_changed() -> None:
    arrays = numbered()
    before = arrays["x"].copy()
    load(arrays, standardise=True)
    assert np.array_equal(arrays["x"], before)


def test_digits_are_all_there_in_three_shapes() -> None:
    for name, shape in (("digits", (64,)), ("digits-4x4", (16,)), ("digits-8x8", (1, 8, 8))):
        data = load_data(DataConfig(name=name))
        assert (data.input_shape, data.num_classes) == (shape, 10)
        assert len(data.train) + len(data.validation) + len(data.test) == 1797
        assert data.train.inputs[0].dtype == torch.float32


def test_pooled_digits_are_means_of_two_by_two_pixels() -> None:
    from sklearn.datasets import load_digits

    image = load_digits().images[0]
    by_hand = [image[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for r in range(4) for c in range(4)]
    data = load_data(DataConfig(name="digits-4x4", standardise=False))
    rows = torch.cat([s.inputs[0] for s in (data.train, data.validation, data.test)])
    assert (rows == torch.tensor(by_hand, dtype=torch.float32)).all(1).any()


def test_8_bit_images_become_channels_first_between_0_and_1(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) % 2)
    data = load_data(DataConfig(name=str(tmp_path / "d.npz"), args={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 1.0]}))
    assert data.input_shape == (3, 6, 6)
    values = torch.cat([s.inputs[0] for s in (data.train, data.validation, data.test)]).sort(0).values
    expected = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 - 0.5) / torch.tensor([0.5, 0.25, 1.0]).reshape(
        3, 1, 1
    )
    assert torch.allclose(values, expected.sort(0).values, atol=1e-6)


def table(kind: str, file: Path) -> None:
    arrays = numbered()
    if kind == ".npz":
        np.savez(file, **arrays)
    elif kind == ".csv":
        rows = [f"{a},{b},{c}" for (a, b), c in zip(arrays["x"].tolist(), arrays["y"].tolist(), strict=True)]
        file.write_text("\n".join(["a,b,label", *rows]))
    elif kind == ".parquet":
        pq.write_table(pa.table({"a": arrays["x"][:, 0], "b": arrays["x"][:, 1], "label": arrays["y"]}), file)
    else:
        with h5py.File(file, "w") as content:
            content["x"], content["y"] = arrays["x"], arrays["y"]


@pytest.mark.parametrize("kind", [".npz", ".csv", ".parquet", ".h5"])
def test_every_kind_of_file_gives_the_same_data(tmp_path: Path, kind: str) -> None:
    table(kind, tmp_path / f"d{kind}")
    data = load_data(DataConfig(name=str(tmp_path / f"d{kind}"), standardise=False))
    assert sorted(n for s in (data.train, data.validation, data.test) for n in numbers(s)) == list(range(100))
    assert torch.equal(data.test.inputs[0][:, 0].long() % 4, data.test.targets)


def test_labels_that_are_names_become_numbers_in_sorted_order(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,kind\n" + "\n".join(f"{i},{'gq'[i % 2]}" for i in range(20)))
    data = load_data(DataConfig(name=str(tmp_path / "d.csv"), target="kind", standardise=False))
    assert torch.equal(data.train.inputs[0][:, 0].long() % 2, data.train.targets)


def test_loaders_are_read_to_their_end() -> None:
    arrays = numbered()
    whole = TensorDataset(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
    data = load({"train": DataLoader(whole, batch_size=7), "test": DataLoader(whole, batch_size=9)})
    assert numbers(data.test) == list(range(100))
    assert len(data.train) + len(data.validation) == 100


def test_a_callable_in_a_file_may_give_arrays(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text(
        "import numpy as np\ndef make(n):\n    return np.arange(2.*n).reshape(n, 2), np.arange(n) % 2\n"
    )
    data = load_data(DataConfig(name=f"{tmp_path / 'd.py'}:make", args={"n": 50}))
    assert len(data.test) == 10
    with pytest.raises(DataError, match=r"data\.args: .* does not take \{'m': 1\}"):
        load_data(DataConfig(name=f"{tmp_path / 'd.py'}:make", args={"m": 1}))


def test_a_callable_that_raises_is_named_with_its_error_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def read():\n    return {}['x']\n")
    with pytest.raises(DataError, match=r"data\.name: .*mine\.py:read .*KeyError at .*mine\.py:2: 'x'"):
        load_data(DataConfig(name=f"{tmp_path / 'mine.py'}:read"))


def test_a_dataset_given_as_an_object_is_used_as_it_is() -> None:
    data = load(numbered())
    assert load(data) is data


def test_taking_samples_gives_the_first_and_never_more_than_there_are() -> None:
    split = load(numbered()).test
    assert torch.equal(split.take(3).targets, split.targets[:3])
    assert split.take(None) is split
    assert len(split.take(10**6)) == len(split)


def test_token_ids_are_left_as_they_are() -> None:
    ids = np.arange(60).reshape(20, 3) % 7
    data = load({"x": ids, "y": np.arange(20) % 2}, dtype="int64")
    rows = torch.cat([split.inputs[0] for split in (data.train, data.validation, data.test)])
    assert rows.dtype == torch.int64
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, ids.tolist()))


@pytest.mark.parametrize("wrong", [-1, 0.5])
def test_token_ids_must_be_whole_numbers_from_0(wrong: float) -> None:
    x = np.zeros((20, 3))
    x[4, 1] = wrong
    with pytest.raises(DataError, match=r"x_train\[4, 1\]: must be a whole number from 0 \(data.dtype is int64\)"):
        load({"x": x, "y": np.arange(20) % 2}, dtype="int64")


def with_value(key: str, index: object, value: float) -> dict[str, np.ndarray]:
    arrays = numbered()
    arrays[key] = arrays[key].astype(np.float64)
    arrays[key][index] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (with_value("x", (17, 1), np.nan), "x_train[17, 1]: must be finite, got nan; 1 such values"),
        (with_value("x", (17, 1), np.inf), "x_train[17, 1]: must be finite, got inf"),
        (with_value("y", 5, -1), "y_train[5]: must be a class number from 0, got -1.0"),
        (with_value("y", 5, 0.5), "y_train[5]: must be a class number from 0, got 0.5"),
        (with_value("y", 5, np.nan), "y_train[5]: must be a class number from 0, got nan"),
        ({"x": np.zeros((9, 2)), "y": np.eye(9)}, "y_train: must have shape (9,), one label for each sample, got (9,"),
        ({"x": np.zeros((10, 2)), "y": np.zeros(9, int)}, "y_train: must have shape (10,)"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "x_train: must have at least one sample"),
        ({"x": np.zeros(10), "y": np.zeros(10, int)}, "x_train: must have shape (samples, features)"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(1, int)}, "cannot be split"),
        ({"x": np.array([["a"], ["b"]]), "y": np.zeros(2, int)}, "x_train: must be numbers"),
        ({"x_train": np.zeros((9, 1))}, "must hold x_train, y_train, x_test, y_test (or x, y), got x_train"),
        (
            {**TWO_CLASSES, "x_test": np.zeros((2, 1)), "y_test": np.array([0, 2])},
            "y_test[1]: must be a class number from 0 to 1, the classes of the training data, got 2",
        ),
        (
            {**TWO_CLASSES, "x_test": np.zeros((2, 3)), "y_test": np.array([0, 1])},
            "samples must have one shape in all splits",
        ),
        ([1, 2, 3], "must give a Dataset, arrays by name"),
    ],
)  # fmt: skip
def test_bad_data_gives_one_error_that_names_the_place(arrays: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(arrays)
    assert message in str(caught.value)


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(DataError, match="unknown data set 'digit'. Did you mean 'digits'"):
        load_data(DataConfig(name="digit"))


@pytest.mark.parametrize("kind", [".npz", ".csv", ".parquet", ".h5"])
def test_a_missing_or_corrupt_file_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"d{kind}"
    with pytest.raises(DataError, match="must be a data file; there is none"):
        load_data(DataConfig(name=str(file)))
    file.write_bytes(b"\x00\xff no such thing")
    with pytest.raises(DataError, match=f"d{kind}"):
        load_data(DataConfig(name=str(file)))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}] * 4, dtype=object), y=np.zeros(4, int))
    with pytest.raises(DataError, match="nothing is unpickled.*hold Python objects") as caught:
        load_data(DataConfig(name=str(tmp_path / "d.npz")))
    assert "allow_pickle" not in str(caught.value)


def test_a_missing_value_of_a_csv_is_found(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,0\n3,,1\n")
    with pytest.raises(DataError, match=r"x_train\[1, 1\]: must be finite, got nan"):
        load_data(DataConfig(name=str(tmp_path / "d.csv")))
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,0\n3,1\n")
    with pytest.raises(DataError, match="line 3: must have 3 values as the header has, got 2"):
        load_data(DataConfig(name=str(tmp_path / "d.csv")))


def test_a_text_among_a_tables_numbers_is_found(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,0\n3,high,1\n")
    with pytest.raises(DataError, match="column 'b' must hold numbers, got 'high' in row 2"):
        load_data(DataConfig(name=str(tmp_path / "d.csv")))


def test_a_table_without_a_column_for_labels_lists_its_columns(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"the columns are a, b\. Name the labels' with \[data\] target"):
        load_data(DataConfig(name=str(tmp_path / "d.csv")))


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(".parquet", tmp_path / "d.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install 'dovetail\[files\]'"):
        load_data(DataConfig(name=str(tmp_path / "d.parquet")))


def test_jsc_of_openml_is_fetched_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        data = RNG.normal(size=(50, 16))
        target = np.array(list("gqtwz") * 10)

    asked: dict[str, object] = {}

    def fetch(**options: object) -> type[Found]:
        asked.update(options)
        return Found

    monkeypatch.delenv("DOVETAIL_DATA", raising=False)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    data = load_data(DataConfig(name="jsc-openml"))
    assert asked["data_id"] == 42468
    assert (data.input_shape, data.num_classes, len(data.test)) == ((16,), 5, 10)
    assert "OpenML" in data.description


def test_jsc_without_a_network_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.delenv("DOVETAIL_DATA", raising=False)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fail)
    with pytest.raises(DataError, match="OpenML cannot be reached .no route to host.*local copy"):
        load_data(DataConfig(name="jsc-openml"))


def test_jsc_is_read_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "jsc-openml.npz", x=RNG.normal(size=(50, 16)), y=np.arange(50) % 5)
    monkeypatch.setenv("DOVETAIL_DATA", str(tmp_path))
    assert load_data(DataConfig(name="jsc-openml")).num_classes == 5


def test_jsc_of_cernbox_is_read_from_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"j_{n}" for n in _JSC_FEATURES.split()] + [f"j_{n}" for n in _JSC_CLASSES]
    rows = np.zeros(50, dtype=[("j_pt", "f8"), *((n, "f8") for n in names)])
    rows["j_zlogz"] = np.arange(50)
    for i in range(50):
        rows[f"j_{_JSC_CLASSES[i % 5]}"][i] = 1
    with h5py.File(tmp_path / "jets.h5", "w") as content:
        content["t_allpar_new"] = rows
    data = load_data(DataConfig(name="jsc-cernbox", standardise=False, args={"path": str(tmp_path / "jets.h5")}))
    assert data.input_shape == (16,)
    assert torch.equal(data.train.inputs[0][:, 0].long() % 5, data.train.targets)
    monkeypatch.delenv("DOVETAIL_DATA", raising=False)
    with pytest.raises(DataError, match="must have a local file"):
        load_data(DataConfig(name="jsc-cernbox"))
