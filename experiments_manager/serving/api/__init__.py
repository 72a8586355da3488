"""The gRPC and REST interfaces."""
