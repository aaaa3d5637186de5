"""Calls over gRPC: one request, then a conversation in which each word answers the one before."""

import queue
import sys

import grpc

channel = grpc.secure_channel("grpc.test:443", grpc.ssl_channel_credentials())
try:
    if sys.argv[1] == "refused":
        channel.unary_unary("/egret.Echo/Refused")(b"hello", timeout=10)
    print(channel.unary_unary("/egret.Echo/Unary")(b"hello", timeout=10).decode())
    words = queue.Queue()
    words.put(b"one")
    answers = channel.stream_stream("/egret.Echo/Both")(iter(words.get, None), timeout=10)
    for answer, following in zip(answers, [b"two", b"three", None]):
        print(answer.decode())
        words.put(following)
except grpc.RpcError as error:
    print(error.code(), error.details())
    sys.exit(1)
