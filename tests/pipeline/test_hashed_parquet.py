"""A Parquet file tells whether it is what was written, bit by bit."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.core.errors import DataError
from lcm_distill.pipeline.hashed_parquet import (
    BLANK,
    SEAL,
    decode_sealed,
    decode_table,
    encode_sealed,
    encode_table,
    file_metadata,
    read_table,
)

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", BLANK.decode(), None]})


def test_any_reader_opens_it_and_metadata_stays(tmp_path):
    path = tmp_path / "sealed.parquet"
    path.write_bytes(encode_sealed(TABLE.schema.with_metadata({"own": "value"}), [TABLE[:1], TABLE[1:1], TABLE[1:]]))
    assert pq.read_table(path).to_pylist() == TABLE.to_pylist() == read_table(path, "").to_pylist()
    assert pq.ParquetFile(path).num_row_groups == 2
    assert file_metadata(path)[b"own"] == b"value" and file_metadata(path)[SEAL] != BLANK
    assert read_table(path, "", ["b"]).column_names == ["b"]


def test_every_flipped_bit_is_found():
    """All but those in the name of the hash itself, without which a file is as one of an earlier version."""
    content = bytes(encode_table(TABLE))
    for place in range(0, len(content), 3):
        for bit in (0, 5):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                rows = decode_sealed(bytes(flipped))
            except (pa.ArrowException, OSError, ValueError, TypeError, KeyError):
                continue
            assert SEAL not in file_metadata(pa.BufferReader(bytes(flipped)))
            assert rows.to_pylist() == TABLE.to_pylist()


def test_a_file_of_an_earlier_version_is_read_and_a_damaged_one_refused_with_the_remedy(tmp_path):
    path = tmp_path / "some.parquet"
    pq.write_table(TABLE, path)
    assert read_table(path, "").equals(TABLE)
    for content in (b"", path.read_bytes()[:-3], encode_table(TABLE)[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"some\.parquet is damaged: do it again"):
            read_table(path, "do it again")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.parquet", "")


@pytest.mark.parametrize("columns", [None, ["b"], ["new", "a"]])
def test_columns_are_in_the_order_and_of_the_types_asked_for_and_null_where_a_file_lacks_one(columns):
    """As pyarrow's reader of data sets has them."""
    schema = pa.schema([("new", pa.float64()), ("b", pa.string()), ("a", pa.int32())])
    content = bytes(encode_table(TABLE))
    rows = decode_table(content, columns, schema)
    assert rows.equals(pq.read_table(pa.BufferReader(content), columns=columns, schema=schema))
    assert rows.column_names == (columns or schema.names)


def test_a_column_that_is_not_there_is_no_other_column():
    content = bytes(encode_table(TABLE))
    with pytest.raises(KeyError):
        decode_table(content, ["c"])
    assert decode_table(content, ["b", "a"]).column_names == ["b", "a"]
