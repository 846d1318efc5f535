"""The Protobuf form of some bodies and answers: `dify.proto`, and what reads and writes it.

`dify_pb2` and `dify_pb2_grpc` are made from it by `make stubs`, and by every installation.
"""
