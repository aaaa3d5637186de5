"""A WebSocket server with TLS that echoes to whoever brings the credential."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.server import serve

port, certificate, key, log = sys.argv[1:]


def check(connection, request):
    good = request.headers.get("Authorization") == f"Bearer {os.environ['CLIENTS_SECRET']}"
    with open(log, "a") as file:
        file.write(f"ws.test GET {request.path} {int(good)}\n")
    return None if good else connection.respond(401, "no credential\n")


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with serve(echo, "127.0.0.1", int(port), ssl=context, process_request=check) as server:
        await server.serve_forever()


asyncio.run(main())
