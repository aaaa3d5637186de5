"""Speaks as much of the APIs of OpenAI, Anthropic and Amazon Bedrock as their SDKs need for one
answer, whole or in pieces. Each piece waits until the client has been seen to take the one before:
it asks for /taken/N on the way, so an answer that is held back in the middle never ends."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["hello ", "from ", "the ", "model"]
TAKEN = threading.Condition()
COUNT = 0


def openai_piece(word):
    choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
    return "", {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def anthropic_events():
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m",
               "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield "message_start", {"type": "message_start", "message": message}
    block = {"type": "text", "text": ""}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        global COUNT
        with TAKEN:
            COUNT = int(self.path.rsplit("/", 1)[1])
            TAKEN.notify_all()
        self.whole({})

    def do_POST(self):
        global COUNT
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        streams = body.get("stream", False)
        COUNT = 0
        if self.path.startswith("/v1/chat/completions") and streams:
            self.pieces([openai_piece(w) for w in WORDS], "[DONE]")
        elif self.path.startswith("/v1/chat/completions"):
            choice = {"index": 0, "finish_reason": "stop",
                      "message": {"role": "assistant", "content": "".join(WORDS)}}
            self.whole({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
        elif self.path.startswith("/v1/messages") and streams:
            self.pieces(list(anthropic_events()), None)
        elif self.path.startswith("/v1/messages"):
            self.whole({"id": "m", "type": "message", "role": "assistant", "model": "m",
                        "content": [{"type": "text", "text": "".join(WORDS)}], "stop_reason": "end_turn",
                        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}})
        elif self.path.endswith("/converse"):
            message = {"role": "assistant", "content": [{"text": "".join(WORDS)}]}
            self.whole({"output": {"message": message}, "stopReason": "end_turn", "metrics": {"latencyMs": 1},
                        "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}})
        else:
            self.send_error(404)

    def whole(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def pieces(self, events, last):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        text = 0
        for name, data in events:
            piece = (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"
            self.wfile.write(piece.encode())
            self.wfile.flush()
            if "delta" in piece and any(json.dumps(w) in piece for w in WORDS):
                text += 1
                with TAKEN:
                    if not TAKEN.wait_for(lambda: COUNT >= text, timeout=30):
                        return  # the piece did not arrive: the client sees a broken answer
        if last:
            self.wfile.write(f"data: {last}\n\n".encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
