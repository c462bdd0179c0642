"""What a conversation took: its turns in time, and each participant's tokens, speed and seconds."""

import plotly.graph_objects as go
import streamlit as st

from dashboard.conversation import COLORS, Bar, Figures, Row, timeline
from dashboard.conversation import figures as counted
from dashboard.i18n import number, seconds, separators, t

ROW_HEIGHT = 44  # pixels of a participant on the timeline


def figures(rows: list[Row], paint: dict[str, str], *, whole: bool) -> None:
    """Of all turns in ``rows`` that have ended."""
    bars = timeline(rows)
    if not bars:
        st.caption(t("Figures are here once somebody has spoken."))
        return
    if not whole:
        st.caption(t("Of the last messages alone."))
    st.subheader(t("Turns in time"))
    st.plotly_chart(_chart(bars, paint), key="talk_timeline", config={"displayModeBar": False})
    st.caption(t("Pale: until the first token. Full: while it wrote. Pauses between rounds are left out."))
    st.subheader(t("Participants"))
    _table(counted(rows))


def _chart(bars: list[Bar], paint: dict[str, str]) -> go.Figure:
    """A row for each participant, a bar for each turn: waiting, then writing."""
    names = list(dict.fromkeys(bar.name for bar in bars))
    filled = [COLORS[paint.get(bar.name, "gray")] for bar in bars]
    words = [_hover(bar) for bar in bars]
    waited = go.Bar(
        x=[bar.waited for bar in bars], base=[bar.begin for bar in bars], marker={"color": filled, "opacity": 0.35}
    )
    wrote = go.Bar(
        x=[bar.wrote for bar in bars], base=[bar.begin + bar.waited for bar in bars], marker={"color": filled}
    )
    for trace in (waited, wrote):
        trace.update(
            y=[bar.name for bar in bars], orientation="h", hovertext=words, hovertemplate="%{hovertext}<extra></extra>"
        )
    return go.Figure(
        [waited, wrote],
        layout={
            "barmode": "overlay",
            "showlegend": False,
            "separators": separators(),
            "height": 70 + ROW_HEIGHT * len(names),
            "margin": {"l": 0, "r": 0, "t": 8, "b": 0},
            "xaxis": {"title": t("seconds"), "zeroline": False, "fixedrange": True},
            "yaxis": {"categoryorder": "array", "categoryarray": names[::-1], "automargin": True, "fixedrange": True},
            "bargap": 0.35,
        },
    )


def _hover(bar: Bar) -> str:
    name = bar.name.replace("<", "&lt;")
    return "<br>".join(
        [
            f"{name} · {t('turn {number}', number=bar.turn)}",
            seconds(bar.waited + bar.wrote),
            t("{n} tokens", n=bar.tokens),
        ]
    )


def _table(rows: list[Figures]) -> None:
    columns = {
        t("Participant"): [row.name for row in rows],
        t("Turns"): [number(row.turns) for row in rows],
        t("Tokens written"): [row.output_tokens for row in rows],
        t("Tokens read"): [number(row.input_tokens) for row in rows],
        t("Tokens/s"): ["–" if row.rate is None else number(row.rate, 1) for row in rows],
        t("First token"): [seconds(row.first) for row in rows],
        t("Time"): [seconds(row.seconds) for row in rows],
    }
    most = max(row.output_tokens for row in rows)
    bar = st.column_config.ProgressColumn(format="localized", min_value=0, max_value=max(1, most))
    st.dataframe(columns, hide_index=True, column_config={t("Tokens written"): bar})
