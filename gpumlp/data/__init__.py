"""Which rows: reading tables, telling the task, scaling and splitting; everything wrong is a DataError."""

from gpumlp.data.blocks import Blocks
from gpumlp.data.builtin import BUILTIN, load_builtin, load_table
from gpumlp.data.categories import Encoding, Recoder, expect_columns
from gpumlp.data.folder import Manifest, verify_folder, write_folder
from gpumlp.data.readers import open_blocks, read_table
from gpumlp.data.scaling import SCALERS, QuantileNormaliser, Scaler, Standardiser, scaler_named
from gpumlp.data.split import k_folds, train_validation_split
from gpumlp.data.table import Table, check_finite
from gpumlp.data.targets import describe_task, encode_labels, tell_task

__all__ = [
    "BUILTIN",
    "SCALERS",
    "Blocks",
    "Encoding",
    "Manifest",
    "QuantileNormaliser",
    "Recoder",
    "Scaler",
    "Standardiser",
    "Table",
    "check_finite",
    "describe_task",
    "encode_labels",
    "expect_columns",
    "k_folds",
    "load_builtin",
    "load_table",
    "open_blocks",
    "read_table",
    "scaler_named",
    "tell_task",
    "train_validation_split",
    "verify_folder",
    "write_folder",
]
