"""Why no TLS connection came about, in plain words."""

import ssl


def in_words(error: ssl.SSLError) -> str:
    """``it does not speak TLS`` for what answers in plain HTTP; for anything else OpenSSL's own words."""
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS (its url begins with https)"
    return str(error)
