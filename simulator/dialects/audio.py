"""OpenAI's path for speech: /v1/audio/transcriptions. A multipart form comes in, one text goes out."""

from collections.abc import Sequence
from email.message import Message
from email.parser import BytesParser

from simulator.dialects.fields import encode
from simulator.dialects.inference import Answer, Body, Dialect, Done, Inference, Sent, Token, joined
from simulator.dialects.openai import JSON_LINE, error
from simulator.refusal import Refusal
from simulator.text import rendered


def read_transcription(sent: Sent) -> tuple[Inference, Answer]:
    """A request for /v1/audio/transcriptions, a multipart form."""
    form = _form(sent)
    model = form.get("model", b"").decode("utf-8", "replace")
    if not model:
        raise Refusal(400, "model is required")
    if "file" not in form:
        raise Refusal(400, "file is required: http: no such file")
    if not form["file"]:
        raise Refusal(400, "audio file is empty")
    heard = [("user", f"{form.get('prompt', b'').decode('utf-8', 'replace')} {len(form['file'])} bytes of sound")]
    inference = Inference(model=model, prompt=rendered(heard), stream=False, kind="chat", needs=("audio",))
    return inference, TranscriptionAnswer(form.get("response_format", b"").decode("utf-8", "replace"))


def _form(sent: Sent) -> dict[str, bytes]:
    head = b"Content-Type: " + sent.content_type.encode() + b"\r\n\r\n"
    message: Message = BytesParser().parsebytes(head + sent.body)
    if message.get_content_type() != "multipart/form-data" or not message.is_multipart():
        reason = "request Content-Type isn't multipart/form-data"
        raise Refusal(400, f"failed to parse multipart form: {reason}")
    form: dict[str, bytes] = {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition") if isinstance(part, Message) else None
        content = part.get_payload(decode=True) if isinstance(part, Message) else None
        if isinstance(name, str) and isinstance(content, bytes):
            form[name] = content
    return form


class TranscriptionAnswer(Answer):
    """/v1/audio/transcriptions; it never streams."""

    def __init__(self, response_format: str) -> None:
        self._format = response_format

    def token(self, token: Token) -> list[bytes]:  # noqa: ARG002  it never streams
        return []

    def last(self, done: Done) -> list[bytes]:  # noqa: ARG002  it never streams
        return []

    def whole(self, tokens: Sequence[Token], done: Done) -> Body:  # noqa: ARG002  it has no counts
        text = joined(tokens).strip()
        if self._format == "text":
            return Body("text/plain", text.encode())
        return Body(JSON_LINE, encode({"text": text}) + b"\n")

    def broken(self) -> list[bytes]:
        return []


TRANSCRIPTION = Dialect(read_transcription, error)
