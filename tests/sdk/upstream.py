"""Upstreams that give one fixed answer, for what a well-behaved provider cannot be asked to do."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    status: int
    body: dict
    headers: dict[str, str] = field(default_factory=dict)


def tool_call(name: str, arguments: dict, number: int = 0) -> Answer:
    """An answer in which OpenAI's model calls a tool. Identifiers differ with `number`, as they do from call to call."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return _completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def says(text: str) -> Answer:
    """An answer in which OpenAI's model says something and is done."""
    return _completion({"role": "assistant", "content": text}, "stop")


def _completion(message: dict, reason: str) -> Answer:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    }
    return Answer(200, body)


class Upstream:
    """Answers every POST with the next of `answers`, the last one for ever; keeps what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[dict] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                upstream.requests.append({"path": self.path, "body": body, "headers": dict(self.headers.items())})
                upstream.answer(self, answers[min(len(upstream.requests), len(answers)) - 1])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        body = json.dumps(answer.body).encode()
        handler.send_response(answer.status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class EndlessStream(Upstream):
    """Streams the same event until somebody hangs up, and then sets `hung_up`."""

    def __init__(self, event: str) -> None:
        self.event = event.encode()
        self.hung_up = threading.Event()
        super().__init__(Answer(200, {}))

    def answer(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        chunk = b"%x\r\n%s\r\n" % (len(self.event), self.event)
        try:
            while True:
                handler.wfile.write(chunk)
        except OSError:
            self.hung_up.set()
