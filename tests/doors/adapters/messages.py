"""A server of Anthropic's Messages API that answers as a test tells it to: the model behind the Claude Agent SDK."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Block = dict[str, Any]


class Messages:
    """Answers each request about tools with the blocks that `answer` returns; keeps what the model was shown."""

    def __init__(self, answer: Callable[[], list[Block]]) -> None:
        self.answer = answer
        self.shown: list[str] = []
        self._known: set[str] = set()
        self.url = ""

    def events(self, request: Any) -> list[dict[str, Any]]:
        """Return the events of the stream that answers a request."""
        # Requests without tools are the program's own, such as for a title.
        blocks = self.answer() if request.get("tools") else [{"type": "text", "text": "a title"}]
        calls = any(block["type"] == "tool_use" for block in blocks)
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": request["model"], "content": []}
        events: list[dict[str, Any]] = [
            {
                "type": "message_start",
                "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage},
            }
        ]
        for index, block in enumerate(blocks):
            if block["type"] == "tool_use":
                start, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": block["input"]}
            else:
                start, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
            events += [
                {"type": "content_block_start", "index": index, "content_block": start},
                {"type": "content_block_delta", "index": index, "delta": delta},
                {"type": "content_block_stop", "index": index},
            ]
        stop = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
        return [*events, {"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]

    def read(self, request: Any) -> None:
        """Keep what the model is shown of each call, once: later requests repeat it."""
        for message in request["messages"]:
            for block in message["content"] if isinstance(message["content"], list) else ():
                if block.get("type") == "tool_result" and block["tool_use_id"] not in self._known:
                    self._known.add(block["tool_use_id"])
                    self.shown.append(_text(block["content"]))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


@contextmanager
def served(messages: Messages) -> Iterator[None]:
    """Serve the model while the `with` block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

        def do_HEAD(self) -> None:
            self._answer(b"", "text/plain")

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if "messages" not in request or "count_tokens" in self.path:
                self._answer(b'{"input_tokens": 1}', "application/json")
                return
            messages.read(request)
            lines = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in messages.events(request)]
            self._answer("".join(lines).encode(), "text/event-stream")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a program that is killed leaves its connections open

    with Server(("127.0.0.1", 0), Handler) as server:
        messages.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            # A run may end in an error, and a thread that still serves keeps the whole program from its end.
            server.shutdown()
            thread.join()
