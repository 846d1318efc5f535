"""Processes that serve do not load pandas, though it is installed; those of a tuning can."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from deployments import absent

ROOT = Path(__file__).resolve().parents[2]
SERVING = """
import sys
import pyarrow as pa
from ray import serve
from deployments.stores import conditions, exports, parquet_rows, texts
pa.array(["a"]); pa.table({"a": [1]}).to_pylist()
print("pandas" in sys.modules)
"""


def said(script: str, path: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("path", "is_loaded"),
    [(absent.path_with(str(ROOT)), "False"), (str(ROOT), "True")],
)
def test_pandas_is_loaded_only_where_the_path_does_not_keep_it_out(
    path: str, is_loaded: str
) -> None:
    assert metadata.version("pandas")
    assert said(SERVING, path) == is_loaded


def test_path_leads_there_once_and_back() -> None:
    path = absent.path_with(os.pathsep.join(["/a", "/b"]))
    assert path.split(os.pathsep) == [absent.FOLDER, "/a", "/b"]
    assert absent.path_with(path) == path
    assert absent.path_without(path) == os.pathsep.join(["/a", "/b"])
    assert absent.path_without(absent.path_with("")) == ""
