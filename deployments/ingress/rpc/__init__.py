"""gRPC: each call becomes one request to the same application, and its answer the call's."""
