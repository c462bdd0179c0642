"""Messages as they are shown, with what can be done with each. Callbacks are the page's: ``Doings``."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import streamlit as st

from dashboard import images, markup, refused
from dashboard.browser import copy_button
from dashboard.following import Following, Spoken
from dashboard.i18n import number, seconds, t
from dashboard.paint import Growing
from dashboard.views import why
from dashboard.views.selected import exports

STATUS_FRAMES = 4  # of those in which an answer grows: what it does is read more slowly

MORE = ":material/more_horiz:"  # as a label: beside an icon Streamlit draws an arrow too


class Doings(NamedTuple):
    """What the page does: answer again (the question's number, and the key of a menu of models), send the text of a key in place of a question
    (its row), show the branch of a message."""

    again: Callable[[int, str], None]
    resend: Callable[[dict[str, Any], str], None]
    branch: Callable[[int], None]
    models: list[str]


def message(row: dict[str, Any], doings: Doings, *, last: bool, session: str) -> None:
    """One that has ended; all that can be done with it stands below the last, behind one button at the others."""
    with st.chat_message("user" if row["role"] == "user" else "assistant"):
        if row["role"] == "user":
            for number, image in enumerate(row["images"] or ()):
                _image(image, f"image_{row['seq']}_{number}")
            st.markdown(markup.said(row["content"]))
        else:
            if row["name"]:  # of a conversation that is read as a chat
                st.badge(markup.plain(row["name"]), color="gray")
            _answered(row)
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            _branches(row, doings)
            if row["role"] == "user":
                _edit(row, doings)
            elif last:
                _answer_doings(row, doings)
                with st.popover(t("Export"), icon=":material/download:", type="tertiary"):
                    exports([session])
            else:
                _more(row, doings)


def _image(encoded: str, key: str) -> None:
    """What cannot be shown can be fetched all the same, as far as it is Base64."""
    if (small := images.small(encoded)) is not None:
        st.image(small)
        return
    words = t("A file that cannot be shown as an image")
    if (data := images.decoded(encoded)) is None:
        st.caption(f":material/broken_image: {words}")
    else:
        st.download_button(words, data, "image", key=key, icon=":material/broken_image:", on_click="ignore")


def _answered(row: dict[str, Any]) -> None:
    content, thinking = markup.split(row["content"], row["thinking"] or "")
    timings = row["timings"] or {}
    if thinking:
        took = timings.get("thinking_seconds")
        with st.expander(t("Thought for {time}", time=seconds(took)) if took else t("Thoughts"), type="compact"):
            st.markdown(markup.shown(thinking))
    st.markdown(markup.shown(content))
    if row["state"] == "stopped":
        st.caption(t("Stopped."))
    elif row["state"] == "error":
        st.caption(f":material/error: {refused.broken(row)}")
    if row["host"]:
        st.caption(" · ".join(_facts(row)))


def _facts(row: dict[str, Any]) -> list[str]:
    facts = [markup.plain(row["model"] or ""), row["host"]]
    timings, usage = row["timings"] or {}, row["usage"] or {}
    if timings.get("ttft_seconds") is not None:
        facts.append(t("first token {value}", value=seconds(timings["ttft_seconds"])))
    if usage and timings.get("decode_seconds"):
        facts.append(t("{value} tokens/s", value=number(usage["output_tokens"] / timings["decode_seconds"], 1)))
    if usage:
        facts.append(t("{n} tokens", n=usage["output_tokens"]))
    return facts


def _branches(row: dict[str, Any], doings: Doings) -> None:
    siblings = row["siblings"]
    if len(siblings) < 2:
        return
    place = siblings.index(row["seq"])
    before, after = siblings[max(0, place - 1)], siblings[min(len(siblings) - 1, place + 1)]
    _turn("◀", f"before_{row['seq']}", before, doings, end=place == 0)
    st.caption(f"{place + 1}/{len(siblings)}", width="content")
    _turn("▶", f"after_{row['seq']}", after, doings, end=place == len(siblings) - 1)


def _turn(sign: str, key: str, seq: int, doings: Doings, *, end: bool) -> None:
    st.button(sign, key=key, on_click=doings.branch, args=(seq,), type="tertiary", disabled=end)


def _edit(row: dict[str, Any], doings: Doings) -> None:
    place = st.popover(
        t("Edit"), icon=":material/edit:", type="tertiary", key=f"editing_{row['seq']}", on_change="rerun"
    )
    if place.open:
        key = f"edit_{row['seq']}"
        place.text_area(t("Your message"), row["content"], key=key, label_visibility="collapsed")
        place.button(t("Send"), key=f"send_{key}", on_click=doings.resend, args=(row, key), type="primary")


def _answer_doings(row: dict[str, Any], doings: Doings) -> None:
    _again(row, doings)
    if row["generation"]:
        place = st.popover(t("Why this host?"), type="tertiary", key=f"why_{row['seq']}", on_change="rerun")
        if place.open:
            with place:
                why.told(row)


def _again(row: dict[str, Any], doings: Doings) -> None:
    key = f"with_{row['seq']}"
    st.button(
        t("Again"),
        key=f"again_{row['seq']}",
        icon=":material/refresh:",
        type="tertiary",
        on_click=doings.again,
        args=(row["parent"], ""),
    )
    st.menu_button(
        t("With another model"),
        doings.models,
        key=key,
        type="tertiary",
        on_click=doings.again,
        args=(row["parent"], key),
        disabled=not doings.models,
    )
    copy_button(row["content"], t("Copy"), t("Copied"), key=f"copy_{row['seq']}")


def _more(row: dict[str, Any], doings: Doings) -> None:
    place = st.popover(MORE, type="tertiary", key=f"more_{row['seq']}", on_change="rerun")
    if place.open:
        with place:
            _again(row, doings)
            if row["generation"]:
                why.told(row)


def answer(following: Following) -> Iterator[bool]:
    """One that grows, frame by frame."""
    with st.chat_message("assistant"):
        thoughts = st.container()
        growing = Growing(st.container())
        status = st.empty()
        thinking: Growing | None = None
        for frame in itertools.count():
            if following.over:
                break
            spoken = following.answer
            if spoken.thinking and thinking is None:
                thinking = Growing(thoughts.expander(t("Thinking"), expanded=True, type="compact"))
            if thinking is not None:
                thinking.show(markup.shown(spoken.thinking), growing=not spoken.content)
            if spoken.content:
                growing.show(markup.growing(spoken.content))
            if frame % STATUS_FRAMES == 0:
                status.caption(_doing(following, spoken))
            yield True
    yield False


def as_it_was(rows: list[dict[str, Any]], following: Following | None) -> None:
    """What has been read, where there is no gateway to do anything with it."""
    for row in rows:
        if following is None or row["state"] != "streaming":
            with st.chat_message("user" if row["role"] == "user" else "assistant"):
                st.markdown((markup.said if row["role"] == "user" else markup.shown)(row["content"]))
    if following is not None:
        with st.chat_message("assistant"):
            st.markdown(markup.shown(markup.split(following.answer.content, following.answer.thinking)[0]))


def _doing(following: Following, spoken: Spoken) -> str:
    if following.away:
        return f":material/cloud_off: {t('The gateway does not answer.')} {t('It is tried again.')}"
    if spoken.first is not None:
        rate = spoken.rate
        facts = [following.host or "", t("{value} tokens/s", value=number(rate, 1)) if rate else ""]
        if spoken.thought is not None:
            facts.append(t("thought for {time}", time=seconds(spoken.thought)))
        return " · ".join(fact for fact in facts if fact)
    if following.phase == "queued":
        place = following.place
        if not place:
            return t("Waiting for a free host…")
        if following.waits is None:
            return t("Waiting for a free host: {place} in the queue", place=place)
        return t(
            "Waiting for a free host: {place} in the queue, about {time}", place=place, time=seconds(following.waits)
        )
    if following.host is None:
        return t("Sent")
    if following.loads:
        words = t("{host} loads the model, about {time}", host=following.host, time=seconds(following.loads))
    else:
        words = t("{host} reads the question", host=following.host)
    return f"{words} · {seconds(following.age)}"
