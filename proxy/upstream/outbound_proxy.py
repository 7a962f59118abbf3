"""The HTTP proxy for connections to Google, from the environment. No Django."""

import base64
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url


class BadProxy(ValueError):
    """The proxy cannot be used. The message leaves out its address, which may contain a password."""

    def __init__(self, name: str, *, is_socks: bool = False) -> None:
        super().__init__(f"{name} is not the address of an HTTP proxy.")
        # Of the environment variable.
        self.name = name
        self.is_socks = is_socks


def proxy_for(url: Url) -> Url | None:
    """Return HTTPS_PROXY, or else ALL_PROXY, unless NO_PROXY excludes the host, as requests does. Raises BadProxy."""
    proxies = getproxies()
    name = "HTTPS_PROXY" if proxies.get("https", "").strip() else "ALL_PROXY"
    text = proxies.get("https" if name == "HTTPS_PROXY" else "all", "").strip(" \t\r\n'\"")
    if not text or url.scheme != "https" or proxy_bypass(url.host or ""):
        return None
    try:
        proxy = parse_url(text if "://" in text else f"http://{text}")
    except LocationParseError:
        raise BadProxy(name) from None
    if proxy.scheme != "http" or not proxy.host or proxy.path not in (None, "/") or proxy.query or proxy.fragment:
        raise BadProxy(name, is_socks=(proxy.scheme or "").startswith("socks"))
    return proxy


def credentials_for(proxy: Url) -> dict[str, str]:
    """Return the header with the proxy's user and password; an empty dict if it has none."""
    if not proxy.auth:
        return {}
    return {"Proxy-Authorization": f"Basic {base64.b64encode(unquote(proxy.auth).encode()).decode()}"}
