"""What a user does with mappers on the Hub, in a process of its own; prints outcomes as JSON.

The Hub client reads where the Hub is on import: only a new process obeys the variables.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from hf_token_compress.mapper import RelevanceMapper, load_mappers


def outcome(action: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    try:
        if action == "pull":
            mapper = RelevanceMapper.from_pretrained(*arguments, **options)
            first = next(mapper.parameters()).flatten()[:4].tolist()
            return {"source": mapper.source, "weights": first}
        if action == "set":
            return {"modalities": sorted(load_mappers(*arguments, **options).mappers)}
        loaded = load_mappers(arguments[0])
        commit = loaded.push_to_hub(arguments[1], **options)
        return {"commit": commit}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        found = outcome(request["action"], *request["arguments"], **request.get("options", {}))
        print(json.dumps(found), flush=True)
