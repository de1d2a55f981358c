"""A reader of parquet files: flat columns, and the lists and records in which data sets of the hub are stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.declared import coded, features_of
from onnxslim_bert.errors import DataError, one_line

ROWS = 64  # that are unpacked together


def read_parquet(path: Path, most: int) -> dict[str, Sequence[Any]]:
    """The columns of a parquet file by name, with lists and dicts where it nests; columns of maps are left out.

    Raises DataError for a file of another form, and for one of more than `most` bytes when unpacked.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow: pip install 'onnxslim-bert[parquet]'") from error
    try:
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            features = features_of(file.schema_arrow.metadata)
            names = [field.name for field in file.schema_arrow if not pa.types.is_map(field.type)]
            leaves = [file.metadata.schema.column(place) for place in range(len(file.metadata.schema))]
            groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
            values = sum(group.column(place).num_values for group in groups for place in range(len(leaves)))
        if 4 * values > most:  # each is an index at least
            raise DataError(f"{path}: {values:,} values: needed no more than {most // 4:,}")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        unpacked = 0
        # texts as indices, so that their bytes are counted before they are written out, in lists too
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with path.open("rb") as source, pq.ParquetFile(source, read_dictionary=texts) as file:
            for batch in file.iter_batches(ROWS, columns=names):
                unpacked += sum(_unpacked(column) for column in batch.columns)
                if unpacked > most:
                    raise DataError(f"{path}: more than {unpacked / 1e6:,.0f} MB when unpacked: needed less")
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    columns[name] += column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not parquet: {one_line(error)}") from error
    return coded(columns, features)


def _unpacked(array: Any) -> int:
    """Bytes that an Arrow array takes as Python values, 8 for a number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        return int(pc.sum(pc.take(pc.binary_length(array.dictionary), array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(_unpacked(array.field(place)) for place in range(array.type.num_fields))
    if pa.types.is_nested(array.type):
        return 8 * len(array) + _unpacked(array.flatten())
    return 8 * len(array)
