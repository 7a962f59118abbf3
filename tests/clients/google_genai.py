"""google-genai, in the installed version, through the key manager. Prints the results as JSON.

python google_genai.py http://127.0.0.1:5000 TOKEN MODEL
"""

import asyncio
import json
import sys
from typing import Any

from google import genai
from google.genai import errors, types


def main(url: str, token: str, model: str) -> None:
    client = genai.Client(api_key=token, http_options=types.HttpOptions(base_url=url))
    answer = client.models.generate_content(model=model, contents="Hello")
    stream = list(client.models.generate_content_stream(model=model, contents="Hello"))
    found: dict[str, Any] = {
        "version": genai.__version__,
        "text": answer.text,
        "tokens": answer.usage_metadata and answer.usage_metadata.total_token_count,
        "stream": [chunk.text for chunk in stream],
        "async": asyncio.run(ask_async(client, model)),
        "count": client.models.count_tokens(model=model, contents="Hello").total_tokens,
        "models": [listed.name for listed in client.models.list()],
    }
    try:
        client.models.generate_content(model=f"{model}-exhausted", contents="Hello")
    except errors.APIError as exc:
        found["error"] = [exc.code, exc.status, exc.message]
    sys.stdout.write(json.dumps(found))


async def ask_async(client: genai.Client, model: str) -> list[str | None]:
    stream = await client.aio.models.generate_content_stream(model=model, contents="Hello")
    return [chunk.text async for chunk in stream]


if __name__ == "__main__":
    main(*sys.argv[1:])
