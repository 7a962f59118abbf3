"""LiteLLM through the key manager, with its Gemini and its OpenAI provider. Prints the results as JSON.

    LITELLM_LOCAL_MODEL_COST_MAP=True python lite_llm.py http://127.0.0.1:5000 TOKEN MODEL

The variable keeps the import from accessing the internet.
"""

import json
import sys
from typing import Any

import litellm  # type: ignore[import-not-found]  # lives in .venv/clients


def main(url: str, token: str, model: str) -> None:
    routes = {"gemini": (f"gemini/{model}", f"{url}/v1beta"), "openai": (f"openai/{model}", f"{url}/v1")}
    found: dict[str, Any] = {}
    for route, (name, address) in routes.items():
        usual: dict[str, Any] = {
            "model": name,
            "api_base": address,
            "api_key": token,
            "messages": [{"role": "user", "content": "Hello"}],
            "timeout": 20,
        }
        answer = litellm.completion(**usual)
        stream = litellm.completion(**usual, stream=True)
        found[route] = {
            "text": answer.choices[0].message.content,
            "tokens": answer.usage.total_tokens,
            "stream": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
        }
        try:
            litellm.completion(**(usual | {"model": f"{name}-exhausted"}), num_retries=0)
        except Exception as exc:  # LiteLLM has a dozen of them, by status and route
            found[route]["error"] = str(exc)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
