"""A pytest plugin that points google-genai's own test suite to GEMINI_PROXY_URL; its fixtures take no address.

    python -m pytest -p suite_plugin -o consider_namespace_packages=true …/google/genai/tests/shared/models --mode=api

It also replaces pytest-asyncio, which that suite needs only to run its coroutines.
"""

import asyncio
import inspect
import os
import sys
from types import ModuleType
from typing import Any

import pytest
from google.genai import types
from google.genai._api_client import BaseApiClient

sys.modules["pytest_asyncio"] = ModuleType("pytest_asyncio")
_init = BaseApiClient.__init__


def _init_with_our_address(self: BaseApiClient, *args: Any, **kwargs: Any) -> None:
    given = kwargs.get("http_options")
    options = given if isinstance(given, types.HttpOptions) else types.HttpOptions.model_validate(given or {})
    kwargs["http_options"] = options.model_copy(update={"base_url": os.environ["GEMINI_PROXY_URL"]})
    _init(self, *args, **kwargs)


BaseApiClient.__init__ = _init_with_our_address  # type: ignore[method-assign]  # there is no other way in


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are coroutines. Leave the others to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
