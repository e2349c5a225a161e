"""GenAI-Perf's `profile_export.json`: `experiments[].requests[]` with time stamps in nanoseconds.

Prompt tokens are not in it, unless the server sent its `usage`; output tokens are the chunks with
text, or the server's count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.replay.formats import fields
from harness.replay.formats.source import Source
from harness.replay.records import Records

NAME = "GenAI-Perf"


def runs(source: Source) -> list[Any] | None:
    """The experiments of a file; None for any other file."""
    documents = source.documents
    if documents is None or len(documents) != 1 or not isinstance(documents[0], dict):
        return None
    experiments = documents[0].get("experiments")
    return experiments if isinstance(experiments, list) else None


def read(where: str, run: Any) -> Records:
    """Read one experiment."""
    run = fields.mapping(where, "an experiment", run)
    starts, prompts, words, outputs, gaps, ttfts, ends = [], [], [], [], [], [], []
    requests = fields.items(where, "requests", run.get("requests"))
    model = None
    for i, request in enumerate(requests):
        at = f"{where}: requests[{i}]"
        request = fields.mapping(at, "it", request)
        start = fields.nanoseconds(at, "timestamp", request.get("timestamp"))
        stamps = fields.items(at, "response_timestamps", request.get("response_timestamps") or [])
        told = request.get("response_outputs") or []
        answers = [_answers(answer) for answer in fields.items(at, "response_outputs", told)]
        usage = next((a["usage"] for all_of in answers for a in all_of if _usage(a)), {})
        # A chunk that says nothing, such as the last one, is no token.
        chunks = [
            (fields.nanoseconds(at, "response_timestamps", stamp) - start) * 1e-9
            for stamp, texts in _paired(stamps, answers)
            if texts
        ]
        payload = _payload(request)
        model = model or fields.optional_text(payload.get("model"))
        starts.append(start)
        words.append(len(_prompt_text(payload).split()))
        prompts.append(usage.get("prompt_tokens"))
        completion = usage.get("completion_tokens")
        outputs.append(
            len(chunks)
            if completion is None
            else fields.tokens(at, "completion_tokens", completion)
        )
        ttfts.append(chunks[0] if chunks else 0.0)
        ends.append(chunks[-1] if chunks else 0.0)
        gaps.append(np.diff(chunks) if chunks else np.empty(0))
    counted = bool(prompts) and all(fields.is_number(tokens) for tokens in prompts)
    experiment = run.get("experiment")
    experiment = experiment if isinstance(experiment, dict) else {}
    value, mode = experiment.get("value"), experiment.get("mode")
    return Records(
        format=NAME,
        start_s=fields.from_first(starts),
        prompt_tokens=fields.token_column(where, "prompt_tokens", prompts) if counted else None,
        prompt_words=np.array(words, dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        ttft_s=np.array(ttfts, dtype=np.float64),
        e2e_s=np.array(ends, dtype=np.float64),
        itls_s=gaps,
        failed=np.array([not tokens for tokens in outputs], dtype=bool),
        model=model,
        rate=fields.optional_rate(value) if mode == "request_rate" else None,
        concurrency=fields.optional_count(value) if mode == "concurrency" else None,
    )


def _paired(stamps: Any, answers: list[list[Any]]) -> list[tuple[Any, bool]]:
    """Each time stamp and whether its chunk has text; without the chunks each counts."""
    if len(answers) != len(stamps):
        return [(stamp, True) for stamp in stamps]
    return [(s, any(map(_has_text, all_of))) for s, all_of in zip(stamps, answers, strict=True)]


def _answers(output: object) -> list[Any]:
    """The JSON documents of one chunk of a stream of server-sent events."""
    text = output.get("response") if isinstance(output, dict) else output
    found = []
    for line in (text if isinstance(text, str) else "").splitlines():
        try:
            document = json.loads(line.removeprefix("data:").strip())
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            found.append(document)
    return found


def _usage(answer: Mapping[str, Any]) -> bool:
    return isinstance(answer.get("usage"), dict)


def _has_text(answer: Mapping[str, Any]) -> bool:
    choices = answer.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        held = {**choice, **delta} if isinstance(delta, dict) else choice
        if isinstance(held, dict) and any(
            held.get(key) for key in ("text", "content", "reasoning_content", "tool_calls")
        ):
            return True
    return False


def _payload(request: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = request.get("request_inputs")
    text = inputs.get("payload") if isinstance(inputs, dict) else None
    try:
        payload = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def _prompt_text(payload: Mapping[str, Any]) -> str:
    if isinstance(payload.get("prompt"), str):
        return payload["prompt"]
    messages = payload.get("messages")
    parts = [m.get("content") for m in messages if isinstance(m, dict)] if messages else []
    return " ".join(part for part in parts if isinstance(part, str))
