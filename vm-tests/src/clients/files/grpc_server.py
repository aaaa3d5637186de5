"""A gRPC server with TLS: unary and bidirectional echoes for whoever brings the credential."""

import os
import sys
from concurrent import futures

import grpc

port, certificate, key, log = sys.argv[1:]


def check(context, method):
    brought = dict(context.invocation_metadata()).get("authorization", "")
    good = brought == f"Bearer {os.environ['CLIENTS_SECRET']}"
    with open(log, "a") as file:
        file.write(f"grpc.test POST /{method} {int(good)}\n")
    if not good:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no credential")


def unary(request, context):
    check(context, "egret.Echo/Unary")
    return request


def both(requests, context):
    check(context, "egret.Echo/Both")
    yield from requests


def refused(request, context):
    check(context, "egret.Echo/Refused")
    return request


server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("egret.Echo", {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Refused": grpc.unary_unary_rpc_method_handler(refused),
}),))
with open(key, "rb") as k, open(certificate, "rb") as c:
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(k.read(), c.read())]))
server.start()
server.wait_for_termination()
