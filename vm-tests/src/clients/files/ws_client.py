"""Opens a WebSocket, says three words and prints the echoes."""

import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

try:
    with connect(sys.argv[1]) as socket:
        for word in ["hello", "again", "bye"]:
            socket.send(word)
            print(socket.recv(timeout=60))
except InvalidStatus as error:
    print(error, error.response.body.decode())
    sys.exit(1)
