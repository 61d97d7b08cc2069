"""What a user does with mappers on the Hub, in a process of its own; prints outcomes as JSON.

The Hub client reads where the Hub is on import: only a new process obeys the variables.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from hf_token_compress.mapper import MapperSet, RelevanceMapper, load_mappers


def outcome(action: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    try:
        if action == "pull":
            mapper = RelevanceMapper.from_pretrained(*arguments, **options)
            first = next(mapper.parameters()).flatten()[:4].tolist()
            return {"source": mapper.source, "revision": mapper.revision, "weights": first}
        if action == "save":
            mapper = RelevanceMapper.from_pretrained(arguments[0])
            return {"commit": mapper.save_pretrained(arguments[0], **options)}
        if action == "set":
            return {"modalities": sorted(load_mappers(*arguments, **options).mappers)}
        if action == "model":
            return loaded_model(*arguments, **options)
        loaded = load_mappers(arguments[0])
        return pushed(loaded, arguments[1], **options)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def loaded_model(folder: str, **options: Any) -> dict[str, Any]:
    """Load a model folder, and say which scorer it has and what was logged about it."""
    from transformers import AutoModelForImageTextToText

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("hf_token_compress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        model = AutoModelForImageTextToText.from_pretrained(folder, **options)
    finally:
        logger.removeHandler(handler)
    compression = getattr(model, "token_compression", None)
    scorer = None if compression is None else compression.config.scorer_name
    return {"scorer": scorer, "log": lines}


def pushed(loaded: MapperSet, name: str, **options: Any) -> dict[str, Any]:
    try:
        found = {"commit": loaded.push_to_hub(name, **options)}
    except Exception as error:
        found = {"error": type(error).__name__, "message": str(error)}
    origins = {(mapper.source, mapper.revision) for mapper in loaded.mappers.values()}
    return {**found, "origins": sorted(origins)}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        found = outcome(request["action"], *request["arguments"], **request.get("options", {}))
        print(json.dumps(found), flush=True)
