"""Several Parquet files as one table, and the rows of a table with given values."""

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline import parquet_tables
from lcm_distill.pipeline.parquet_tables import open_tables, rows_with, rows_without


def test_few_bytes_are_a_table_and_many_a_dataset_of_the_same_rows(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": pa.array([1, 2], pa.int32())}, metadata={"own": "value"}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"b": ["x"], "a": [2**40]}), tmp_path / "1.parquet")
    files = sorted(tmp_path.glob("*.parquet"))
    small = open_tables(files)
    monkeypatch.setattr(parquet_tables, "AT_ONCE", sum(path.stat().st_size for path in files) - 1)
    large = open_tables(files)
    assert isinstance(small, pa.Table) and isinstance(large, ds.Dataset)
    assert small.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": None}, {"a": 2**40, "b": "x"}]
    assert large.to_table().to_pylist() == small.to_pylist() and large.schema.equals(small.schema, check_metadata=True)
    assert open_tables([]) is None


@pytest.mark.parametrize("at_once", [0, 2**20])
def test_what_is_damaged_or_does_not_fit_together_is_refused(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(parquet_tables, "AT_ONCE", at_once)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [["x"]]}), tmp_path / "1.parquet")
    files = sorted(tmp_path.glob("*.parquet"))
    with pytest.raises(DataError, match="columns do not fit together"):
        open_tables(files)
    files[1].write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"1\.parquet is damaged"):
        open_tables(files)


def test_rows_are_chosen_by_value_and_a_null_has_none():
    table = pa.table({"kind": ["a", "a", "b", None], "row": [0, 1, 2, 3], "status": ["ok", "no", "ok", "ok"]})
    assert rows_with(table, kind="a", status="ok")["row"].to_pylist() == [0]
    assert rows_with(table, status="ok")["row"].to_pylist() == [0, 2, 3]
    assert rows_without(table, "row", pa.array([0, 3]))["row"].to_pylist() == [1, 2]
    assert rows_without(table, "row", pa.array([], pa.int64()))["row"].to_pylist() == [0, 1, 2, 3]
