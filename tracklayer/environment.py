"""What other people's code may see of the platform's environment.

A list of what is passed on, not of what is held back: a secret that nobody thought of stays here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# What a program needs to run on this machine at all, and what reaches the network from here.
PASSED_ON = {
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"),
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
}


def passed_on(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The part of an environment (default: this process's) that user code and services get."""
    source = os.environ if environment is None else environment
    return {
        name: value for name, value in source.items() if name in PASSED_ON or name.startswith("LC_")
    }
