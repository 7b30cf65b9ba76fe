"""The gRPC server, its services, metrics and request log."""
