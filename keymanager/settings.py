"""Every choice of a deployment, read from the environment or `.env`, here and nowhere else.

Source of the defaults: README.md, "Settings"; a test compares the two.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
env.read_env(BASE_DIR / ".env")


def _positive(name: str, default: float) -> float:
    number = float(env.float(name, default))
    if number <= 0:
        raise ImproperlyConfigured(f"{name} must be a number above 0, not {number:g}.")
    return number


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ImproperlyConfigured(
            f"QUOTA_TIME_ZONE={name!r} is not a time zone; write it like America/Los_Angeles."
        ) from exc


def _secret_key() -> str:
    """Return the secret in DATA_DIR, made on first use and readable by its owner alone."""
    path = DATA_DIR / "secret_key"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=DATA_DIR) as file:  # mode 0600
            file.write(secrets.token_urlsafe(50))
            file.flush()
            with contextlib.suppress(FileExistsError):  # another process was first, and its secret is whole
                os.link(file.name, path)
    return str(path.read_text().strip())


# The relay
DEFAULT_TOKEN = "PLACEHOLDER_GEMINI_TOKEN"  # noqa: S105  # well known, and warned of
PLACEHOLDER_TOKEN = env.str("PLACEHOLDER_TOKEN", DEFAULT_TOKEN)
UPSTREAM_URL = env.str("UPSTREAM_URL", "https://generativelanguage.googleapis.com").rstrip("/")
CONNECT_TIMEOUT_SECONDS = _positive("CONNECT_TIMEOUT_SECONDS", 10)
READ_TIMEOUT_SECONDS = _positive("READ_TIMEOUT_SECONDS", 600)
DEADLINE_SECONDS = _positive("DEADLINE_SECONDS", 60)
MAX_BODY_MB = _positive("MAX_BODY_MB", 100)
EXHAUSTED_STATUS = env.int("EXHAUSTED_STATUS", 503)
QUOTA_TIME_ZONE = env.str("QUOTA_TIME_ZONE", "America/Los_Angeles")
QUOTA_ZONE = _zone(QUOTA_TIME_ZONE)

# The service
BIND = env.str("BIND", "0.0.0.0:5000")
WEB_WORKERS = env.int("WEB_WORKERS", 2)
GRACEFUL_SECONDS = env.int("GRACEFUL_SECONDS", 30)
KEY_FILE = env.str("KEY_FILE", "key.txt")
DATA_DIR = BASE_DIR / env.str("DATA_DIR", "data")
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)  # real keys are in it
LOG_DIR = env.str("LOG_DIR", "logs")
LOG_LEVEL = env.str("LOG_LEVEL", "INFO").upper()

# Django
DEBUG = env.bool("DEBUG", False)
SECRET_KEY = env.str("SECRET_KEY", "") or _secret_key()
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["*"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
ROOT_URLCONF = "keymanager.urls"
WSGI_APPLICATION = "keymanager.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEFAULT_EXCEPTION_REPORTER = "proxy.error_pages.MaskingReporter"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "proxy",
]
MIDDLEWARE = [
    "proxy.middleware.relay_first",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
LOGIN_URL = "admin:login"
LANGUAGE_CODE = "en"
TIME_ZONE = QUOTA_TIME_ZONE
USE_TZ = True
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
# An admin pastes many keys at once; bodies of the relay do not go through this limit but through MAX_BODY_MB.
DATA_UPLOAD_MAX_MEMORY_SIZE = 20 * 1024 * 1024

DATABASES = {"default": env.db_url("DATABASE_URL", f"sqlite:///{DATA_DIR / 'keymanager.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["ENGINE"] = "proxy.sqlite"
    DATABASES["default"]["OPTIONS"] = {
        # select_for_update is silently nothing on SQLite: the write lock taken at BEGIN is what makes claims safe.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-4000;"
            "PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY"
        ),
    }

_handlers = ["console"]
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "masked": {
            "()": "proxy.masking.MaskingFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s",
            "secrets": [PLACEHOLDER_TOKEN],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "masked"}},
    "root": {"handlers": _handlers, "level": LOG_LEVEL},
    "loggers": {
        # Their own handlers would write request lines with ?key=… unmasked.
        "django.server": {"handlers": [], "propagate": True},
        "urllib3": {"level": "WARNING"},
        # It would repeat each 4xx that a client of the relay gets.
        "django.request": {"level": "ERROR"},
    },
}
if LOG_DIR:
    (BASE_DIR / LOG_DIR).mkdir(parents=True, exist_ok=True)
    LOGGING["handlers"]["file"] = {
        "class": "concurrent_log_handler.ConcurrentRotatingFileHandler",  # several workers write one file
        "filename": str(BASE_DIR / LOG_DIR / "keymanager.log"),
        "maxBytes": 1_000_000,
        "backupCount": 3,
        "encoding": "utf-8",
        "formatter": "masked",
    }
    _handlers.append("file")
