"""The WSGI application, for gunicorn and runserver."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "keymanager.settings")
application = get_wsgi_application()
