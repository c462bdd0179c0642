"""Models: what each is asked for, how fast it answers, where it is in memory and how often it has to come there."""

from grafana import board as b
from grafana.board import Placed, Row
from grafana.panels import GREY, Json, Query, heatmap, lines, percentiles, split, table, thresholds, timeline
from grafana.queries import HOST, MODEL, TTFT_SECONDS, increase, mean, of, over, quantile, rate

TTFT = "corral_time_to_first_token_seconds"
TOKENS, EVAL = "corral_tokens_total", "corral_host_eval_seconds_total"
REPORTED = 'accounting="reported"'


def board() -> Json:
    """The dashboard."""
    rows = [
        Row("Traffic", [Placed(panel, b.QUARTER) for panel in _traffic()]),
        Row("First token", [Placed(panel, b.HALF) for panel in _first()]),
        Row("Speed", [Placed(panel, b.QUARTER) for panel in _speed()]),
        Row("In memory", [Placed(panel, b.HALF) for panel in _memory()]),
        Row("Cold starts", [Placed(panel) for panel in _cold()]),
    ]
    about = "What each model is asked for, how fast it answers, and where it is in memory."
    return b.board("models", "Models", about, rows, [b.models(), b.hosts()])


def _traffic() -> list[Json]:
    return [
        lines(
            "By outcome",
            "Only one model fails: look at its cold starts and whether it fits into memory. All do: look at the hosts.",
            "reqps",
            split(rate, "corral_requests_total", MODEL, by="model, outcome"),
            stacked=True,
        ),
        lines(
            "Tokens",
            "Read and generated, each second. input is what prompts cost, output what answers cost.",
            "short",
            split(rate, TOKENS, MODEL, HOST, by="model, type"),
            axis="tokens/s",
        ),
        lines(
            "Tokens of a request, on average",
            "Of requests of which the host told the tokens. Growing prompts make the first token late: shorten histories, or "
            "raise the context on purpose.",
            "short",
            Query(mean("corral_request_tokens", MODEL, by="model, type"), "{{model}} {{type}}"),
            axis="tokens",
        ),
        lines(
            "Tokens of a request, p95",
            "The long ones. An input near the model's context is cut by the host without a word.",
            "short",
            split(quantile, 0.95, "corral_request_tokens", MODEL, by="model, type"),
            axis="tokens",
        ),
        lines(
            "Bodies",
            "Bytes each second, as callers sent them and as answers were passed on. Large ones in: images, audio or whole documents.",
            "Bps",
            split(rate, "corral_body_bytes_total", by="operation, direction"),
        ),
    ]


def _first() -> list[Json]:
    return [
        heatmap(
            "First token, all requests",
            "Two bands are usual: loaded models below, cold starts above. A band that climbs is a queue. The points are kept traces.",
            "s",
            Query(rate(f"{TTFT}_bucket", MODEL, HOST, by="le"), "{{le}}", exemplar=True),
        ),
        lines(
            "First token by model, p95",
            "A model that is slow on every host is too large or too cold; on one host, see the hosts' board.",
            "s",
            split(quantile, 0.95, TTFT, MODEL, HOST, by="model", exemplar=True),
            limits=thresholds((TTFT_SECONDS, "red")),
        ),
    ]


def _speed() -> list[Json]:
    output = rate(TOKENS, MODEL, HOST, 'type="output"', REPORTED, by="model, host")
    prompt = rate(TOKENS, MODEL, HOST, 'type="input"', REPORTED, by="model, host")
    decoding = rate(EVAL, MODEL, HOST, 'phase="eval"', by="model, host")
    reading = rate(EVAL, MODEL, HOST, 'phase="prompt_eval"', by="model, host")
    return [
        lines(
            "Decode speed",
            "Tokens a second of one answer, as the hosts tell it. Half of what it was: the model is partly on the CPU, or the GPU is hot or "
            "shared.",
            "short",
            Query(f"{output} / ({decoding} > 0)", "{{model}} on {{host}}"),
            axis="tokens/s",
        ),
        lines(
            "Prompt speed",
            "Prompt tokens a second, as the hosts tell it; cached prompts are not read again and make it look fast.",
            "short",
            Query(f"{prompt} / ({reading} > 0)", "{{model}} on {{host}}"),
            axis="tokens/s",
        ),
        lines(
            "What hosts spend time on",
            "Seconds of host time each second. load: models come and go, see cold starts. prompt_eval: long prompts.",
            "short",
            split(rate, EVAL, MODEL, HOST, by="phase"),
            axis="hosts busy",
            stacked=True,
        ),
        lines(
            "Longest silence, p95",
            "Of each request, the longest wait between two chunks. High for one model: it is swapped, or calls tools in one piece.",
            "s",
            split(quantile, 0.95, "corral_max_chunk_gap_seconds", MODEL, HOST, by="model"),
        ),
    ]


def _memory() -> list[Json]:
    def each(metric: str) -> str:
        return over(of(metric, MODEL, HOST), "host, model", "max")

    columns = {
        "VRAM": Query(each("corral_model_vram_bytes"), unit="bytes"),
        "Size": Query(each("corral_model_size_bytes"), unit="bytes"),
        "Context": Query(each("corral_model_context_length"), unit="none"),
        "Expires": Query(f"{each('corral_model_expires_timestamp_seconds')} * 1000", unit="dateTimeFromNow"),
    }
    return [
        table(
            "Loaded now",
            "VRAM below size: part of the model is on the CPU and slow. Two contexts for one model: callers ask for different ones, and each "
            "change is a cold start.",
            columns,
            {"host": "Host", "model": "Model"},
        ),
        timeline(
            "In memory",
            "Many short bars: models push each other out. Spread them over hosts (placement), or raise keep_alive.",
            Query(each("corral_model_loaded"), "{{model}} on {{host}}"),
            {1: ("loaded", "green"), 0: ("", GREY)},
        ),
    ]


def _cold() -> list[Json]:
    loads = increase("corral_model_loads_total", MODEL, HOST, by="trigger", window="1h")
    duration = "corral_model_load_duration_seconds"
    return [
        lines(
            "Loads an hour",
            "What brought models into memory. elsewhere: somebody uses the host without Corral, which then cannot plan.",
            "short",
            Query(loads, "{{trigger}}"),
            axis="loads/h",
        ),
        lines(
            "Loads an hour by model",
            "The same few again and again: they do not fit together. Pin them to hosts.",
            "short",
            Query(
                f"topk(10, {increase('corral_model_loads_total', MODEL, HOST, by='model', window='1h')})", "{{model}}"
            ),
            axis="loads/h",
        ),
        lines(
            "Loads anew an hour",
            "A loaded model had to be loaded again, as a request's runner options differ from its own: set them alike in your clients.",
            "short",
            Query(increase("corral_reloads_total", by="cause", window="1h"), "{{cause}}"),
            axis="loads/h",
        ),
        lines(
            "Cold start",
            "As the hosts tell it. Over a minute: slow disk, or a model that hardly fits.",
            "s",
            *percentiles(duration, HOST, window="1h", at=(0.5, 0.95), exemplar=True),
        ),
    ]
