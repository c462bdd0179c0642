"""What an answer's last words tell: how it ended, and the fields that tell what it used (``usage.py``)."""

from enum import StrEnum
from typing import Annotated, Any

import msgspec


class Ended(StrEnum):
    """How an answer ended, by its own last words."""

    COMPLETE = "complete"
    ERROR = "error"  # the host said, inside a 200, that it failed
    UNFINISHED = "unfinished"  # clean on the wire, but without the dialect's last event


class Ending(msgspec.Struct, frozen=True, gc=False):
    """The verdict of a dialect on an answer's tail. ``extra_events`` are those that carry no token."""

    ended: Ended
    message: str = ""
    extra_events: int = 0


class LastLine(msgspec.Struct, gc=False):
    """A native line as far as it tells how an answer ended."""

    done: bool = False
    error: Any = None


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]  # what is none is not believed


class V1Usage(msgspec.Struct, gc=False):
    """``usage`` of an OpenAI or Anthropic answer."""

    prompt_tokens: _Number = 0
    completion_tokens: _Number = 0
    input_tokens: _Number = 0
    output_tokens: _Number = 0


class Final(msgspec.Struct, gc=False):
    """The fields of a whole JSON answer, or of a native last line, that tell usage."""

    total_duration: _Number = 0
    load_duration: _Number = 0
    prompt_eval_count: _Number = 0
    prompt_eval_duration: _Number = 0
    eval_count: _Number = 0
    eval_duration: _Number = 0
    done: bool = False
    usage: V1Usage | None = None
