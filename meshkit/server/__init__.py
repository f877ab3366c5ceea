"""What listens: HTTP on uvicorn, gRPC on grpc.aio, and one health state behind both."""
