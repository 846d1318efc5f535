"""Compiles `dify.proto` where the package is built; all else stands in pyproject.toml."""

from importlib.resources import files
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = "deployments/ingress/proto/dify.proto"


class BuildWithStubs(build_py):
    """Makes `dify_pb2.py` and `dify_pb2_grpc.py` beside the description, then builds."""

    def run(self) -> None:
        """Raise SystemExit when the description is wrong."""
        compile_stubs()
        super().run()


def compile_stubs() -> None:
    """Write the modules that Python reads messages with."""
    from grpc_tools import protoc

    root = Path(__file__).resolve().parent
    own = files("grpc_tools") / "_proto"
    arguments = [f"-I{root}", f"-I{own}", f"--python_out={root}", f"--grpc_python_out={root}"]
    if protoc.main(["protoc", *arguments, str(root / PROTO)]):
        raise SystemExit(f"{PROTO} could not be compiled")


setup(cmdclass={"build_py": BuildWithStubs})
