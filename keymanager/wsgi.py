"""The WSGI application, for gunicorn and runserver."""

import os

from django.core.wsgi import get_wsgi_application

from proxy.sqlite.base import DatabaseWrapper
from proxy.sqlite.lock import hold_while_serving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
hold_while_serving()
application = get_wsgi_application()
DatabaseWrapper.may_create = False
