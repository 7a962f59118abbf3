"""The obvious stack: a careful first version of the proxy. It rotates keys and counts requests.

python -m bench.obvious DATABASE UPSTREAM_PORT PORT
"""

import os
import sys
from datetime import datetime
from typing import ClassVar

import django
import requests
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone

WORKERS, THREADS = 2, 32

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("OBVIOUS_DATABASE") or sys.argv[1],
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",  # as durable as ours
            },
        }
    },
)
django.setup()


class Key(models.Model):
    secret: "models.CharField[str, str]" = models.CharField(max_length=64, unique=True)
    last_used: "models.DateTimeField[datetime, datetime]" = models.DateTimeField(db_index=True)
    answers: "models.PositiveIntegerField[int, int]" = models.PositiveIntegerField(default=0)

    objects: ClassVar[models.Manager["Key"]] = models.Manager()

    class Meta:
        app_label = "bench"

    def __str__(self) -> str:
        return f"key {self.pk}"


upstream = requests.Session()
upstream.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))


def relay(request: HttpRequest, url: str) -> HttpResponse:
    """Claim the least recently used key, count the request, and forward it."""
    with transaction.atomic():
        key = Key.objects.select_for_update().order_by("last_used")[:1].get()
        Key.objects.filter(pk=key.pk).update(last_used=timezone.now(), answers=F("answers") + 1)
    answer = upstream.post(
        f"http://127.0.0.1:{os.environ['OBVIOUS_UPSTREAM_PORT']}/{url}",
        data=request.body,
        headers={"x-goog-api-key": key.secret, "Content-Type": request.headers["Content-Type"]},
        timeout=60,
    )
    headers = {"Content-Type": answer.headers["Content-Type"]}
    return HttpResponse(answer.content, status=answer.status_code, headers=headers)


urlpatterns = [path("readyz", lambda _: HttpResponse()), path("<path:url>", relay)]
application = get_wsgi_application()


def main() -> None:
    """Create the table and twenty keys, then exec gunicorn."""
    database, upstream_port, port = sys.argv[1:]
    with connection.schema_editor() as editor:
        editor.create_model(Key)
    Key.objects.bulk_create(Key(secret=f"secret-{number}", last_used=timezone.now()) for number in range(20))
    connection.close()
    os.environ.update(OBVIOUS_DATABASE=database, OBVIOUS_UPSTREAM_PORT=upstream_port)
    gunicorn = [
        sys.executable,
        "-m",
        "gunicorn",
        "bench.obvious:application",
        "--worker-class=gthread",
        "--config=/dev/null",
    ]
    gunicorn += [f"--workers={WORKERS}", f"--threads={THREADS}", f"--bind=127.0.0.1:{port}"]
    os.execv(sys.executable, gunicorn)


if __name__ == "__main__":
    main()
