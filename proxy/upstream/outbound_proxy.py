"""The HTTP proxy between us and Google, as the environment names it. No Django."""

import base64
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url


class BadProxy(ValueError):
    """A proxy that cannot be used. name: of the variable, whose value may hold a password and is not told."""

    def __init__(self, name: str, *, is_socks: bool = False) -> None:
        super().__init__(f"{name} is not the address of an HTTP proxy.")
        self.name = name
        self.is_socks = is_socks


def proxy_for(url: Url) -> Url | None:
    """Return HTTPS_PROXY, else ALL_PROXY, unless NO_PROXY names the host, as requests does. Raises BadProxy."""
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
    """Return the header that shows a proxy its user and password, decoded; an empty dict without them."""
    if not proxy.auth:
        return {}
    return {"Proxy-Authorization": f"Basic {base64.b64encode(unquote(proxy.auth).encode()).decode()}"}
