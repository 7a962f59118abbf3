"""All settings. They come from the environment or `.env`, which are read here and nowhere else.

docs/settings.md explains each of them. A test compares the two.
"""

import contextlib
import logging
import math
import os
import re
import secrets
import tempfile
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from csp.constants import SELF
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy

from keymanager.env_file import Choices

BASE_DIR = Path(__file__).resolve().parent.parent
env = Choices(os.environ, BASE_DIR / ".env")
os.umask(0o077)  # files contain real keys, so only their owner can read them


def _positive(name: str, default: float, *, zero: bool = False) -> float:
    """Return a number above 0. zero: 0 is allowed too."""
    text = env.text(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf or (zero and number == 0)):
        raise ImproperlyConfigured(f"{name} must be {'0 or ' if zero else ''}a number above 0, not {text!r}.")
    return number


def _whole(name: str, default: int, *, most: int = 1_000_000_000) -> int:
    """Return a whole number above 0, at most `most`."""
    number = _positive(name, default)
    if number != int(number) or number > most:
        raise ImproperlyConfigured(f"{name} must be a whole number up to {most}, not {number:g}.")
    return int(number)


def _switch(name: str, default: bool) -> bool:
    """Return whether something is on. Only the usual words for on and off are accepted."""
    text = env.text(name, "on" if default else "off").lower()
    if text not in _ON | _OFF:
        raise ImproperlyConfigured(f"{name} must be on or off, not {text!r}.")
    return text in _ON


_ON, _OFF = {"1", "on", "true", "yes"}, {"0", "off", "false", "no"}


def _token(name: str, default: str) -> str:
    """Return a token that clients can send in a header. An invalid one is never replaced with the default."""
    token = env.text(name, default, may_be_empty=True)
    if not token:
        raise ImproperlyConfigured(
            f"{name} is empty, so no client can send it. Remove it to use the default, or set a long random text."
        )
    if not token.isprintable():
        raise ImproperlyConfigured(f"{name} has a character that is not allowed in headers, such as a line break.")
    return token


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ImproperlyConfigured(
            f"QUOTA_TIME_ZONE={name!r} is not a time zone. Example: America/Los_Angeles."
        ) from exc


def _upstream(name: str, default: str) -> tuple[str, str]:
    """Return the base URL of the API, and the version that was removed from its end, if any. `proxy.E002` checks both.

    A version in the middle stays, as in https://gateway.example/v1/account/google.
    """
    text = env.text(name, default).rstrip("/")
    try:
        urlsplit(text).port  # noqa: B018  # reading it is the check
    except ValueError:
        raise ImproperlyConfigured(f"{name} is not a valid URL. Example: {default}.") from None
    version = re.search(r"/+v\d+(?:alpha|beta)?\d*(?:/+openai|/+models)*\Z", text)
    return (text[: version.start()].rstrip("/"), version[0]) if version else (text, "")


def _networks(name: str, default: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(text) for text in env.parts(name, default, may_be_empty=True)]
    except ValueError as exc:
        raise ImproperlyConfigured(
            f"{name} must be addresses or networks such as 10.0.0.0/8, separated by commas: {exc}."
        ) from exc


def _bind(name: str, default: str) -> str:
    """Return the addresses to listen on. A port alone means all interfaces. `proxy.E004` checks the addresses."""
    return ",".join(re.sub(r"\A(?:\*?:)?(?=\d+\Z)", "0.0.0.0:", part) for part in env.parts(name, default))


def _folder(name: str, path: Path) -> Path:
    """Return `path`, a folder that is created if necessary, with access for its owner only."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ImproperlyConfigured(f"{name}: cannot create the folder {path} ({exc.strerror}).") from exc
    _check_writable(name, path)
    return path


def _check_writable(name: str, path: Path) -> None:
    if not os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0)):
        raise ImproperlyConfigured(
            f"{name}: user id {os.geteuid()} cannot write to {path}. Change its owner, or the setting."
        )


def _file(name: str, default: str) -> str:
    """Return the name of a file in BASE_DIR, which may not exist; "" for none."""
    text = env.text(name, default, may_be_empty=True)
    if text and (BASE_DIR / text).is_dir():
        raise ImproperlyConfigured(f"{name}={text} is a folder, not a file.")
    return text


def _hosts(name: str, default: str) -> list[str]:
    hosts = env.parts(name, default)
    if any("/" in host or re.search(r"[^\]]*:\d+\Z", host) for host in hosts):
        raise ImproperlyConfigured(f"{name} must be host names such as keys.example.com, without https:// or a port.")
    return hosts


def _origins(name: str, default: str) -> list[str]:
    origins = [origin.rstrip("/") for origin in env.parts(name, default)]
    if not all(re.fullmatch(r"https?://[^/\s]+", origin) for origin in origins):
        raise ImproperlyConfigured(f"{name} must be origins such as https://keys.example.com, without a path.")
    return origins


def _cors_origins(name: str, default: str) -> list[str]:
    """Return the origins of pages that may send requests, in lower case; ["*"] for any."""
    origins = [origin.rstrip("/").lower() for origin in env.parts(name, default, may_be_empty=True)]
    if "*" in origins and PLACEHOLDER_TOKEN == DEFAULT_TOKEN:
        raise ImproperlyConfigured(
            f"{name}=* would let every web page use the public default token. Run `python manage.py newtoken`, or name "
            "the origins."
        )
    if not all(re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+", origin) for origin in origins):
        raise ImproperlyConfigured(f"{name} must be * or origins such as https://app.example.com, without a path.")
    return origins


def _database(name: str, default: str) -> dict[str, Any]:
    try:
        database: dict[str, Any] = environ.Env.db_url_config(env.text(name, default))
    except ValueError:
        database = {}
    if database.get("ENGINE") not in ("django.db.backends.sqlite3", "django.db.backends.postgresql"):
        raise ImproperlyConfigured(
            f"{name} must look like postgres://user:password@host/name or sqlite:////path/to/file."
        )
    return database


def _secret_key() -> str:
    """Return the secret in DATA_DIR, which is generated on first use and readable by its owner only."""
    path = DATA_DIR / "secret_key"
    try:
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=DATA_DIR) as file:  # mode 0600
                file.write(secrets.token_urlsafe(50))
                file.flush()
                with contextlib.suppress(FileExistsError):  # another process was first, and its secret is complete
                    os.link(file.name, path)
        return str(path.read_text(encoding="ascii", errors="replace").strip())
    except OSError as exc:
        raise ImproperlyConfigured(f"DATA_DIR: {path} cannot be used ({exc.strerror}).") from None


# The relay
DEFAULT_TOKEN = "PLACEHOLDER_GEMINI_TOKEN"  # noqa: S105  # public, and there is a warning about it
PLACEHOLDER_TOKEN = _token("PLACEHOLDER_TOKEN", DEFAULT_TOKEN)
TOKEN_IS_IN_ENVIRONMENT = env.is_in_environment("PLACEHOLDER_TOKEN")  # which takes precedence over .env
ALLOW_DEFAULT_TOKEN = _switch("ALLOW_DEFAULT_TOKEN", False)
UPSTREAM_URL, UPSTREAM_VERSION = _upstream("UPSTREAM_URL", "https://generativelanguage.googleapis.com")
CONNECT_TIMEOUT_SECONDS = _positive("CONNECT_TIMEOUT_SECONDS", 10)
READ_TIMEOUT_SECONDS = _positive("READ_TIMEOUT_SECONDS", 600)
DEADLINE_SECONDS = _positive("DEADLINE_SECONDS", 60)
MAX_BODY_MB = _positive("MAX_BODY_MB", 100)
MAX_WAIT_SECONDS = _positive("MAX_WAIT_SECONDS", 20, zero=True)
MAX_WAITING = _whole("MAX_WAITING", 1000)
BARE_429 = env.text("BARE_429", "minute").lower()
if BARE_429 not in ("minute", "day"):
    raise ImproperlyConfigured(f"BARE_429 must be minute or day, not {BARE_429!r}.")
SHOW_KEY_NAMES = _switch("SHOW_KEY_NAMES", False)
KEEP_CONVERSATIONS = _switch("KEEP_CONVERSATIONS", True)
CORS_ORIGINS = _cors_origins("CORS_ORIGINS", "")
EXHAUSTED_STATUS = _whole("EXHAUSTED_STATUS", 503)
REQUEST_LOG_DAYS = _positive("REQUEST_LOG_DAYS", 7, zero=True)
QUOTA_TIME_ZONE = env.text("QUOTA_TIME_ZONE", "America/Los_Angeles")
QUOTA_ZONE = _zone(QUOTA_TIME_ZONE)

# The service
BIND = _bind("BIND", "0.0.0.0:5000")
WEB_WORKERS = _whole("WEB_WORKERS", 2, most=256)
GRACEFUL_SECONDS = _whole("GRACEFUL_SECONDS", 30)
DRAIN_SECONDS = _positive("DRAIN_SECONDS", 0, zero=True)
CLIENT_TIMEOUT_SECONDS = _positive("CLIENT_TIMEOUT_SECONDS", 30)
TRUSTED_PROXIES = _networks("TRUSTED_PROXIES", "127.0.0.0/8,::1/128")
KEY_FILE = _file("KEY_FILE", "key.txt")
DATA_DIR = _folder("DATA_DIR", BASE_DIR / env.text("DATA_DIR", "data"))
LOG_DIR = env.text("LOG_DIR", "logs", may_be_empty=True)
LOG_LEVEL = env.text("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
    raise ImproperlyConfigured(f"LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL, not {LOG_LEVEL!r}.")

# Django
DEBUG = _switch("DEBUG", False)
SECRET_KEY = env.text("SECRET_KEY", "", may_be_empty=True) or _secret_key()
ALLOWED_HOSTS = _hosts("ALLOWED_HOSTS", "*")
CSRF_TRUSTED_ORIGINS = _origins("CSRF_TRUSTED_ORIGINS", "")
HTTPS_ONLY = _switch("HTTPS_ONLY", False)
# These apply to our pages only, since the relay bypasses Django's middleware. The TLS proxy sends this header.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS_ONLY
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$"]  # health checks do not go through the TLS proxy
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS_ONLY else 0
ROOT_URLCONF = "keymanager.urls"
WSGI_APPLICATION = "keymanager.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEFAULT_EXCEPTION_REPORTER = "proxy.security.error_pages.MaskingReporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "proxy.security.error_pages.NoPostedData"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "axes",
    "proxy",
]
MIDDLEWARE = [
    "proxy.middleware.relay_first",
    "proxy.middleware.store_nothing",
    "proxy.security.page_requests.drop_nuls",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "proxy.security.page_requests.limit_bodies",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Hashing a password takes a quarter of a second, which must not block the streams of a gevent worker.
PASSWORD_HASHERS = ["proxy.accounts.password_hasher.ThreadedHasher"]
LOGIN_URL = "admin:login"
AUTHENTICATION_BACKENDS = ["proxy.accounts.logins.ThrottledBackend"]
# Failed logins are counted by account and address, and by address alone; see proxy/accounts/logins.py.
AXES_HANDLER = "proxy.accounts.logins.LoginFailures"
AXES_LOCKOUT_CALLABLE = "proxy.accounts.logins.locked_out"
AXES_CLIENT_IP_CALLABLE = "proxy.accounts.logins.address_of"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=5)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
LANGUAGE_CODE = "en"
LANGUAGES = [("en", gettext_lazy("English")), ("zh-hans", gettext_lazy("Simplified Chinese"))]
LOCALE_PATHS = [BASE_DIR / "proxy" / "locale"]  # also for texts in `templates`
# Pages use the browser's language, and commands that of the terminal, given by the first of these that is set.
_TERMINAL = next(filter(None, (env.text(name, "") for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"))), "")
TERMINAL_LANGUAGE = "zh-hans" if _TERMINAL.startswith("zh") else LANGUAGE_CODE
TIME_ZONE = QUOTA_TIME_ZONE
USE_TZ = True
STATIC_URL = "/static/"
# The paths that this service answers itself. Every other path goes to the Gemini API.
OWN_PATHS = frozenset({"/admin", "/dashboard", "/healthz", "/readyz"})
OWN_PREFIXES = ("/admin/", "/dashboard/", STATIC_URL)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "proxy.client.prefix.PrefixedFiles"},
}
WHITENOISE_USE_FINDERS = True
# Pages load nothing from other hosts, and run no inline scripts.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [SELF],
        "object-src": ["'none'"],
    }
}
# The largest form of a logged-in user: enough to paste 100,000 keys. For the relay, MAX_BODY_MB applies.
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
FILE_UPLOAD_HANDLERS = ["proxy.security.page_requests.NoFiles"]

DATABASES = {"default": _database("DATABASE_URL", f"sqlite:///{DATA_DIR / 'keymanager.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["ENGINE"] = "proxy.sqlite"
    DATABASES["default"]["OPTIONS"] = {
        # select_for_update does nothing on SQLite. The write lock that BEGIN IMMEDIATE takes makes claims safe.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-4000;"
            "PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY"
        ),
    }
else:
    # A node that falls silent in a transaction must not keep the others waiting: the server ends the transaction after
    # 2 s (or another node does, see `ledger/silent_nodes.py`), and both sides notice a dead connection after 3 s. The
    # same options in DATABASE_URL take precedence.
    DATABASES["default"]["OPTIONS"] = {
        "application_name": "gemini-key-manager",
        "connect_timeout": 3,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
        "keepalives_count": 2,
        "tcp_user_timeout": 3000,
        "options": (
            "-c idle_in_transaction_session_timeout=2s -c lock_timeout=2s -c statement_timeout=30s "
            "-c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2 -c tcp_user_timeout=3s"
        ),
        **DATABASES["default"].get("OPTIONS", {}),
    }


def _is_about_own_pages(record: logging.LogRecord) -> bool:
    """Tell whether Django logs this about one of our pages. The relay writes its own log lines, which name the key."""
    request = getattr(record, "request", None)
    return request is None or request.path_info.startswith(OWN_PREFIXES)


_handlers = ["console"]
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "masked": {
            "()": "proxy.security.masking.MaskingFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s",
            "secrets": [PLACEHOLDER_TOKEN],
        }
    },
    "filters": {"own_pages": {"()": lambda: _is_about_own_pages}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "masked"}},
    "root": {"handlers": _handlers, "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": LOG_LEVEL},
        # Its own handler would write request lines with ?key=… unmasked.
        "django.server": {"handlers": [], "propagate": True},
        "urllib3": {"level": "WARNING"},
        "django.request": {"filters": ["own_pages"]},
        "django.security.DisallowedHost": {"level": "CRITICAL"},
    },
}
if LOG_DIR:
    _log_file = _folder("LOG_DIR", BASE_DIR / LOG_DIR) / "keymanager.log"
    if _log_file.exists():
        _check_writable("LOG_DIR", _log_file)
    LOGGING["handlers"]["file"] = {
        "class": "concurrent_log_handler.ConcurrentRotatingFileHandler",  # all workers write to one file
        "filename": str(_log_file),
        "maxBytes": 1_000_000,
        "backupCount": 3,
        "encoding": "utf-8",
        "formatter": "masked",
    }
    _handlers.append("file")

# At the end, when all names of ours are known. `.env` can also contain HTTPS_PROXY and the like.
for _name, _value in env.of_others().items():
    os.environ.setdefault(_name, _value)
